"""What reward models learn from: every notation gives the same tokens, and rows that can't be learnt are named."""

import dataclasses
import gzip
import json
import os
from pathlib import Path

import pytest

from r1jax.config import DataSource
from r1jax.data.preferences import labelled_rows, load_labelled, load_pairs, pair_rows
from r1jax.data.prompts import DataError
from r1jax.data.summary import final_summary

BPE = Path(__file__).parent / "tokenizers" / "bpe"
WORLD = Path(__file__).parents[2] / "configs/tiny/world"
OPENING = (
    "{% for m in messages %}<|im_start|>{{ m.content }}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"
)


def write(tmp_path, *rows, name="rows.jsonl", **source):
    path = tmp_path / name
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return DataSource(str(path), **{"template": "none", **source})


# ---------------------------------------------------------------------------------------------- summaries
@pytest.mark.parametrize(
    "response, expected",
    [
        ("four", "four"),
        ("<think>two and two</think>\n\nfour ", "four"),
        ("two and two</think>four", "four"),
        ("<think>a</think>b<think>c</think>d", "d"),
        ("<think>two and two", None),
        ("<think>two and two</think>\n ", None),
        ("", None),
    ],
)
def test_the_final_summary(response, expected):
    assert final_summary(response) == expected


# ---------------------------------------------------------------------------------------------- notations
PROBLEM = {"problem": "Hi!", "template": "chat"}
NOTATIONS = {
    "text": {**PROBLEM, "chosen": "Yes.", "rejected": "No."},
    "messages": {"messages": [{"role": "user", "content": "Hi!"}], "chosen": "Yes.", "rejected": "No."},
    "a message": {
        **PROBLEM,
        "chosen": {"role": "assistant", "content": "Yes."},
        "rejected": {"from": "gpt", "value": "No."},
    },
    "share gpt": {
        "conversations": [{"from": "human", "value": "Hi!"}],
        "chosen": {"from": "gpt", "value": "Yes."},
        "rejected": {"from": "gpt", "value": "No."},
    },
    "prompt of messages": {
        "prompt": [{"role": "user", "content": "Hi!"}],
        "chosen": [{"role": "assistant", "content": "Yes."}],
        "rejected": [{"role": "assistant", "content": "No."}],
    },
    "dialogues": {
        "chosen": [{"role": "user", "content": "Hi!"}, {"role": "assistant", "content": "Yes."}],
        "rejected": [{"role": "user", "content": "Hi!"}, {"role": "assistant", "content": "No."}],
    },
    "transcripts": {"chosen": "\n\nHuman: Hi!\n\nAssistant: Yes.", "rejected": "\n\nHuman: Hi!\n\nAssistant: No."},
}


@pytest.mark.parametrize("name", NOTATIONS)
def test_every_notation_gives_the_same_sequences(ours, tmp_path, name):
    tokenizer = ours(BPE)
    (pair,), left_out = load_pairs(write(tmp_path, NOTATIONS[name]), tokenizer, 512, "whole_response")
    assert (left_out.too_long, left_out.no_summary) == (0, 0)
    prompt = tokenizer.apply_chat_template([{"role": "user", "content": "Hi!"}], add_generation_prompt=True)
    for example, said in zip(pair.sequences, ("Yes.", "No.")):
        whole = tokenizer.decode(example.tokens)
        assert whole.startswith(prompt + said) and example.tokens[-1] in tokenizer.eos_ids
        assert tokenizer.decode(example.tokens[: example.completion_start]) == prompt


def test_reading_the_summary_closes_a_prompt_that_opens_a_thought(ours, small, tmp_path):
    tokenizer = ours(small("bpe", chat_template=OPENING))
    row = {**PROBLEM, "chosen": "so so</think>Yes.", "rejected": "hm</think>No."}
    (pair,), _ = load_pairs(write(tmp_path, row), tokenizer, 512, "final_summary")
    texts = [tokenizer.decode(example.tokens[:-1]) for example in pair.sequences]
    assert [text.endswith(said) for text, said in zip(texts, ("assistant\nYes.", "assistant\nNo."))] == [True, True]
    assert "<think>" not in texts[0] and "so" not in texts[0]
    (whole,), _ = load_pairs(write(tmp_path, row), tokenizer, 512, "whole_response")
    assert tokenizer.decode(whole.chosen.tokens[:-1]).endswith("assistant\n<think>\nso so</think>Yes.")


def test_what_is_left_out_is_counted(ours, tmp_path):
    rows = [
        {"problem": "a", "chosen": "<think>x</think>b", "rejected": "c"},
        {"problem": "a", "chosen": "<think>x", "rejected": "c"},
        {"problem": "a", "chosen": "b" * 300, "rejected": "c"},
    ]
    source = write(tmp_path, *rows)
    pairs, left_out = load_pairs(source, ours(BPE), 64, "final_summary")
    assert len(pairs) == 1 and dataclasses.astuple(left_out) == (1, 1)
    pairs, left_out = load_pairs(source, ours(BPE), 64, "whole_response")
    assert len(pairs) == 2 and dataclasses.astuple(left_out) == (1, 0)
    with pytest.raises(DataError, match="nothing of .* can be learnt: 3 rows exceed max_tokens 2, 0 have"):
        load_pairs(source, ours(BPE), 2, "whole_response")


