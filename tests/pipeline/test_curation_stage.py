"""The data-making stages, with a sampler that writes what the test says."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import grain
import numpy as np
import pytest
from etils import epath

from r1jax import config, data, sharding
from r1jax.checkpoint import read_config
from r1jax.pipeline import records
from r1jax.pipeline.curation import ColdStartStage, RejectionSamplingStage, sampling
from r1jax.pipeline.stage import Context, StopRequested
from r1jax.rollout import SampledSequence, SamplingStopped

TINY = Path(__file__).parents[2] / "configs" / "tiny"
RIGHT = "<think>try 3*8=24 wait 3*7=21</think><answer>3*7</answer>"
CHAT_RIGHT = "<think>\ntry 3*8=24 wait 3*7=21\n</think>\n\nAnswer: <answer>3*7</answer>"


@pytest.fixture(scope="module")
def tokenizer():
    return data.Tokenizer.load(TINY / "base")


@pytest.fixture(scope="module")
def layout():
    return sharding.layout(sharding.make_mesh(-1, 1, 1), sharding.TRAIN_RULES)


class Console:
    """Remembers what was said."""

    def __init__(self):
        self.lines = []

    def say(self, text):
        self.lines.append(text)

    warn = say

    def progress(self, *_, **__):
        pass

    def end_progress(self):
        pass


@pytest.fixture
def world(tmp_path, tokenizer, layout, monkeypatch):
    """``world.run(Stage, settings, write, ...)``: a stage on eight problems of two domains, sampled by ``write``."""
    folder = tmp_path / "data"
    folder.mkdir()
    rows = [
        {"id": f"row{i}", "problem": f"From 3, 7, {i} make 21.", "numbers": [3, 7, i], "target": 21, "grader": "search"}
        | {"domain": "even" if i % 2 == 0 else "odd", "template": "{prompt}\n", "language": "en"}
        for i in range(10, 18)
    ]
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "bench.jsonl").write_text(json.dumps(rows[5]) + "\n")
    general = [{"problem": f"Tell me about {i}.", "completion": f"It is {i}.", "template": "{prompt}\n"} for i in range(20)]
    (folder / "general.jsonl").write_text("".join(json.dumps(row) + "\n" for row in general))

    class Sampler:
        """Writes ``write(prompt, sample, model)``; stops where the test says so."""

        waves, stop_at, slots = [], None, []

        def __init__(self, model, layout, settings, dtype):
            Sampler.slots.append(settings)

        def warm_up(self, params, wave, should_stop=None):
            pass

        def run(self, params, wave, on_finished, should_stop=None, on_progress=None):
            if Sampler.stop_at == len(Sampler.waves):
                raise SamplingStopped
            Sampler.waves.append(wave)
            sequences = []
            for number, prompt in zip(wave.prompt_ids, wave.prompts):
                for sample in range(wave.samples):
                    text = Sampler.write(tokenizer.decode(prompt), sample, params)
                    ids = np.array([*tokenizer.encode(text), tokenizer.eos_id], np.int32)
                    end = "stop" if len(ids) <= wave.max_tokens else "length"
                    ids = ids[: wave.max_tokens]
                    sequences.append(SampledSequence(number, sample, prompt, ids, np.zeros(len(ids), np.float32), end))
            for sequence in sequences:
                on_finished(sequence)
            return sequences

    def load_model(path, *_, **__):
        described = SimpleNamespace(max_position_embeddings=4096, eos_token_ids=(tokenizer.eos_id,))
        return SimpleNamespace(params=Path(path).name, config=described, tokenizer=tokenizer)

    monkeypatch.setattr(sampling, "Sampler", Sampler)
    monkeypatch.setattr(sampling.checkpoint, "load_model", load_model)

    def run(kind, settings, write, run="run", stop=None, **inputs):
        Sampler.waves, Sampler.slots, Sampler.write, console = [], [], staticmethod(write), Console()
        name = {ColdStartStage: "cold_start", RejectionSamplingStage: "rejection_sampling"}[kind]
        stage = {"name": "s", "kind": name, "model": "m", "data": "d", **settings}
        document = {
            "name": "r",
            "models": {"m": {"path": "m"}, "w": {"path": "writer"}},
            "data": {n: {"path": str(folder / f"{f}.jsonl")} for n, f in (("d", "train"), ("g", "general"))},
            "benchmarks": {"bench": {"path": str(folder / "bench.jsonl")}},
            "stages": [{**stage, **inputs}],
        }
        recipe = config.read_recipe(document)
        given = {key: recipe.data[v] if key in config.DATA_INPUTS else recipe.models[v].path for key, v in
                 recipe.stages[0].inputs.items()}  # fmt: skip
        place = epath.Path(tmp_path) / run / "stages" / "s"
        made = kind("s", recipe.stages[0].settings)
        artefacts = made.run(given, place, Context(recipe, layout, stop or (lambda: False), console))
        rows = [json.loads(line) for line in (place / "data.jsonl").read_text().splitlines()]
        card = json.loads((place / "card.json").read_text())
        return SimpleNamespace(artefacts=artefacts, rows=rows, card=card, place=place, said=console.lines)

    return SimpleNamespace(run=run, sampler=Sampler, folder=folder)


SMALL = {
    "samples_per_prompt": 4,
    "prompts_per_wave": 3,
    "max_tokens": 80,
    "max_prompt_tokens": 64,
    "workers": {"count": 1},
    "deduplication": {"near": 0.0},
}


def four(prompt, sample, model):
    """Right, wrong, of a bad form, right again."""
    return (CHAT_RIGHT, CHAT_RIGHT.replace("3*7<", "3*8<"), "3*7 \\boxed{3*7}", CHAT_RIGHT.replace("3*8=24", "3+8=11"))[
        sample
    ]


# ---------------------------------------------------------------------------------------------- rejection sampling
def test_what_is_right_and_well_formed_is_kept(world):
    made = world.run(RejectionSamplingStage, {**SMALL, "template": "chat"}, four)
    assert len(made.rows) == 14, "two of four samples of seven prompts: the eighth is the benchmark's"
    assert made.artefacts.data == str(made.place / "data.jsonl") and made.artefacts.model is None
    row = next(row for row in made.rows if row["id"] == "row12-0")
    assert row["completion"] == CHAT_RIGHT and row["problem"] == "From 3, 7, 12 make 21." and row["template"] == "chat"
    assert (row["domain"], row["source"], row["grader"], row["numbers"]) == ("even", "sampled", "search", [3, 7, 12])
    assert not [row for row in made.rows if "From 3, 7, 15" in row["problem"]]
    assert made.card["contaminated_prompts"] == {"bench": 1} and made.card["prompts"] == 8
    assert made.card["rejected"] == {"wrong": 7, "format": 7}
    assert made.artefacts.figures["rows"] == 14 and made.artefacts.figures["samples"] == 28


def test_the_cards_numbers_are_those_of_the_file(world, tokenizer):
    """Every figure of the card, computed again from the written rows and the recorded waves."""
    settings = {**SMALL, "selection": {"per_prompt": 1, "choose": "random"}}
    made = world.run(RejectionSamplingStage, settings, four, general="g")
    card, rows = made.card, made.rows
    assert card["rows"] == len(rows) and card["general_rows"] == sum(row["source"] == "general" for row in rows)
    assert card["general_rows"] == round(card["sampled_rows"] / 3), "a quarter of the whole, as in the paper"
    for row in rows:
        assert row["tokens"] == len(tokenizer.encode(row["completion"]))
    tokens = np.array([row["tokens"] for row in rows])
    assert card["tokens"]["mean"] == round(tokens.mean(), 2) and card["tokens"]["total"] == tokens.sum()
    assert card["tokens"]["p95"] == round(np.percentile(tokens, 95), 2) and card["tokens"]["max"] == tokens.max()
    sampled = [json.loads(line) for file in sorted(made.place.glob("waves/*/rollouts.jsonl")) for line in open(file)]
    assert card["samples"] == len(sampled) and card["right"] == sum(s["verdict"] == "right" for s in sampled)
    for domain, own in card["domains"].items():
        mine = [row for row in rows if row["domain"] == domain]
        assert own["rows"] == len(mine) == own["kept"] + own["general"]
        if domain != "general":
            assert own["samples"] == sum(s["row"]["domain"] == domain for s in sampled)
            assert own["samples"] == own["kept"] + sum(own["rejected"].values()), "every sample is accounted for once"
            assert own["tokens"]["mean"] == round(np.mean([row["tokens"] for row in mine]), 2)
    assert card["general"] == {
        "read": 20,
        "end token in text": 0,
        "contaminated": 0,
        "duplicate": 0,
        "wanted": 2,
        "taken": 2,
    }
    text = (made.place / "card.md").read_text()
    assert f"{card['rows']} rows" in text and "| even |" in text and "over per_prompt" in text


def test_the_same_seed_makes_the_same_files_whatever_the_waves(world):
    settings = {**SMALL, "prompts": 6, "selection": {"per_prompt": 1, "choose": "random"}}
    one = world.run(RejectionSamplingStage, settings, four, "one", general="g")
    two = world.run(RejectionSamplingStage, {**settings, "prompts_per_wave": 5}, four, "two", general="g")
    assert (one.place / "data.jsonl").read_bytes() == (two.place / "data.jsonl").read_bytes()
    assert len({row["id"] for row in one.rows}) == len(one.rows) == 8


def test_general_data_that_does_not_suffice_is_said(world):
    made = world.run(RejectionSamplingStage, {**SMALL, "general_share": 0.75}, four, general="g")
    assert made.card["general"]["wanted"] == 42 and made.card["general_rows"] == 20
    assert any("wants 42 rows of general data, there are 20" in line for line in made.said)


def test_domains_are_balanced(world):
    settings = {**SMALL, "selection": {"domain_weights": {"even": 1, "odd": 1}}}
    made = world.run(RejectionSamplingStage, settings, four)
    assert {d: own["kept"] for d, own in made.card["domains"].items()} == {"even": 6, "odd": 6}
    assert made.card["domains"]["even"]["rejected"]["over the balance"] == 2
    with pytest.raises(ValueError, match="domain_weights: no prompt of .* is of domain 'evn'; did you mean 'even'"):
        world.run(RejectionSamplingStage, {**SMALL, "selection": {"domain_weights": {"evn": 1}}}, four, "other")


def test_an_interrupted_stage_samples_only_what_is_not_recorded(world):
    whole = world.run(RejectionSamplingStage, SMALL, four, "whole")
    world.sampler.stop_at = 2
    with pytest.raises(StopRequested):
        world.run(RejectionSamplingStage, SMALL, four, "cut")
    world.sampler.stop_at = None
    cut = world.run(RejectionSamplingStage, SMALL, four, "cut")
    assert len(world.sampler.waves) == 1
    for file in ("data.jsonl", "card.json", "card.md"):
        assert (cut.place / file).read_bytes() == (whole.place / file).read_bytes()


def test_nothing_kept_says_why(world):
    wrong = lambda *_: CHAT_RIGHT.replace("3*7<", "3*8<")  # noqa: E731
    with pytest.raises(ValueError, match="nothing is left of 28 samples: wrong 28. The samples and their verdicts are in"):
        world.run(RejectionSamplingStage, SMALL, wrong)


def test_what_is_cut_off_never_counts_as_right(world):
    made = world.run(
        RejectionSamplingStage, {**SMALL, "max_tokens": 30}, lambda p, s, m: CHAT_RIGHT + " wait" * 40 * (s % 2)
    )
    assert made.card["rejected"] == {"truncated": 14, "duplicate": 7}


def test_prompts_that_are_all_a_benchmarks_are_refused(world):
    shutil.copy(world.folder / "train.jsonl", world.folder / "bench.jsonl")
    with pytest.raises(ValueError, match=r"0 of 8 prompts of .*train.jsonl can be sampled \(8 share words with a benchmark"):
        world.run(RejectionSamplingStage, SMALL, four)
    made = world.run(RejectionSamplingStage, {**SMALL, "decontamination_words": 0}, four, "off")
    assert len(made.rows) == 16 and made.card["inputs"]["decontaminated"] == []


def test_more_prompts_than_there_are_is_refused(world):
    with pytest.raises(ValueError, match="7 of 8 prompts .* 9 are asked for; lower prompts"):
        world.run(RejectionSamplingStage, {**SMALL, "prompts": 9}, four)


def test_samples_that_quote_a_benchmark_are_left_out(world):
    quoted = "Tom has six red apples and gives two of them away"
    (world.folder / "bench.jsonl").write_text(json.dumps({"problem": f"{quoted}. How many?", "answer": "4"}) + "\n")
    write = lambda p, s, m: CHAT_RIGHT.replace("try", f"{quoted} try") if s == 0 else CHAT_RIGHT  # noqa: E731
    made = world.run(RejectionSamplingStage, SMALL, write)
    assert made.card["rejected"] == {"duplicate": 16, "contaminated": 8} and len(made.rows) == 8


def test_an_end_token_in_a_text_can_not_be_learnt(world):
    write = lambda p, s, m: CHAT_RIGHT + "<|end_of_turn|>" * (s == 0)  # noqa: E731
    made = world.run(RejectionSamplingStage, SMALL, write)
    assert made.card["rejected"]["end token in text"] == 7 and len(made.rows) == 7


def test_rows_without_a_right_answer_need_a_judge(world, tmp_path, monkeypatch):
    rows = [json.loads(line) | {"grader": "none"} for line in open(world.folder / "train.jsonl")]
    (world.folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "my_judge.py").write_text("def judge(text, row):\n    return None if '3*7<' in text else 'judged wrong'\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match="no right answer known 28"):
        world.run(RejectionSamplingStage, SMALL, four)
    made = world.run(RejectionSamplingStage, {**SMALL, "judge_function": "my_judge:judge"}, four, "judged")
    assert len(made.rows) == 14 and made.card["rejected"] == {"judged wrong": 14}


def test_the_rows_are_those_that_supervised_fine_tuning_reads(world, tokenizer):
    made = world.run(RejectionSamplingStage, {**SMALL, "template": "chat"}, four, general="g")
    examples, too_long = data.load_examples(config.DataSource(made.artefacts.data), tokenizer, 500)
    assert len(examples) == len(made.rows) and too_long == 0
    text = tokenizer.decode(examples[0].tokens)
    row = made.rows[0]
    assert text == f"<|turn|>user\n{row['problem']}<|end_of_turn|><|turn|>assistant\n{row['completion']}<|end_of_turn|>"
    again = data.load_prompts(config.DataSource(made.artefacts.data))
    assert [r.problem for r in again] == [row["problem"] for row in made.rows]


def test_no_more_rows_are_decoded_than_there_are_prompts(world):
    world.run(RejectionSamplingStage, SMALL, four)
    assert [slots.rows for slots in world.sampler.slots] == [3]
    world.run(RejectionSamplingStage, {**SMALL, "sampler": {"rows": 2, "prompt_bucket": 8}}, four, "other")
    (slots,) = world.sampler.slots
    assert slots.rows == 2 and slots.prompt_bucket == max(len(w) for wave in world.sampler.waves for w in wave.prompts)


def test_what_no_positions_are_left_for_is_refused(world):
    with pytest.raises(config.RecipeError, match="max_tokens 4090 and the longest prompt .* 4096 positions: lower it"):
        world.run(RejectionSamplingStage, {**SMALL, "max_tokens": 4090}, four)


def test_broken_general_data_is_found_before_anything_runs(world, tmp_path):
    from r1jax.pipeline.runner.running import check_data

    (tmp_path / "data" / "general.jsonl").write_text('{"problem": "Tell me about 1.", "completion": 3}\n')
    document = {
        "name": "r",
        "models": {"m": {"path": "m"}},
        "data": {"d": {"path": str(world.folder / "train.jsonl")}, "g": {"path": str(world.folder / "general.jsonl")}},
        "stages": [{"name": "s", "kind": "rejection_sampling", "model": "m", "data": "d", "general": "g"}],
    }
    with pytest.raises(config.RecipeError, match="data.g: .*general.jsonl:1: completion must be text, not 3"):
        check_data(config.read_recipe(document))


@pytest.mark.parametrize("row, message", [("{", "not a line of JSON"), ('{"problem": ""}', "the problem is empty")])
def test_broken_prompts_are_refused(world, row, message):
    with open(world.folder / "train.jsonl", "a") as file:
        file.write(row + "\n")
    with pytest.raises(data.DataError, match=f"train.jsonl:9: .*{message}"):
        world.run(RejectionSamplingStage, SMALL, four)
    (world.folder / "train.jsonl").write_text("")
    with pytest.raises(data.DataError, match="has no rows"):
        world.run(RejectionSamplingStage, SMALL, four)


def test_others_read_the_files(world):
    """pyarrow reads JSON lines as ``datasets`` does: one type per column, rows that lack one. ArrayRecord is grain's."""
    read_json = pytest.importorskip("pyarrow.json").read_json
    read_table = pytest.importorskip("pyarrow.parquet").read_table
    made = world.run(RejectionSamplingStage, SMALL, four, general="g")
    lines = read_json(str(made.place / "data.jsonl")).to_pylist()
    table = read_table(str(made.place / "data.parquet")).to_pylist()
    assert lines == table and len(table) == len(made.rows) and {"problem", "completion", "domain"} <= set(table[0])
    records = grain.sources.ArrayRecordDataSource(str(made.place / "data.array_record"))
    assert [json.loads(records[i]) for i in range(len(records))] == made.rows


