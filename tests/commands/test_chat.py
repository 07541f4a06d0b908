"""A conversation: what is shown, what is kept, what the model is given next."""

import argparse
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from r1jax.commands.chat import DIM, PLAIN, Chat, dimmed, talk

TINY = Path(__file__).parents[2] / "configs" / "tiny"
# As R1's: thinking is begun by the template, and cut from earlier answers.
TEMPLATE = (
    "{% for m in messages %}{% if m.role == 'assistant' %}A:{{ m.content.split('</think>')[-1] }}\n"
    "{% else %}{{ m.role[0] | upper }}:{{ m.content }}\n{% endif %}{% endfor %}{% if add_generation_prompt %}A:<think>\n{% endif %}"
)


@pytest.mark.parametrize(
    "pieces, thinking, shown",
    [
        (["a<think>b</think>c"], False, f"a{DIM}<think>b</think>{PLAIN}c"),
        (["b</think>c"], True, f"{DIM}b</think>{PLAIN}c"),
        (["a<thi", "nk>b</th", "ink>", "c"], False, f"a{DIM}<think>b</think>{PLAIN}c"),
        (["a<thin", "g"], False, "a<thing"),
        (["never ends"], True, f"{DIM}never ends{PLAIN}"),
        (["<", "<think>x"], False, f"<{DIM}<think>x{PLAIN}"),
        ([], False, ""),
    ],
)
def test_thinking_is_dimmed_however_tags_are_split(pieces, thinking, shown):
    assert "".join(dimmed(pieces, thinking)) == shown


class Stream:
    push = staticmethod(lambda ids: bytes(ids).decode())
    finish = staticmethod(lambda: "")


class Tokenizer:
    """Bytes as ids; 0 ends."""

    eos_ids = frozenset({0})
    chat = object()
    stream = staticmethod(Stream)

    def encode(self, text):
        return list(text.encode())


class Script:
    """A sampler that says what is written down, three bytes at a time."""

    def __init__(self, *answers):
        self.answers, self.waves = list(answers), []

    def stream(self, params, wave):
        self.waves.append(wave)
        ids = np.frombuffer(self.answers.pop(0).encode() + b"\0", np.uint8).astype(np.int32)
        for start in range(0, len(ids), 3):
            yield ids[start : start + 3]


def chat(*answers, system=None, positions=200):
    import jinja2

    template = jinja2.Template(TEMPLATE)
    tokenizer = Tokenizer()
    tokenizer.apply_chat_template = lambda messages, add_generation_prompt: template.render(
        messages=messages, add_generation_prompt=add_generation_prompt
    )
    model = SimpleNamespace(
        params=None, tokenizer=tokenizer, config=SimpleNamespace(eos_token_ids=(), max_position_embeddings=positions)
    )
    arguments = argparse.Namespace(system=system, max_tokens=50, temperature=0.6, top_p=0.95, seed=3)
    return Chat(model, Script(*answers), arguments)


def test_the_conversation_is_kept_and_earlier_thinking_is_cut_as_the_template_says():
    one, out = chat("hm</think>hello", "so</think>bye", system="be kind"), io.StringIO()
    talk(one, ["hi\n", "\n", "and now?\n", "/exit\n", "never asked\n"], out, colours=False)
    first, second = (bytes(w.prompts[0].tolist()).decode() for w in one._sampler.waves)
    assert first == "S:be kind\nU:hi\nA:<think>\n"
    assert second == "S:be kind\nU:hi\nA:hello\nU:and now?\nA:<think>\n"
    assert out.getvalue() == "hm</think>hello\nso</think>bye\n"
    assert [w.prompt_ids for w in one._sampler.waves] == [(0,), (1,)]  # a turn has randomness of its own
    assert one.messages[2] == {"role": "assistant", "content": "<think>\nhm</think>hello"}


def test_thinking_that_the_template_begins_is_dimmed_from_the_start():
    out = io.StringIO()
    talk(chat("hm</think>hello"), ["hi"], out, colours=True)
    assert out.getvalue() == f"{DIM}…\r\033[Khm</think>{PLAIN}hello\n"


def test_an_empty_answer_leaves_no_ellipsis():
    out = io.StringIO()
    talk(chat(""), ["hi"], out, colours=True)
    assert out.getvalue() == f"{DIM}…\r\033[K{PLAIN}\n"


def test_a_new_conversation_forgets_and_a_full_one_says_so():
    one, out = chat("a</think>b", "c</think>d", positions=60), io.StringIO()
    talk(one, ["hi", "x" * 80, "y" * 45, "/new", "hi", "/new", "z" * 58], out, colours=False)
    refused = [line for line in out.getvalue().splitlines() if "tokens" in line]
    assert refused == [
        "the message makes 93 tokens, the model has 60 positions: shorten it",
        "the conversation makes 67 tokens, the model has 60 positions; /new begins another",
        "the message makes 71 tokens, the model has 60 positions: shorten it",
    ]
    assert (
        len(one._sampler.waves) == 2
        and one._sampler.waves[0].prompts[0].tolist() == one._sampler.waves[1].prompts[0].tolist()
    )


def test_an_interrupted_answer_ends_the_turn_and_stays_in_the_conversation():
    one, out = chat("abc never", "ok"), io.StringIO()

    def interrupted(params, wave, stream=one._sampler.stream):
        pieces = stream(params, wave)
        yield next(pieces)
        raise KeyboardInterrupt

    plain, one._sampler.stream = one._sampler.stream, interrupted
    talk(one, ["hi"], out, colours=False)
    one._sampler.stream = plain
    talk(one, ["go on"], out, colours=False)
    assert out.getvalue() == "abc\nok\n"
    assert [m["role"] for m in one.messages] == ["user", "assistant", "user", "assistant"]


@pytest.mark.slow
def test_the_command_answers_lines_from_a_pipe():
    command = [sys.executable, "-m", "r1jax.cli", "chat", str(TINY / "base"), "--max-tokens", "12", "--temperature", "0"]
    environment = os.environ | {"XLA_FLAGS": ""}
    done = subprocess.run(command, input="From 2, 5 make 7.\n", capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr
    generate = [*command[:3], "generate", str(TINY / "base"), "--chat", "--prompt", "From 2, 5 make 7.", *command[5:]]
    same = subprocess.run(generate, capture_output=True, text=True, timeout=300, env=environment)
    assert done.stdout == same.stdout != ""


def test_a_model_without_a_chat_template_is_refused(tmp_path):
    base = shutil.copytree(TINY / "base", tmp_path / "base")
    settings = json.loads((base / "tokenizer_config.json").read_text())
    del settings["chat_template"]
    (base / "tokenizer_config.json").write_text(json.dumps(settings))
    command = [sys.executable, "-m", "r1jax.cli", "chat", str(base)]
    done = subprocess.run(command, input="hi\n", capture_output=True, text=True, timeout=300)
    assert done.returncode == 2 and "has no chat template; r1jax generate" in done.stderr
