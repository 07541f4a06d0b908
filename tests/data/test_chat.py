"""Chat templates render as transformers renders them, and a hostile one gets nowhere."""

import json
import random
import time

import pytest

from r1jax.data import sandbox
from r1jax.data.chat import ChatTemplate, ChatTemplateError, read_templates
from r1jax.data.tokenizer import Tokenizer

USER = [{"role": "user", "content": "one"}]
TOOL = {"type": "function", "function": {"name": "f", "description": "<é> & 'x'", "parameters": {"type": "object"}}}

# Everything that published templates use, in one.
RICH = """
{%- macro show(value, depth=0) -%}
  {%- if value is mapping -%}{ {%- for k, v in value|items -%}{{ k }}={{ show(v, depth + 1) }}{{ ',' if not loop.last }}{%- endfor -%} }
  {%- elif value is string -%}{{ value|trim|replace('\\n', ' ')|e }}
  {%- elif value is iterable -%}{% for v in value %}{% if v == 'stop' %}{% break %}{% endif %}{{ show(v) }};{% endfor %}
  {%- else -%}{{ value|string|upper }}{%- endif -%}
{%- endmacro -%}
{%- set ns = namespace(count=0, text='') -%}
{{ bos_token }}{{- tools|tojson(indent=2) if tools else 'no tools' }}
{% if messages[0]['role'] == 'system' %}{% set system = messages[0]['content'] %}{% set rest = messages[1:] %}
{% else %}{% set system = 'default' %}{% set rest = messages %}{% endif %}
    {% for message in rest %}
    {% if message.role == 'skip' %}{% continue %}{% endif %}
    {%- set ns.count = ns.count + 1 -%}
    {%- set ns.text = ns.text ~ message.role[0] ~ loop.index0 -%}
    {% generation %}<{{ message['role']|capitalize }}>{{ message.content }}{% endgeneration %}
    {{ show(message) }} {{ message.get('x', 'none') }} {{ '%03d|%s' | format(ns.count, message.role) }} {{ "{}-{:>4}".format(1, 'a') }}
    {% endfor %}
{{ ns.text }} {{ system.split(' ')[-1] }} {{ rest|map(attribute='role')|unique|join('+') }} {{ rest|selectattr('role', 'equalto', 'user')|list|length }}
{{ 'é<b>'|tojson }} {{ dict(a=1)|tojson }} {{ range(3)|list }} {{ [1, 2] + [3] }} {{ 'ab' * 2 }} {{ 7 // 2 }} {{ 2 ** 3 }} {{ none is none }}
{{ content | default('d') }} {{ documents is none }} {{ strftime_now('%%')|length }} {{ undefined_name is defined }} {{ [3, 1]|sort|last }} {{ ('x', 1) }}
{% if add_generation_prompt %}go{% endif %}"""


def conversations(count, seed):
    """Random conversations with systems, tools, reasoning, and missing contents."""
    random_ = random.Random(seed)
    words = [
        "hi",
        "你好 <b>&amp;</b>",
        "a</think>b",
        "<think>x</think>\n\ny",
        "",
        "  space  ",
        "two\nlines",
        "{{ x }} {% raw %}",
        "'q\" \\",
    ]

    def text():
        return random_.choice(words) + random_.choice(words)

    for _ in range(count):
        messages = [{"role": "system", "content": text()}] if random_.random() < 0.5 else []
        for _ in range(random_.randrange(1, 5)):
            messages.append({"role": "user", "content": text()})
            if random_.random() < 0.3:
                function = {"name": "f", "arguments": random_.choice(['{"a": 1}', '{"b": "é<"}'])}
                calls = [{"type": "function", "function": function}] * random_.randrange(1, 3)
                messages.append({"role": "assistant", "content": random_.choice([None, "ok", ""]), "tool_calls": calls})
                messages += [{"role": "tool", "content": text()}] * random_.randrange(3)
            elif random_.random() < 0.8:
                reasoning = {"reasoning": text()} if random_.random() < 0.2 else {}
                messages.append({"role": "assistant", "content": text(), **reasoning})
        yield messages, {"add_generation_prompt": random_.random() < 0.5, "tools": random_.choice([None, [TOOL]])}