# ---------------------------------------------------------------------------------------------- a model as judge
JUDGED = {**SMALL, "judging": {"prompts": "plain", "max_prompt_tokens": 100, "max_tokens": 40, "rows": 2}}


@pytest.fixture
def ungradable(world):
    """The world, with problems that no grader knows: of domain even they have a reference answer."""
    rows = [json.loads(line) | {"grader": "none"} for line in open(world.folder / "train.jsonl")]
    rows = [row | ({"answer": "3*7+0"} if row["domain"] == "even" else {}) for row in rows]
    (world.folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return world


def judging(correct="correct", of_other="incorrect", seen=None):
    """Samples as ``four`` does; as judge it says these words, by whether the answer is the product."""

    def write(prompt, sample, model):
        if model == "m":
            return four(prompt, sample, model)
        if seen is not None:
            seen.append(prompt)
        word = correct if "Answer: Answer: <answer>3*7<" in prompt else of_other
        return json.dumps({"analysis": "", "correctness": word}) if word else "well"

    return write


def test_a_model_judges_what_no_grader_knows(ungradable):
    seen = []
    made = ungradable.run(RejectionSamplingStage, JUDGED, judging(seen=seen), judge="w")
    # four prompts of even numbers: two samples each agree with the reference, one does not, one is of a bad form
    assert len(made.rows) == 8 and {row["domain"] for row in made.rows} == {"even"}
    assert made.card["rejected"] == {"no right answer known": 12, "judge: incorrect": 4, "format": 4}
    even = made.card["domains"]["even"]
    assert even["right"] == even["kept"] == 8 and even["samples"] == 16 == 8 + sum(even["rejected"].values())
    assert made.card["inputs"]["judge"] == "w" and made.card["settings"]["judging"]["prompts"] == "plain"
    assert "| judge: incorrect |" in (made.place / "card.md").read_text()
    assert len(seen) == 8, "equal requests are one"
    question = "Question: From 3, 7, 10 make 21.\nReference: 3*7+0\nAnswer: Answer: <answer>3*7</answer>\nVerdict:\n"
    assert question in seen and not any("wait" in prompt for prompt in seen), "the thought is not judged"


def test_what_a_judge_leaves_unreadable_is_counted_apart(ungradable):
    lenient = {**JUDGED, "workers": {"count": 1, "stop_ungraded": 0.5}}
    made = ungradable.run(RejectionSamplingStage, lenient, judging(of_other=None), judge="w")
    assert len(made.rows) == 8 and made.card["rejected"]["judge: unreadable"] == 4
    assert any("33% of the samples could not be read by the judge" in line for line in made.said)
    with pytest.raises(RuntimeError, match="33% of the samples could not be read by the judge, over workers.stop_ungraded"):
        ungradable.run(RejectionSamplingStage, JUDGED, judging(of_other=None), "strict", judge="w")
    lenient = {**JUDGED, "workers": {"count": 1, "stop_ungraded": 1.0}}
    with pytest.raises(ValueError, match="nothing is left .* judge: unreadable 12"):
        ungradable.run(RejectionSamplingStage, lenient, judging(None, None), "nonsense", judge="w")
    short = {**lenient, "judging": {**JUDGED["judging"], "max_tokens": 3}}
    with pytest.raises(ValueError, match="nothing is left .* judge: unreadable 12"):
        ungradable.run(RejectionSamplingStage, short, judging(), "cut off", judge="w")
    short = {**lenient, "judging": {**JUDGED["judging"], "max_prompt_tokens": 10}}
    with pytest.raises(ValueError, match="nothing is left .* judge: too long 12"):
        ungradable.run(RejectionSamplingStage, short, judging(), "too long", judge="w")


def test_several_judgements_are_one_verdict(ungradable):
    def write(prompt, sample, model):  # of three judgements one calls all incorrect
        return judging("incorrect" if model != "m" and sample == 1 else "correct")(prompt, sample, model)

    settings = {**JUDGED, "judging": {**JUDGED["judging"], "reference_judgements": 3}}
    assert len(ungradable.run(RejectionSamplingStage, settings, write, judge="w").rows) == 8


def test_a_judge_that_was_interrupted_goes_on_from_its_waves(ungradable):
    whole = ungradable.run(RejectionSamplingStage, JUDGED, judging(), "whole", judge="w")
    waves = len(ungradable.sampler.waves)
    assert waves == 3 + 3, "eight requests, three in a wave"
    ungradable.sampler.stop_at = 5
    with pytest.raises(StopRequested):
        ungradable.run(RejectionSamplingStage, JUDGED, judging(), "cut", judge="w")
    ungradable.sampler.stop_at = None
    cut = ungradable.run(RejectionSamplingStage, JUDGED, judging(), "cut", judge="w")
    assert len(ungradable.sampler.waves) == 1
    for file in ("data.jsonl", "card.json", "card.md"):
        assert (cut.place / file).read_bytes() == (whole.place / file).read_bytes()


def test_a_judge_is_not_asked_where_a_grader_knows(world):
    made = world.run(RejectionSamplingStage, JUDGED, four, judge="w")
    assert len(made.rows) == 14 and {wave.rollout for wave in world.sampler.waves} == {0}


def test_a_judge_without_positions_is_refused_before_anything_is_sampled():
    tiny = str(Path(__file__).parents[2] / "configs/tiny/base")
    positions = read_config(tiny).max_position_embeddings
    settings = {**JUDGED, "judging": {**JUDGED["judging"], "max_prompt_tokens": positions - 6}}
    stage = RejectionSamplingStage("rs", config.read_dataclass(config.RejectionSamplingSettings, settings, "rs"))
    told = f"judging: max_prompt_tokens {positions - 6} and max_tokens 40 .* {positions} positions of"
    with pytest.raises(config.RecipeError, match=told):
        stage.check({"judge": tiny})
    stage.check({})  # made by a stage that has not run yet


# ---------------------------------------------------------------------------------------------- cold start
SUMMARIES = {"en": "Answer: <answer>{answer}</answer>"}


def of_zero(prompt, sample, model):
    return (RIGHT, RIGHT.replace("wait", "等等我们再试一次这个数字"), "3*7", RIGHT.replace("3*7<", "7*3<"))[sample]


def test_a_cold_start_is_rewritten_into_r1s_format(world):
    made = world.run(ColdStartStage, {**SMALL, "summaries": SUMMARIES}, of_zero)
    assert {row["completion"] for row in made.rows} == {CHAT_RIGHT, CHAT_RIGHT.replace("3*7<", "7*3<")}
    assert {row["template"] for row in made.rows} == {"chat"} and len(made.rows) == 14
    assert made.card["rejected"] == {"mixed languages": 7, "wrong": 7}


def rewriter(reasoning="<rewritten>I try 3 times 7, which is 21.</rewritten>", summary="<rewritten>It is {}.</rewritten>"):
    """A model that rewrites the reasoning, and sums up with its own answer."""

    def write(prompt, sample, model):
        if model == "m":
            return of_zero(prompt, sample, model)
        if "Write the solution" in prompt:
            row = int(prompt.rpartition("From 3, 7, ")[2].split()[0])
            return summary.format("\\boxed{3*8}" if row == 10 else "\\boxed{3*7}")
        assert "Someone solved a problem" in prompt and "wait 3*7=21" in prompt and "in English only" in prompt
        return reasoning

    return write


def test_a_model_rewrites_and_what_is_no_longer_right_is_rejected(world):
    settings = {**SMALL, "max_prompt_tokens": 64, "max_tokens": 200}
    made = world.run(ColdStartStage, settings, rewriter(), rewriter="w")
    texts = {row["completion"] for row in made.rows}
    assert texts == {"<think>\nI try 3 times 7, which is 21.\n</think>\n\nIt is \\boxed{3*7}."}
    assert made.card["rejected"]["rewrite changed the answer"] == 2 and len(made.rows) == 6
    assert made.card["inputs"]["rewriter"] == "w"
    folders = sorted(p.name for p in (made.place / "waves").iterdir())
    assert folders[0].startswith("00000-") and {"00001-00", "00002-00"} <= set(folders), "both requests are recorded"


def test_a_rewrite_in_another_language_or_without_its_tags_is_rejected(world):
    chinese = rewriter(reasoning="<rewritten>我试着把三和七相乘，得到二十一。</rewritten>")
    with pytest.raises(ValueError, match="mixed languages 19, wrong 7, rewrite changed the answer 2"):
        world.run(ColdStartStage, {**SMALL, "max_tokens": 200}, chinese, "chinese", rewriter="w")
    with pytest.raises(ValueError, match="no rewrite 14"):
        world.run(ColdStartStage, {**SMALL, "max_tokens": 200}, rewriter(reasoning="Let me see"), "none", rewriter="w")


def test_rewrites_are_recorded_and_not_asked_for_again(world):
    settings = {**SMALL, "max_tokens": 200}
    one = world.run(ColdStartStage, settings, rewriter(), rewriter="w")
    record = Path(one.place / "rewrites" / "00000" / "commit.json")
    before = record.stat().st_mtime_ns

    def nothing(*_):
        raise AssertionError("sampled again")

    two = world.run(ColdStartStage, settings, nothing, rewriter="w")
    assert two.rows == one.rows and world.sampler.waves == []
    assert record.stat().st_mtime_ns == before
    file = one.place / "rewrites" / "00000" / "texts.jsonl"
    file.write_text(file.read_text().replace("wrong", "right"))
    with pytest.raises(records.DamagedRecord, match="texts.jsonl"):
        world.run(ColdStartStage, settings, nothing, rewriter="w")
