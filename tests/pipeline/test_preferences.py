"""Preference pairs, with a sampler that writes what the test says: which pairs are judged, kept, balanced, recorded."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from etils import epath

from r1jax import config, data, sharding
from r1jax.data.preferences import load_pairs
from r1jax.pipeline import records
from r1jax.pipeline.curation import sampling
from r1jax.pipeline.preferences import PreferencePairsStage
from r1jax.pipeline.preferences.pairing import Preference, Said, balanced, candidates, length_figures
from r1jax.pipeline.preferences.stage import check_settings
from r1jax.pipeline.stage import Context, StopRequested
from r1jax.reporting.data_cards import card_lead, card_lines, card_tables
from r1jax.rollout import SampledSequence, SamplingStopped

TINY = Path(__file__).parents[2] / "configs" / "tiny"


# ---------------------------------------------------------------------------------------------- pairing
def said(prompt, sample, tokens=1):
    return Said(prompt, sample, f"{prompt}-{sample}", tokens)


def test_candidates_are_each_prompts_own_and_few_share_an_answer():
    answers = [said(prompt, sample) for prompt in range(5) for sample in range(4)]
    pairs = candidates(answers, 2, seed=0)
    assert len(pairs) == 10 and all(a.prompt == b.prompt and a != b for a, b in pairs)
    for prompt in range(5):
        own = [each for pair in pairs if pair[0].prompt == prompt for each in pair]
        assert len(set(own)) == 4, "two pairs of four answers, none twice"
    every = candidates(answers, 0, seed=0)
    assert len({frozenset(pair) for pair in every}) == len(every) == 5 * 6 and every != candidates(answers, 0, seed=1)
    assert candidates(answers[::-1], 2, 0)[0][0].prompt == 4 and candidates([said(0, 0), said(1, 0)], 2, 0) == []


def test_the_balance_leaves_length_nothing_to_say():
    rng = np.random.default_rng(0)
    pairs = []
    for i in range(400):
        short, long = sorted(int(n) for n in rng.integers(1, 40, 2))
        first = rng.random() < 0.75  # the longer one is chosen three times of four
        chosen, rejected = (long, short) if first else (short, long)
        pairs.append(Preference(said(i, 0, chosen), said(i, 1, rejected), 1.5))
    before, after = length_figures(pairs), length_figures(kept := balanced(pairs, seed=0))
    assert before["longer"] > 2.5 * before["shorter"] and after["longer"] == after["shorter"] > 0.9 * before["shorter"]
    assert before["chosen"] - before["rejected"] > 4 > 1 > abs(after["chosen"] - after["rejected"])
    assert sum(not pair.gap for pair in kept) == sum(not pair.gap for pair in pairs)
    for size in range(1, 7):
        sides = [np.sign(pair.gap) for pair in kept if abs(pair.gap).bit_length() == size]
        assert sum(sides) == 0
    assert balanced(pairs, 0) == kept != balanced(pairs, 1)
    one_sided = [Preference(said(i, 0, 5), said(i, 1, 3), 2) for i in range(4)]
    assert balanced(one_sided, 0) == [] and length_figures([])["pairs"] == 0


# ---------------------------------------------------------------------------------------------- the stage
class Console:
    def __init__(self):
        self.lines = []

    def say(self, text):
        self.lines.append(text)

    warn = say

    def progress(self, *_, **__):
        pass

    def end_progress(self):
        pass


@pytest.fixture(scope="module")
def tokenizer():
    return data.Tokenizer.load(TINY / "base")


@pytest.fixture
def world(tmp_path, tokenizer, monkeypatch):
    """``world.run(write, ...)``: the stage on six requests, model and judge sampled by ``write(prompt, sample, model)``."""
    topics = ["cats", "dogs", "birds", "trees", "rain", "fire"]
    rows = [
        {"id": f"row{i}", "problem": f"Tell me about {topic}.", "template": "{prompt}\n", "language": "en", "grader": "none"}
        for i, topic in enumerate(topics)
    ]
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    place = sharding.layout(sharding.make_mesh(-1, 1, 1), sharding.TRAIN_RULES)

    class Sampler:
        waves, stop_at = [], None

        def __init__(self, model, layout, settings, dtype):
            pass

        def warm_up(self, params, wave, should_stop=None):
            pass

        def run(self, params, wave, on_finished, should_stop=None, on_progress=None):
            if Sampler.stop_at == len(Sampler.waves):
                raise SamplingStopped
            Sampler.waves.append((params, wave))
            sequences = []
            for number, prompt in zip(wave.prompt_ids, wave.prompts):
                for sample in range(wave.samples):
                    ids = [*tokenizer.encode(Sampler.write(tokenizer.decode(prompt), sample, params)), tokenizer.eos_id]
                    end = "stop" if len(ids) <= wave.max_tokens else "length"
                    ids = np.array(ids[: wave.max_tokens], np.int32)
                    sequences.append(SampledSequence(number, sample, prompt, ids, np.zeros(len(ids), np.float32), end))
            for sequence in sequences:
                on_finished(sequence)
            return sequences

    def load_model(path, *_, **__):
        described = SimpleNamespace(max_position_embeddings=4096, eos_token_ids=(tokenizer.eos_id,))
        return SimpleNamespace(params=Path(path).name, config=described, tokenizer=tokenizer)

    monkeypatch.setattr(sampling, "Sampler", Sampler)
    monkeypatch.setattr(sampling.checkpoint, "load_model", load_model)

    def run(write, folder="run", stop=lambda: False, **changed):
        Sampler.waves, Sampler.write, console = [], staticmethod(write), Console()
        judging = {"prompts": "plain", "max_tokens": 16, "max_prompt_tokens": 512} | changed.pop("judging", {})
        stage = {"name": "s", "kind": "preference_pairs", "model": "m", "judge": "j", "data": "d", **SMALL, **changed}
        document = {
            "name": "r",
            "models": {"m": {"path": "writer"}, "j": {"path": "judge"}},
            "data": {"d": {"path": str(tmp_path / "prompts.jsonl")}},
            "stages": [{**stage, "judging": judging}],
        }
        recipe = config.read_recipe(document)
        inputs = {"model": "writer", "judge": "judge", "data": recipe.data["d"]}
        where = epath.Path(tmp_path) / folder / "stages" / "s"
        made = PreferencePairsStage("s", recipe.stages[0].settings)
        artefacts = made.run(inputs, where, Context(recipe, place, stop, console))
        rows = [json.loads(line) for line in (where / "data.jsonl").read_text().splitlines()]
        card = json.loads((where / "card.json").read_text())
        return SimpleNamespace(artefacts=artefacts, rows=rows, card=card, place=where, said=console.lines)

    return SimpleNamespace(run=run, sampler=Sampler, folder=tmp_path)


SMALL = {"samples_per_prompt": 4, "pairs_per_prompt": 0, "prompts_per_wave": 4, "max_tokens": 40, "max_prompt_tokens": 64}
# Two good answers, a long and a short one, and two bad ones.
ANSWERS = [
    "<think>a</think>cats are soft, dogs are loyal.",
    "birds are free.",
    "dogs are hot, cats are hot.",
    "fire is cold.",
]
GOOD = ("soft", "free")


def preferring(better):
    """A judge: ``better(a, b)`` is the value of A over B. The model writes the four answers."""
    labels = {2: "[[A>>B]]", 1: "[[A>B]]", 0: "[[A=B]]", -1: "[[B>A]]", -2: "[[B>>A]]"}

    def write(prompt, sample, model):
        if model == "writer":
            return ANSWERS[sample]
        a, b = (next(line for line in prompt.splitlines() if line.startswith(side))[3:] for side in ("A: ", "B: "))
        value = better(a, b, sample)
        return value if isinstance(value, str) else labels[value]

    return write


def by_goodness(a, b, sample):
    good = [any(word in text for word in GOOD) for text in (a, b)]
    return 2 * (good[0] - good[1])


def test_clear_pairs_are_kept_and_balanced(world, tokenizer):
    found = world.run(preferring(by_goodness))
    card = found.card
    assert (card["prompts"], card["samples"], card["answers"], card["judged"]) == (6, 24, 24, 36)
    assert card["clear"] == 24 and card["rejected"]["not clear"] == 12
    for row in found.rows:
        assert any(word in row["chosen"] for word in GOOD) and not any(word in row["rejected"] for word in GOOD)
        assert "<think>" not in row["chosen"] and row["difference"] == 2 and row["template"] == "{prompt}\n"
        assert row["chosen_tokens"] == len(tokenizer.encode(row["chosen"]))
    # Long over short and short over long, as often; equal lengths besides.
    after = card["lengths"]
    assert after["longer"] == after["shorter"] > 0 and card["rows"] == len(found.rows) == after["pairs"]
    assert card["clear"] == card["rows"] + card["rejected"].get("over the balance of lengths", 0)
    assert card["position_bias"]["agree"] == 1 and card["position_bias"]["unreadable"] == 0
    pairs, left_out = load_pairs(config.DataSource(found.artefacts.data), tokenizer, 512, "final_summary")
    assert len(pairs) == card["rows"] and left_out.no_summary == 0, "as kind reward_model reads them"
    text = (found.place / "card.md").read_text()
    assert "## From prompts to pairs" in text and "| not clear | 12 |" in text and "`least_difference`" not in text
    assert "least_difference: `1.0`" in text.replace("settings ", "")
    assert found.artefacts.figures["rows"] == card["rows"]


def test_a_judge_that_likes_a_position_prefers_nothing(world):
    with pytest.raises(ValueError, match="nothing is left of 36 pairs: not clear 36"):
        world.run(preferring(lambda a, b, sample: 2))


def test_each_pair_is_judged_so_often_in_both_orders(world):
    world.run(preferring(by_goodness), judging={"pair_judgements": 6})
    shown = [(prompt, wave.samples) for model, wave in world.sampler.waves if model == "judge" for prompt in wave.prompts]
    assert len(shown) == 72 and {samples for _, samples in shown} == {3}


def test_the_difference_is_the_mean_of_the_judgements(world):
    """In either order one judgement is sure and one is not: a mean of 1/2, which is not over 1, and is over 0.4."""

    def better(a, b, sample):
        return by_goodness(a, b, sample) // 2 if sample else 0

    with pytest.raises(ValueError, match="nothing is left of 36 pairs"):
        world.run(preferring(better), "one")
    found = world.run(preferring(better), "two", least_difference=0.4)
    assert {row["difference"] for row in found.rows} == {0.5}


def test_what_cannot_be_used_is_counted(world):
    def write(prompt, sample, model):
        if model == "judge":
            return preferring(by_goodness)(prompt, sample, model) if "fire" not in prompt.splitlines()[0] else "well"
        return (
            ["<think>a", "birds are free. " * 12, "fire is cold.", "fire is cold."][sample]
            if "cats" in prompt
            else ANSWERS[sample]
        )

    found = world.run(write, balance_lengths=False)
    rejected = found.card["rejected"]
    assert (rejected["no final summary"], rejected["truncated"], rejected["equal to another"]) == (1, 1, 1)
    assert rejected["judge: no verdict"] == 6 and found.card["judged"] == 30, "the one answer about cats has no other"
    assert found.card["answers"] == 21 and found.card["rows"] == found.card["clear"] == 16
    assert 0 < found.card["position_bias"]["unreadable"] < 1


def test_a_stage_that_is_stopped_goes_on_from_its_waves(world):
    """Stopped before every wave, of the model's and of the judge's; what is recorded is not sampled again."""
    whole = world.run(preferring(by_goodness), "whole")
    count = len(world.sampler.waves)
    assert count == 2 + 18, "two of the model's, and the judge's requests four at a time"
    for done in range(0, count):
        world.sampler.stop_at = 1
        try:
            parted = world.run(preferring(by_goodness), "parts")
        except StopRequested:
            assert len(world.sampler.waves) == 1 and not (world.folder / "parts/stages/s/data.jsonl").exists()
            continue
        assert done == count - 1
    assert parted.rows == whole.rows
    for file in ("data.jsonl", "card.json"):
        assert (parted.place / file).read_bytes() == (whole.place / file).read_bytes()
    folders = sorted(f.name for f in (parted.place / "waves").iterdir())
    assert folders == sorted(f.name for f in (whole.place / "waves").iterdir()) and len(folders) == count
    assert all(records.committed(parted.place / "waves" / name) for name in folders)


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"samples_per_prompt": 1}, "stages.s.samples_per_prompt must be at least 2, not 1"),
        ({"least_difference": 2}, "least_difference must lie in \\[0, 2\\)"),
        ({"temperature": 0}, "temperature must be positive"),
        ({"top_p": 0}, "top_p must be over 0"),
        ({"template": "chta"}, "unknown prompt template 'chta'"),
        ({"judging": {"pair_judgements": 3}}, "pair_judgements must be even and at least 2"),
        ({"judging": {"prompts": "plan"}}, "did you mean 'plain'"),
    ],
)
def test_what_cannot_be_worked_with_is_refused(wrong, message):
    settings = config.read_dataclass(config.PreferencePairsSettings, wrong, "stage")
    with pytest.raises(config.RecipeError, match=message):
        check_settings("s", settings)


def test_the_defaults_are_the_paper_s():
    default = config.PreferencePairsSettings()
    assert default.judging.pair_judgements == 4 and default.least_difference == 1 and default.balance_lengths


def test_its_card_in_the_report(world):
    found = world.run(preferring(by_goodness))
    stage = SimpleNamespace(name="s", card=found.card)
    assert card_lead(stage) == f"{len(found.rows)} pairs of 36 that were judged"
    lines = card_lines(stage)
    assert lines[0] == ["s", "pairs", "clear", "36 judged", "24"] and ["", "", "not clear", "left out", "12"] in lines
    tables = {heading: rows for heading, _, rows in card_tables(stage)}
    assert tables["From prompts to pairs"] == [[6, 6, 24, 24, 36, 24, len(found.rows)]]
    assert (
        tables["Length"][1][0] == "kept"
        and tables["The judge"][0][1] == "100.0%"
        and ["not clear", 12] in tables["Left out"]
    )