def assert_equal_to_transformers(ours, theirs, count, seed):
    rendered = 0
    for messages, options in conversations(count, seed):
        try:
            expected = theirs.apply_chat_template(messages, tokenize=False, **options)
        except Exception:  # the template refuses, in whatever way
            with pytest.raises(ChatTemplateError):
                ours.apply_chat_template(messages, **options)
            continue
        text = ours.apply_chat_template(messages, **options)
        assert text == expected
        assert ours.encode(text) == theirs.apply_chat_template(messages, tokenize=True, return_dict=False, **options)
        rendered += 1
    assert rendered > count // 3


def test_published_templates_equal_transformers(published, ours, theirs):
    assert_equal_to_transformers(ours(published), theirs(published), 150, seed=1)


def test_every_feature_equals_transformers(small, ours, theirs):
    directory = small("bpe", chat_template=RICH, bos_token="<|im_start|>")
    assert_equal_to_transformers(ours(directory), theirs(directory), 60, seed=2)


def test_named_templates_and_files(small):
    named = [{"name": "default", "template": "D{{ messages|length }}"}, {"name": "tool_use", "template": "T"}]
    directory = small("bpe", chat_template=named)
    tokenizer = Tokenizer.load(directory)
    assert tokenizer.apply_chat_template(USER) == "D1"
    assert tokenizer.apply_chat_template(USER, tools=[TOOL]) == "T"
    (directory / "chat_template.json").write_text(json.dumps({"chat_template": "J"}))
    assert Tokenizer.load(directory).apply_chat_template(USER) == "J"
    (directory / "chat_template.jinja").write_text("{{ bos_token }}F{{ eos_token }}\n")
    assert Tokenizer.load(directory).apply_chat_template(USER) == "F<|endoftext|>"
    with pytest.raises(ChatTemplateError, match="no chat template 'other'; the model has default"):
        Tokenizer.load(directory).chat.render(USER, name="other")


def test_errors_are_clear(small):
    with pytest.raises(ChatTemplateError, match="no chat template; add chat_template"):
        Tokenizer.load(small("bpe", chat_template=None)).apply_chat_template(USER)
    with pytest.raises(ChatTemplateError, match="at least one message"):
        ChatTemplate({"default": "a"}).render([])
    with pytest.raises(ChatTemplateError, match="role and content"):
        ChatTemplate({"default": "a"}).render(["hello"])
    with pytest.raises(ChatTemplateError, match="no system, please"):
        ChatTemplate({"default": "{{ raise_exception('no system, please') }}"}).render(USER)
    with pytest.raises(ChatTemplateError, match="line 2"):
        ChatTemplate({"default": "\n{% for %}"}).render(USER)
    with pytest.raises(ChatTemplateError, match="must be text or a list"):
        read_templates(3)


def test_a_template_sees_plain_data_only():
    class Loud(str):
        def shout(self):
            return "escaped"

    template = ChatTemplate({"default": "{{ messages[0].content.shout is defined }} {{ messages[0].thing }}"})
    assert template.render([{"role": "user", "content": Loud("a"), "thing": object()}]) == "False <object>"


def test_messages_are_not_changed():
    messages = [{"role": "user", "content": "a", "reasoning": "r", "x": None}]
    assert (
        ChatTemplate({"default": "{{ messages[0].reasoning_content }}{{ messages[0].x is defined }}"}).render(messages)
        == "rFalse"
    )
    assert messages == [{"role": "user", "content": "a", "reasoning": "r", "x": None}]


ESCAPES = [
    "{{ ''.__class__.__mro__ }}",
    "{{ ''['__class__'] }}",
    "{{ ''|attr('__class__') }}",
    "{{ ['']|map(attribute='__class__')|first }}",
    "{{ '{0.__class__.__mro__}'.format('') }}",
    "{{ '{a.__class__}'.format_map({'a': ''}) }}",
    "{{ raise_exception.__globals__ }}",
    "{{ strftime_now.__globals__ }}",
    "{{ cycler.__init__.__globals__ }}",
    "{{ joiner.__init__.__globals__['__builtins__'] }}",
    "{{ dict.__class__ }}",
    "{{ namespace.__init__.__globals__ }}",
    "{% set ns = namespace() %}{% set ns.__class__ = 1 %}{{ ns }}",
    "{{ self._TemplateReference__context }}",
    "{{ (messages|map('upper')).gi_frame.f_globals }}",
    "{{ environment }}{{ turn }}{{ config }}",
    "{% set _ = messages.append(1) %}{{ messages }}",
    "{% set _ = messages[0].update(role='system') %}{{ messages }}",
    "{% import 'os' as os %}{{ os.system }}",
    "{% include '/etc/passwd' %}",
    "{{ lipsum.__globals__ }}",
]


