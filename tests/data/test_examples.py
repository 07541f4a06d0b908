"""Examples: which tokens are learnt, to the token; rows that can't be learnt are named."""

import json
from pathlib import Path

import numpy as np
import pytest

from r1jax.config import DataSource
from r1jax.data.examples import check_examples, end_token, example_rows, load_examples, total_tokens
from r1jax.data.prompts import DataError
from r1jax.data.template import render_prompt

BPE, PIECES = (Path(__file__).parent / "tokenizers" / kind for kind in ("bpe", "sentencepiece"))
# Stands for R1's: past reasoning is left out, an answer begins with the thinking already opened.
R1_LIKE = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}<|im_start|>{{ m.content }}{% else %}"
    "{{ m.content.split('</think>')[-1] }}<|im_end|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"
)


def write(tmp_path, *rows):
    path = tmp_path / "examples.jsonl"
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return DataSource(str(path), template="none")


def one(tmp_path, tokenizer, **row):
    (example,), too_long = load_examples(write(tmp_path, row), tokenizer, 4_096)
    assert too_long == 0
    return example


def parts(example):
    return example.tokens[: example.completion_start].tolist(), example.tokens[example.completion_start :].tolist()


@pytest.mark.parametrize("folder", [BPE, PIECES], ids=["bpe", "sentencepiece"])
@pytest.mark.parametrize("template", ["none", "r1_zero", "Q: {prompt}\nA:"])
@pytest.mark.parametrize("completion", ["4", " 4 apples.", "\n\n<think>2 + 2</think>", "  two", "等等"])
def test_the_completion_and_its_end_are_learnt_and_nothing_else(ours, tmp_path, folder, template, completion):
    tokenizer = ours(folder)
    example = one(tmp_path, tokenizer, problem="What is 2+2?", template=template, completion=completion)
    text, ids = render_prompt(template, "What is 2+2?", tokenizer)
    prompt, learnt = parts(example)
    assert prompt == ids, "what the model is given when it is sampled"
    assert tokenizer.token(learnt[-1]) == ("<|endoftext|>" if folder == BPE else "</s>")
    assert tokenizer.decode([*ids, *learnt[:-1]], skip_special=True) == text + completion
    assert example.tokens.dtype == np.int32 and example.learnt == len(learnt)


def test_a_border_inside_a_token_stays_a_border(ours, tmp_path):
    """The model is given the prompt's own tokens, also where prompt and completion together have others."""
    for folder in (BPE, PIECES):
        tokenizer = ours(folder)
        crossed = 0
        for head, tail in (("app", "les"), ("How man", "y apples"), ("the", "re are"), ("a b", "oy"), ("x", "́y")):
            prompt, learnt = parts(one(tmp_path, tokenizer, problem=head, completion=tail))
            assert prompt == render_prompt("none", head, tokenizer)[1]
            assert tokenizer.decode([*prompt, *learnt[:-1]], skip_special=True).replace("́", "") == (head + tail).replace(
                "́", ""
            )
            crossed += [*prompt, *learnt[:-1]] != tokenizer.encode(head + tail, add_bos=tokenizer.adds_bos)
        assert crossed >= 2, "none of these texts has a token across the border"


