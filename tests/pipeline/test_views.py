"""What the report shows of a rollout: token texts that add up, groups by position and those that teach, bounded, repeatable."""

import json

import numpy as np
import pytest
from etils import epath

from r1jax.data import Tokenizer
from r1jax.evaluation.grading import GradedSample, Prompt
from r1jax.pipeline.grpo import views
from r1jax.pipeline.grpo.views import shown_groups, token_texts, write_view
from r1jax.rewards.record import RewardRecord, Verdict
from r1jax.rollout.wave import SampledSequence


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.load("tests/data/tokenizers/bpe")


@pytest.mark.parametrize("folder", ["bpe", "sentencepiece"])
def test_token_texts_add_up_to_the_text(folder):
    tokenizer = Tokenizer.load(f"tests/data/tokenizers/{folder}")
    for text in ("wait, 7*3 = 21 </think>", "等等，不对 \U0001f642 é", "", "a\u2028b<script>"):
        ids = tokenizer.encode(text)
        texts = token_texts(tokenizer, ids)
        assert len(texts) == len(ids) and "".join(texts) == tokenizer.decode(ids)


def test_half_the_groups_are_the_first_ones_and_half_teach():
    advantages = np.zeros((9, 2), np.float32)
    assert shown_groups(advantages) == [0, 1, 2, 3]
    advantages[[5, 7, 8]] = 1
    assert shown_groups(advantages) == [0, 1, 5, 7]
    assert shown_groups(advantages[:1]) == [0] and shown_groups(advantages[5:6]) == [0]


def group(tokenizer, prompt_id, texts, rewards):
    samples = []
    for number, (text, reward) in enumerate(zip(texts, rewards)):
        ids = np.array(tokenizer.encode(text), np.int32)
        sequence = SampledSequence(prompt_id, number, ids[:1], ids, np.full(len(ids), -0.12345, np.float32), "length")
        verdict = Verdict.UNGRADED if reward is None else Verdict.RIGHT if reward else Verdict.WRONG
        samples.append(GradedSample(sequence, RewardRecord({"accuracy": reward}, verdict, "why"), 0, text))
    return samples


def test_a_view_holds_what_the_viewer_shows_and_is_written_once(tmp_path, tokenizer):
    prompts = [Prompt("what is 7*3?", np.array([1], np.int32), {"answer": "21"})]
    groups = [group(tokenizer, 4, ["so 21", "so <b>20", "hm"], [1.0, 0.0, None])]
    advantages = np.array([[0.7, -0.7, 0.0]], np.float32)
    in_loss = np.array([[True, True, False]])
    arguments = (epath.Path(tmp_path), 3, 6, groups, prompts, lambda row: {"accuracy": 2.0}, advantages, in_loss, tokenizer)
    write_view(*arguments)
    path = tmp_path / "views/00003.json"
    data = path.read_bytes()
    view = json.loads(data)
    assert (view["rollout"], view["step"]) == (3, 6)
    (shown,) = view["groups"]
    assert (shown["prompt"], shown["answer"], shown["prompt_id"], shown["group"]) == ("what is 7*3?", "21", 4, 3)
    right, wrong, ungraded = shown["samples"]
    assert "".join(right["texts"]) == "so 21" and len(right["logprobs"]) == right["tokens"]
    assert (right["reward"], right["advantage"], right["verdict"], right["in_loss"]) == (2.0, 0.7, "right", True)
    assert (wrong["reward"], wrong["advantage"], wrong["parts"]) == (0.0, -0.7, {"accuracy": 0.0})
    assert ungraded["reward"] is None and not ungraded["in_loss"] and right["logprobs"][0] == -0.123
    path.write_text("as it was")
    write_view(*arguments)
    assert path.read_text() == "as it was"
    path.unlink()
    write_view(*arguments)
    assert path.read_bytes() == data


def test_a_view_is_bounded(tmp_path, tokenizer, monkeypatch):
    monkeypatch.setattr(views, "HEAD", 3)
    monkeypatch.setattr(views, "TAIL", 2)
    groups = [group(tokenizer, i, ["one two three four five six seven"] * 12, [1.0] * 12) for i in range(6)]
    prompts = [Prompt("p", np.array([1], np.int32), {})]
    advantages = np.zeros((6, 12), np.float32)
    write_view(
        epath.Path(tmp_path), 0, 0, groups, prompts, lambda row: {"accuracy": 1.0}, advantages, advantages > 0, tokenizer
    )
    view = json.loads((tmp_path / "views/00000.json").read_text())
    assert len(view["groups"]) == views.MOST_GROUPS and len(view["groups"][0]["samples"]) == views.MOST_SAMPLES
    sample = view["groups"][0]["samples"][0]
    whole = token_texts(tokenizer, groups[0][0].sequence.tokens)
    assert sample["texts"] == whole[:3] + whole[-2:] and sample["left_out"] == [3, len(whole) - 5]