@pytest.mark.parametrize("source", ESCAPES)
def test_no_way_into_python(source):
    try:
        text = ChatTemplate({"default": source}).render(USER)
    except ChatTemplateError:
        return
    assert text in ("", "Undefined"), text


S = "{% set ns = namespace(x='ab', l=[]) %}{% for i in range(70) %}"
GROWTH = {
    "loops": "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "filtered loops": "{% for i in range(99999) %}{% for j in range(99999) if false %}{% endfor %}{% endfor %}",
    "long body": "{% for i in range(99999) %}{% for j in range(99999) %}" + "x" * 9999 + "{% endfor %}{% endfor %}",
    "macro": "{% macro m(n) %}{% if n > 0 %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(60) }}",
    "endless macro": "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "times": "{{ 'a' * 10000000000 }}",
    "times from the left": "{{ 10000000000 * 'a' }}",
    "list times": "{% set a = [1] * 10000000000 %}",
    "power": "{{ 10 ** 1000000000 }}",
    "squares": S + "{% set ns.x = 10 if i == 0 else ns.x * ns.x %}{% endfor %}",
    "joined by ~": S + "{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
    "sum of texts": S + "{% set ns.x = ns.x + ns.x %}{% endfor %}",
    "nested lists": S + "{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x }}",
    "nested tuples": S + "{% set ns.x = (ns.x, ns.x) %}{% endfor %}{{ ns.x|string|length }}",
    "nested dicts": S + "{% set ns.x = dict(a=ns.x, b=ns.x) %}{% endfor %}{{ ns.x|tojson }}",
    "replace": S + "{% set ns.x = ns.x.replace('a', 'aaaaaaaaaa') %}{% endfor %}",
    "replace filter": S + "{% set ns.x = ns.x|replace('a', 'aaaaaaaaaa') %}{% endfor %}",
    "set block": S + "{% set ns.x %}{{ ns.x }}{{ ns.x }}{% endset %}{% endfor %}",
    "kept lists": "{% set ns = namespace(l=[]) %}{% for i in range(9999) %}{% set ns.l = ns.l + [range(99999)|list] %}{% endfor %}",
    "kept texts": "{% set a = 'x' * 5000000 %}" + S + "{% set ns.l = ns.l + [a ~ i] %}{% endfor %}",
    "join": "{{ range(99999)|join('x' * 1000000) }}",
    "join method": "{{ ('x' * 1000000).join('y' * 1000000) }}",
    "ljust": "{{ 'a'.ljust(99999999999) }}",
    "format width": "{{ '{:>10000000000}'.format(1) }}",
    "computed width": "{{ '{:>{}}'.format(1, 10000000000) }}",
    "percent width": "{{ '%10000000000d' % 1 }}",
    "percent star": "{{ '%*d' % (10000000000, 1) }}",
    "format filter": "{{ '%10000000000d'|format(1) }}",
    "json indent": "{{ {'a': [1, 2]}|tojson(indent=100000000) }}",
    "indent": "{{ 'a'|indent(1000000000, true) }}",
    "round": "{{ 1.5|round(1000000000) }}",
    "to_bytes": "{{ (1).to_bytes(1000000000, 'big') }}",
    "expandtabs": "{{ ('\\t' * 1000000).expandtabs(1000000) }}",
    "translate": "{{ 'aaaa'.translate({97: 'x' * 9999999}) }}",
    "parentheses": "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
    "long": "x" * 1_000_001,
}


@pytest.mark.parametrize("name", GROWTH)
def test_no_growth_without_end(name, monkeypatch):
    monkeypatch.setattr(sandbox, "SECONDS_LIMIT", 1.0)
    started = time.monotonic()
    with pytest.raises(ChatTemplateError):
        ChatTemplate({"default": GROWTH[name]}).render(USER)
    assert time.monotonic() - started < 5


def test_long_conversations_are_within_budget():
    chatml = "{% for m in messages %}{{ '<|' ~ m.role ~ '|>' + m.content + '\n' }}{% endfor %}"
    messages = [{"role": "user", "content": "x" * 20_000}] * 1000
    assert len(ChatTemplate({"default": chatml}).render(messages)) > 20_000_000