def test_a_chat_answer_ends_as_the_template_ends_it(ours, theirs, tmp_path):
    tokenizer = ours(BPE)
    for template in ("chat", "boxed"):
        prompt, learnt = parts(one(tmp_path, tokenizer, problem="2+2?", template=template, completion="4."))
        assert prompt == render_prompt(template, "2+2?", tokenizer)[1]
        assert tokenizer.decode(learnt) == "4.<|im_end|>" and learnt[-1] == tokenizer.turn_end_id
    assert tokenizer.turn_end_id != tokenizer.eos_id
    # As transformers writes the whole dialogue, but for the line end that follows the turn.
    messages = [{"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "4."}]
    whole = theirs(BPE).apply_chat_template(messages, tokenize=False)
    tokens = one(tmp_path, tokenizer, messages=messages).tokens.tolist()
    assert whole == tokenizer.decode(tokens) + "\n"
    assert tokens == theirs(BPE).encode(whole.removesuffix("\n"))


def test_of_a_dialogue_the_last_answer_is_learnt(ours, tmp_path):
    tokenizer = ours(BPE)
    messages = [
        {"role": "system", "content": "Count."},
        {"role": "user", "content": "One?"},
        {"role": "assistant", "content": "1"},
        {"role": "user", "content": "Two?"},
        {"role": "assistant", "content": " 2"},
    ]
    prompt, learnt = parts(one(tmp_path, tokenizer, messages=messages))
    assert tokenizer.decode(learnt) == " 2<|im_end|>"
    assert tokenizer.decode(prompt) == tokenizer.apply_chat_template(messages[:-1], add_generation_prompt=True)
    assert "1<|im_end|>" in tokenizer.decode(prompt)


def test_reasoning_is_learnt_though_the_template_forgets_it(ours, small, tmp_path):
    tokenizer = ours(small("bpe", chat_template=R1_LIKE, bos_token="<|endoftext|>"))
    said = "<think>\nTwo and two.\n</think>\n\n4"
    dialogue = [{"role": "user", "content": "2+2?"}, {"role": "assistant", "content": said}]
    more = [*dialogue, {"role": "user", "content": "3+3?"}]
    opened = "<|im_start|>assistant\n<think>\n"
    wanted = "Two and two.\n</think>\n\n4<|im_end|>"  # the prompt has opened the thinking
    prompt, learnt = parts(one(tmp_path, tokenizer, messages=dialogue))
    assert tokenizer.decode(learnt) == wanted and tokenizer.decode(prompt).endswith(opened)
    assert tokenizer.decode(prompt).count("<think>") == 1
    split = {"role": "assistant", "reasoning_content": "Two and two.", "content": "4"}
    assert tokenizer.decode(parts(one(tmp_path, tokenizer, messages=[dialogue[0], split]))[1]) == wanted
    assert tokenizer.decode(parts(one(tmp_path, tokenizer, problem="2+2?", template="chat", completion=said))[1]) == wanted
    prompt, learnt = parts(one(tmp_path, tokenizer, messages=[*more, {"role": "assistant", "content": "6"}]))
    assert "Two and two." not in tokenizer.decode(prompt) and tokenizer.decode(learnt) == "6<|im_end|>"


def test_a_template_that_ends_no_turn_leaves_the_tokenizer_s_end(ours, small):
    tokenizer = ours(small("bpe", chat_template="{% for m in messages %}{{ m.content }}\n{% endfor %}"))
    assert tokenizer.turn_end_id is None and end_token(tokenizer, chat=True) == tokenizer.eos_id
    assert tokenizer.token(tokenizer.eos_id) == "<|endoftext|>"


def test_a_tokenizer_without_an_end_is_refused(small, ours):
    tokenizer = ours(small("bpe", eos_token=None, chat_template="{{ messages[0].content }}"))
    with pytest.raises(ValueError, match="names no end of sequence; put eos_token into its tokenizer_config.json"):
        end_token(tokenizer, chat=False)


def test_what_is_too_long_is_left_out_and_counted(ours, tmp_path):
    tokenizer = ours(BPE)
    rows = [{"problem": "One?", "completion": " 1" * n} for n in (1, 9, 2, 30)]
    lengths = [len(e.tokens) for e in load_examples(write(tmp_path, *rows), tokenizer, 4_096)[0]]
    kept, too_long = load_examples(write(tmp_path, *rows), tokenizer, lengths[1])
    assert [len(e.tokens) for e in kept] == lengths[:3] and too_long == 1
    kept, too_long = load_examples(write(tmp_path, *rows), tokenizer, lengths[1] - 1)
    assert [len(e.tokens) for e in kept] == [lengths[0], lengths[2]] and too_long == 2
    assert total_tokens(kept) == (lengths[0] + lengths[2], sum(e.learnt for e in kept))
    with pytest.raises(DataError, match="no example of .* fits max_tokens 2: all 4 are longer; raise it"):
        load_examples(write(tmp_path, *rows), tokenizer, 2)


def test_a_chunk_of_rows_is_no_border(ours, tmp_path, monkeypatch):
    rows = [{"question": f"{i}?", "completion": f"{i}!"} for i in range(7)]
    whole, _ = load_examples(write(tmp_path, *rows), ours(BPE), 64)
    monkeypatch.setattr("r1jax.data.examples.CHUNK", 3)
    parted, _ = load_examples(write(tmp_path, *rows), ours(BPE), 64)
    assert [e.tokens.tolist() for e in whole] == [e.tokens.tolist() for e in parted] and len(whole) == 7


def test_other_fields_parquet_and_a_limit(ours, tmp_path):
    parquet, pyarrow = pytest.importorskip("pyarrow.parquet"), pytest.importorskip("pyarrow")
    table = pyarrow.table({"question": ["One?", "Two?", "Three?"], "answer": ["1", "2", "3"], "template": [None] * 3})
    parquet.write_table(table, tmp_path / "rows.parquet")
    source = DataSource(str(tmp_path / "rows.parquet"), template="none", completion_field="answer", limit=2)
    assert [(row.problem, row.completion) for row in example_rows(source)] == [("One?", "1"), ("Two?", "2")]


USER, ASSISTANT = {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}


@pytest.mark.parametrize(
    "row, message",
    [
        ({"problem": "a"}, "neither completion nor messages among its fields problem"),
        ({"problem": "a", "completion": "  \n"}, "the completion is empty"),
        ({"problem": "a", "completion": 4}, "completion must be text, not 4"),
        ({"problem": "a", "completion": "\ud800"}, "the completion is not valid Unicode"),
        ({"completion": "b"}, "no problem or question among its fields completion"),
        ({"problem": " ", "completion": "b"}, "the problem is empty"),
        (
            {"problem": "a", "completion": "b", "template": "r1zero"},
            "unknown prompt template 'r1zero'; did you mean 'r1_zero'",
        ),
        ({"messages": []}, "at least a question and an answer"),
        ({"messages": "hello"}, "messages must be a list"),
        ({"messages": [USER, USER]}, "the last message must be the assistant's, which is learnt, not the user's"),
        ({"messages": [USER, {"role": "assistant", "content": ""}]}, "the content of the assistant's message is empty"),
        ({"messages": [USER, {"content": "b"}]}, "a message must have a role and content"),
        ({"messages": [USER, {**ASSISTANT, "reasoning_content": 3}]}, "reasoning of the last message must be text"),
        ([1], "a row must be a JSON object, not list"),
        ("{", "not a line of JSON"),
    ],
)
def test_rows_that_cannot_be_learnt_are_named(tmp_path, row, message):
    good = {"problem": "a", "completion": "b"}
    with pytest.raises(DataError, match=f"examples.jsonl:2: .*{message}"):
        check_examples(write(tmp_path, good, row))


def test_no_file_and_no_rows(tmp_path):
    with pytest.raises(DataError, match="there is no file"):
        check_examples(DataSource("nowhere.jsonl"), tmp_path)
    with pytest.raises(DataError, match="has no rows"):
        check_examples(write(tmp_path))


def test_what_needs_the_tokenizer_is_named_too(ours, tmp_path):
    with pytest.raises(DataError, match="examples.jsonl:1: the completion holds '<|im_end|>', which ends a sequence"):
        one(tmp_path, ours(BPE), problem="a", completion="b<|im_end|>")
    with pytest.raises(ValueError, match="has no chat template"):
        one(tmp_path, ours(PIECES), problem="a", template="chat", completion="b")
    with pytest.raises(DataError, match="examples.jsonl:1: .*has no chat template"):
        one(tmp_path, ours(PIECES), messages=[USER, ASSISTANT])
