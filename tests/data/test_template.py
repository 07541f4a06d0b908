"""Prompt templates: the paper's text, only {prompt} replaced, one BOS where the tokenizer wants it."""

from pathlib import Path

import pytest

from r1jax.data.template import TEMPLATE_NAMES, check_template, fill, render_prompt

BPE, PIECES = (Path(__file__).parent / "tokenizers" / kind for kind in ("bpe", "sentencepiece"))


def test_the_papers_text(ours):
    text, ids = render_prompt("r1_zero", "What is {1} + \\boxed{prompt}", ours(BPE))
    assert text.startswith(
        "A conversation between User and Assistant. The user asks a question, and the Assistant solves it. "
    )
    assert "i.e., <think> reasoning process here </think> <answer> answer here </answer>. User: What is {1}" in text
    assert text.endswith("User: What is {1} + \\boxed{prompt}. Assistant:")
    assert ids == ours(BPE).encode(text)


def test_none_and_own_templates(ours):
    assert render_prompt("none", "a {prompt} b", ours(BPE))[0] == "a {prompt} b"
    assert render_prompt("{{x}} {prompt} {prompt}=", "p{prompt}", ours(BPE))[0] == "{{x}} p{prompt} p{prompt}="


def test_plain_text_begins_with_one_bos(ours):
    tokenizer = ours(PIECES)
    assert render_prompt("none", "wait", tokenizer)[1] == [1, *tokenizer.encode("wait")]
    assert render_prompt("none", "<s>wait", tokenizer)[1].count(1) == 1


def test_chat_and_boxed(ours, small):
    assert render_prompt("chat", "Hi", ours(BPE))[0] == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    text, ids = render_prompt("boxed", "2+2?", ours(BPE))
    directive = "Please reason step by step, and put your final answer within \\boxed{}."
    assert text == f"<|im_start|>user\n2+2?\n{directive}<|im_end|>\n<|im_start|>assistant\n"
    assert ids == ours(BPE).encode(text)
    bos = small(
        "bpe", bos_token="<|endoftext|>", add_bos_token=True, chat_template="{{ bos_token }}{{ messages[0].content }}"
    )
    assert render_prompt("chat", "a", ours(bos))[1].count(ours(bos).bos_id) == 1


def test_a_published_chat(published, ours, theirs):
    text, ids = render_prompt("chat", "Hi", ours(published))
    expected = theirs(published).apply_chat_template([{"role": "user", "content": "Hi"}], add_generation_prompt=True)
    assert ids == expected["input_ids"] and theirs(published).decode(ids) == text


def test_unknown_names():
    for name in TEMPLATE_NAMES:
        check_template(name)
    with pytest.raises(ValueError, match="unknown prompt template 'r1-zero'; did you mean 'r1_zero'"):
        check_template("r1-zero")
    with pytest.raises(ValueError, match="any text containing {prompt}"):
        check_template("Question: {problem}")


def test_chat_needs_a_chat_template(ours):
    with pytest.raises(ValueError, match="no chat template"):
        render_prompt("chat", "Hi", ours(PIECES))


def test_braces_in_values_stand_for_themselves():
    assert fill("{b}{a} {c}", a="{b}", b="x{a}") == "x{a}{b} {c}"
