"""What the rollout viewer is given: one form whatever the files hold, as many steps as fit, and where the others lie."""

import json
import os

import pytest

from r1jax.reporting import viewer
from r1jax.reporting.collect import Stage, collect
from r1jax.reporting.report import SAMPLES_BUDGET


def stage_of(workdir):
    return collect(workdir).stages[0]


def test_views_come_with_their_tokens_and_steps(make_run):
    workdir = make_run(9, views=9)
    entries = viewer.rollouts(stage_of(workdir), workdir, SAMPLES_BUDGET)
    assert [(e["rollout"], e["step"]) for e in entries] == [(i, i) for i in range(9)]
    assert entries[3]["path"] == "stages/r1_zero/views/00003.json"
    sample = entries[3]["groups"][1]["samples"][2]
    assert len(sample["texts"]) == len(sample["logprobs"]) == sample["tokens"] and sample["title"] == "sample 2"
    assert sample["advantage"] in (0.9, -0.4) and entries[3]["groups"][0]["answer"] == "21"


def test_a_run_without_views_shows_the_text_of_its_waves(make_run):
    workdir = make_run(9)
    entries = viewer.rollouts(stage_of(workdir), workdir, SAMPLES_BUDGET)
    assert [e["path"] for e in entries] == [f"stages/r1_zero/waves/{i:05d}-00/rollouts.jsonl" for i in (0, 4, 8)]
    sample = entries[0]["groups"][0]["samples"][0]
    assert sample["text"].startswith("<think>") and sample["advantage"] is None and "texts" not in sample
    os.remove(f"{workdir}/stages/r1_zero/waves/00004-00/commit.json")  # then it did not happen
    assert viewer.rollouts(stage_of(workdir), workdir, SAMPLES_BUDGET)[1]["groups"] is None


def test_a_page_holds_what_fits_spread_over_the_run(make_run):
    workdir = make_run(80, views=80)
    stage = stage_of(workdir)
    entries = viewer.rollouts(stage, workdir, SAMPLES_BUDGET)
    held = [e["rollout"] for e in entries if e["groups"]]
    assert len(entries) == 80 and len(held) == viewer.MOST_ROLLOUTS and held[0] == 0 and held[-1] == 79
    budget = 60_000
    entries = viewer.rollouts(stage, workdir, budget)
    held = [e["rollout"] for e in entries if e["groups"]]
    assert 3 < len(held) < 40 and held[0] == 0 and held[-1] == 79
    assert len(json.dumps([e["groups"] for e in entries if e["groups"]]).encode()) < 1.2 * budget
    assert not any(e["groups"] for e in viewer.rollouts(stage, workdir, 10))


def test_spread():
    assert viewer.spread(5, 9) == [0, 1, 2, 3, 4] and viewer.spread(101, 3) == [0, 50, 100]
    assert viewer.spread(9, 1) == [8] and viewer.spread(9, 0) == [] and viewer.spread(0, 4) == []


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[1]",
        b'{"groups": 3}',
        b'{"groups": [4, {"samples": 7}, {"samples": [1, {}, {"texts": [1], "parts": 3}]}]}',
        b'{"groups": [{"samples": [{"texts": ["a"], "logprobs": [NaN], "advantage": 1e999, "left_out": [1]}]}]}',
        b'{"groups": [{"samples": [{"texts": ["a", "b"], "logprobs": [1], "verdict": {"x": 1}, "reason": [2]}]}]}',
        b"[" * 100_000,
    ],
)
def test_a_broken_view_costs_itself_only(make_run, text):
    workdir = make_run(3, views=3)
    with open(f"{workdir}/stages/r1_zero/views/00001.json", "wb") as file:
        file.write(text)
    entries = viewer.rollouts(stage_of(workdir), workdir, SAMPLES_BUDGET)
    assert entries[0]["groups"] and entries[2]["groups"]
    json.dumps(entries, allow_nan=False)


def test_long_texts_are_cut_in_the_middle(make_run):
    workdir = make_run(3, completion="a" * 50_000 + "the end")
    text = viewer.rollouts(stage_of(workdir), workdir, SAMPLES_BUDGET)[0]["groups"][0]["samples"][0]["text"]
    assert len(text) < viewer.MOST_CHARACTERS + 60 and text.endswith("the end") and "characters" in text


def test_the_same_problems_before_and_after(make_run):
    stage = stage_of(make_run(10))
    name, groups = viewer.before_and_after(stage)
    assert name == "held_out" and len(groups) == 6
    assert [s["title"] for s in groups[0]["samples"]] == ["step 0", "step 0", "step 10", "step 10"]
    assert groups[2]["prompt"].startswith("Problem 2:")
    assert viewer.before_and_after(Stage("none yet")) == ("", [])