@pytest.mark.parametrize(
    "row, label",
    [
        ({"problem": "a", "response": "b", "safe": True}, 1.0),
        ({"problem": "a", "response": "b", "safe": False}, 0.0),
        ({"problem": "a", "completion": "b", "label": "Unsafe"}, 0.0),
        ({"problem": "a", "response": "b", "label": 0.25}, 0.25),
        ({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], "safe": True}, 1.0),
    ],
)
def test_labels(tmp_path, row, label):
    (found,) = labelled_rows(write(tmp_path, row))
    assert found.label == label and found.response.completion == "b"


def test_fields_of_other_names(ours, tmp_path):
    row = {"q": "a", "said": "b", "harmless": 1}
    source = write(tmp_path, row, prompt_field="q", completion_field="said", answer_field="harmless")
    (found,), _ = load_labelled(source, ours(BPE), 64, "whole_response")
    assert found.label == 1 and ours(BPE).decode(found.response.tokens[:-1]) == "ab"


USER, HELLO = {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}


@pytest.mark.parametrize(
    "read, row, message",
    [
        (pair_rows, {"problem": "a", "chosen": "b"}, "rows.jsonl:2: no rejected among its fields problem, chosen"),
        (pair_rows, {"problem": "a", "chosen": "b", "rejected": "b"}, "chosen and rejected are equal"),
        (pair_rows, {"problem": "a", "chosen": "b", "rejected": " "}, "the rejected is empty"),
        (pair_rows, {"chosen": "b", "rejected": "c"}, "no problem or question among its fields"),
        (pair_rows, {"problem": "a", "chosen": 3, "rejected": "c"}, "chosen has a message without a role"),
        (pair_rows, {"problem": "a", "chosen": [USER], "rejected": "c"}, "last message of chosen must be the assistant's"),
        (pair_rows, {"chosen": [USER, HELLO], "rejected": [HELLO, USER, HELLO]}, "answer different dialogues"),
        (
            pair_rows,
            {"messages": [USER], "chosen": [USER, HELLO], "rejected": [USER, HELLO | {"content": "c"}]},
            "stands twice",
        ),
        (pair_rows, {"problem": "a", "template": "cht", "chosen": "b", "rejected": "c"}, "unknown prompt template 'cht'"),
        (pair_rows, "[1]", "a row must be a JSON object, not list"),
        (labelled_rows, {"problem": "a", "response": "b"}, "no safe or label among its fields"),
        (
            labelled_rows,
            {"problem": "a", "chosen": "b", "rejected": "c"},
            "no safe or label among its fields problem, chosen, rejected; pairs are learnt with objective pairwise",
        ),
        (
            pair_rows,
            {"problem": "a", "response": "b", "safe": False},
            "no chosen among its fields problem, response, safe; labelled responses are learnt with objective pointwise",
        ),
        (labelled_rows, {"problem": "a", "response": "b", "label": 2}, "label must be true or false, a number from 0 to 1"),
        (labelled_rows, {"problem": "a", "response": "b", "label": "fine"}, "safe or unsafe, not 'fine'"),
        (labelled_rows, {"problem": "a", "safe": True}, "no response or completion among its fields"),
    ],
)
def test_rows_that_cannot_be_learnt_are_named(tmp_path, read, row, message):
    good = {"problem": "a", "chosen": "b", "rejected": "c", "response": "b", "safe": True}
    with pytest.raises(DataError, match=message) as caught:
        list(read(write(tmp_path, good, row)))
    assert "rows.jsonl:2" in str(caught.value)


def test_the_small_world_is_read(ours):
    for split, pairs, responses in (("train", 400, 400), ("test", 200, 200)):
        rows = list(pair_rows(DataSource(str(WORLD / f"pairs-{split}.jsonl"))))
        assert len(rows) == pairs and all(row.chosen.template == "{prompt}\n" for row in rows)
        labels = [row.label for row in labelled_rows(DataSource(str(WORLD / f"safety-{split}.jsonl")))]
        assert len(labels) == responses and set(labels) == {0.0, 1.0}


PUBLIC = Path(os.environ.get("R1JAX_DATA", Path(__file__).parents[3] / "shared/data")) / "preference"


@pytest.mark.skipif(not PUBLIC.is_dir(), reason="the public preference sets are not there")
@pytest.mark.parametrize("name, count", [("dpo_en_demo.json", 299), ("dpo_zh_demo.json", 300)])
def test_public_pairs_are_read(name, count):
    rows = list(pair_rows(DataSource(str(PUBLIC / name))))
    assert len(rows) == count and all(row.chosen.messages[-1]["role"] == "user" for row in rows)


@pytest.mark.skipif(not PUBLIC.is_dir(), reason="the public preference sets are not there")
def test_transcripts_of_hh(tmp_path):
    """Its rows are whole dialogues. Of all 2,312 nine are refused, for empty answers or diverging dialogues."""
    lines = gzip.decompress((PUBLIC / "hh_harmless_test.jsonl.gz").read_bytes()).decode().splitlines()
    assert len(lines) == 2_312
    refused = []
    for line in lines[:200]:
        try:
            (row,) = pair_rows(write(tmp_path, line))
            assert row.chosen.messages[-1]["role"] == "user" and row.chosen.completion in json.loads(line)["chosen"]
        except DataError as error:
            refused.append(str(error))
    assert len(refused) < 5 and all("is empty" in text or "different dialogues" in text for text in refused)
