"""A benchmark from prompts to figures, with a sampler and a grader whose every answer is known."""

import numpy as np
import pytest

from r1jax.config import BenchmarkSource
from r1jax.data import PromptRow
from r1jax.evaluation import evaluate, vote_of
from r1jax.rewards.record import RewardRecord, Verdict
from r1jax.rollout.wave import SampledSequence

END = 0


class Letters:
    """A token per character; 0 ends a sequence."""

    adds_bos = False

    def encode(self, text, add_bos=False):
        return [ord(c) for c in text]

    def decode(self, ids):
        return "".join(map(chr, ids))


class Scripted:
    """Answers with given texts; one that ends in ``…`` is cut off there. Finishes in reverse order."""

    class config:
        max_position_embeddings = 1000

    def __init__(self, *texts):
        self.texts, self.wave = texts, None

    def run(self, params, wave, on_finished, *, should_stop=None, on_progress=None):
        self.wave = wave
        sequences = []
        for prompt_id, prompt in zip(wave.prompt_ids, wave.prompts):
            for sample in range(wave.samples):
                text = self.texts[prompt_id][sample]
                cut = text.endswith("…")
                ids = np.array([ord(c) for c in text] + [END] * (not cut), np.int32)
                logprobs = np.zeros(len(ids), np.float32)
                sequences.append(SampledSequence(prompt_id, sample, prompt, ids, logprobs, "length" if cut else "stop"))
        for sequence in reversed(sequences):
            on_finished(sequence)
        return sequences


class Pool:
    """Right if the gold answer stands in the completion; ungraded if it says crash. Reports in the order of asking."""

    def __init__(self):
        self.requests = {}

    def submit(self, key, request):
        self.requests[key] = request

    def drain(self):
        def verdict(request):
            if "crash" in request.completion:
                return Verdict.UNGRADED
            return Verdict.RIGHT if request.row["answer"] in request.completion else Verdict.WRONG

        def parts(request):
            digits = [int(c) for c in request.completion if c.isdigit()]
            return {"accuracy": 1.0, "digit": float(digits[-1]) if digits else None}

        return [(key, RewardRecord(parts(r), verdict(r), "because")) for key, r in self.requests.items()]


def row(index, answer, grader="verify_math", **more):
    return PromptRow(
        index, f"problem {index}", answer, "Q: {prompt}\n", grader, {"id": f"p{index}", "answer": answer, **more}
    )


def run(rows, *texts, **settings):
    sampler, pool = Scripted(*texts), Pool()
    source = BenchmarkSource("x.jsonl", samples=len(texts[0]), **settings)
    figures, samples = evaluate(None, sampler, Letters(), rows, source, pool, stop_ids=frozenset({END}))
    return figures, samples, sampler, pool


def answer(text):
    return f"<think>t</think><answer>{text}</answer>"


def test_shares_majorities_and_what_counts_as_wrong():
    rows = [row(0, "12"), row(1, "5"), row(2, "7"), row(3, "1")]
    figures, samples, _, pool = run(
        rows,
        [answer("12"), answer("3"), answer("12"), answer("4")],  # half right, the majority right
        [answer("5"), answer("6"), answer("6.0"), answer("2")],  # a quarter right, 6 and 6.0 are one group
        [answer("7") + "…", answer("7") + "…", answer("8"), answer("9")],  # right but cut off: wrong, and no vote
        [answer("crash 1"), answer("crash 1"), answer("1"), "wait, check"],  # ungraded: wrong
    )
    assert (figures["problems"], figures["samples"]) == (4, 4)
    assert figures["pass@1"] == (2 + 1 + 0 + 1) / 16
    assert figures["cons@k"] == 0.25
    assert figures["pass@k"] == {"1": 4 / 16, "2": pytest.approx((5 / 6 + 0.5 + 0 + 0.5) / 4), "4": 0.75}
    assert figures["truncated"] == 2 / 16 and figures["ungraded"] == 2 / 16 and figures["reflection"] == 1 / 16
    low, high = figures["pass@1_interval"]
    assert 0 <= low < figures["pass@1"] < high <= 0.5
    # each verdict belongs to its own sample, whatever the order in which they came back
    assert [s["right"] for s in samples[:8]] == [True, False, True, False, True, False, False, False]
    assert samples[8]["verdict"] == "right" and not samples[8]["right"] and samples[8]["finish_reason"] == "length"
    assert samples[0]["id"] == "p0" and samples[0]["answer"] == "12" and samples[0]["reason"] == "because"
    # the end token is counted but not read
    assert pool.requests[0, 0].completion == answer("12") and samples[0]["tokens"] == len(answer("12")) + 1
    assert figures["mean_tokens"] == np.mean([s["tokens"] for s in samples])


def test_parts_are_averaged_by_problem_over_what_could_be_graded():
    texts = [answer("1"), answer("2"), answer("6")], [answer("none"), answer("4"), answer("none")], [answer("x")] * 3
    figures, *_ = run([row(0, "1"), row(1, "1"), row(2, "1")], *texts, parts=("digit",))
    assert figures["parts"] == {"digit": (3 + 4) / 2} and figures["parts_interval"]["digit"] == [3, 4]
    assert run([row(0, "1")], [answer("x")], parts=("digit",))[0]["parts"] == {}
    assert "parts" not in run([row(0, "1")], [answer("1")])[0]


def test_the_majority_does_not_see_the_gold():
    # Most say 3, which is wrong; the vote must not be rescued by the right minority, whatever the gold is.
    texts = [answer("3"), answer("3"), answer("12")]
    assert run([row(0, "12")], texts)[0]["cons@k"] == 0
    assert run([row(0, "3")], texts)[0]["cons@k"] == 1


def test_search_problems_vote_by_expression_not_by_value():
    assert vote_of(answer("7 * 3 = 21"), "search") == vote_of(answer("7*3"), "search") == "7*3"
    assert vote_of(answer("21"), "search") != vote_of(answer("7*3"), "search")
    assert vote_of(answer("21"), "verify_math") == vote_of(answer("21.0"), "verify_math")
    assert vote_of("<think>never ends", "search") is None and vote_of(answer(" = 3"), "search") is None


def test_search_problems_tell_what_follows_a_try():
    rows = [row(0, "21", "search", target=21, numbers=[3, 7, 8])]
    figures, *_ = run(rows, ["<think>try 8-7=1 wait 7*3=21</think><answer>7*3</answer>", "<think>试8-7=1</think>"])
    assert (figures["wait_after_miss"], figures["wait_after_hit"], figures["tries"]) == (0.5, 0.0, 1.5)
    assert "wait_after_miss" not in run([row(0, "1")], ["1"])[0]


def test_settings_reach_the_wave_and_the_figures():
    figures, _, sampler, pool = run([row(0, "1")], ["1", "2"], temperature=0.7, top_p=0.8, max_tokens=30_000, seed=9)
    wave = sampler.wave
    assert (wave.temperature, wave.top_p, wave.seed, wave.samples) == (0.7, 0.8, 9, 2)
    # max_tokens is bounded by the model's positions, and the figures say what was used
    assert wave.max_tokens == figures["max_tokens"] == 1000 - len("Q: problem 0\n")
    assert "".join(map(chr, wave.prompts[0])) == "Q: problem 0\n"
    assert pool.requests[0, 1].prompt == "Q: problem 0\n"
    assert pool.requests[0, 1].row["grader"] == "verify_math" and figures["graders"] == ["verify_math"]
    assert figures["prompt"] == "Q: problem 0\n"
    assert figures["templates"] == ["Q: {prompt}\n"] and figures["seed"] == 9


def test_the_benchmarks_reference_is_the_normalised_one():
    # SVAMP writes 145.0; the row's own answer (145) is what the grader must get
    source = PromptRow(0, "p", "145", "{prompt}", "verify_math", {"Answer": 145.0, "answer": None})
    assert run([source], ["145"])[3].requests[0, 0].row["answer"] == "145"


def test_what_cannot_be_evaluated_is_refused():
    with pytest.raises(ValueError, match="without rows"):
        run([], [""])
    long = PromptRow(4, "x" * 1000, "1", "{prompt}", "verify_math", {})
    with pytest.raises(ValueError, match="row 4 has 1000 tokens; the model has 1000 positions"):
        run([long], ["1"])

    class NoVerdict(Pool):
        def drain(self):
            return [(key, RewardRecord({}, Verdict.NONE)) for key in self.requests]

    with pytest.raises(ValueError, match="knows no right answer"):
        source = BenchmarkSource("x", samples=1)
        evaluate(None, Scripted(["1"]), Letters(), [row(0, "1")], source, NoVerdict(), stop_ids=frozenset({END}))
