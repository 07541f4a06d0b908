"""Collecting a rollout: what is recorded is not sampled again; groups that say nothing are replaced, a bounded number of times."""

import numpy as np
import pytest

from r1jax.evaluation.grading import Prompt, Timing
from r1jax.pipeline import records
from r1jax.pipeline.collection import Collector, WaveRequest, says_something
from r1jax.pipeline.ledger import read_wave, wave_folder
from r1jax.rewards.record import RewardRecord, Verdict
from r1jax.rollout import SampledSequence, SamplingStopped
from r1jax.scoring.parts import Scored

PROMPTS = [Prompt(f"p{i}", np.array([10 + i, 1], np.int32), {"problem": f"p{i}\u2028x", "grader": "g"}) for i in range(40)]


class Numbers:
    """Decodes ids to their numbers."""

    def decode(self, ids):
        return " ".join(map(str, ids))


class FakeSampler:
    """Sample s of a prompt is ``s + 1`` tokens that name prompt and sample, and the end-of-sequence token."""

    def __init__(self, stop_at=None):
        self.waves, self.stop_at = [], stop_at

    def run(self, params, wave, on_finished, should_stop=None, on_progress=None):
        if self.stop_at == len(self.waves):
            raise SamplingStopped
        self.waves.append(wave)
        sequences = []
        for p, prompt in zip(wave.prompt_ids, wave.prompts):
            for s in range(wave.samples):
                tokens = np.array([prompt[0]] * (s + 1) + [1], np.int32)
                sequences.append(SampledSequence(p, s, prompt, tokens, np.linspace(-1, -p, s + 2, dtype=np.float32), "stop"))
        for sequence in reversed(sequences):  # any order
            on_finished(sequence)
        return sequences


class FakePool:
    """Even prompts: half of the samples are right. Odd prompts: all are wrong."""

    def __init__(self):
        self.requests, self.graded = {}, []

    def submit(self, key, request):
        assert key not in self.requests
        self.graded.append(key)
        self.requests[key] = request

    def drain(self):
        done, self.requests = self.requests, {}
        return [(key, self.record(key, request)) for key, request in sorted(done.items(), reverse=True)]

    def record(self, key, request):
        number = int(request.prompt[1:])
        right = number % 2 == 0 and key[1] % 2 == 0
        return RewardRecord(
            {"accuracy": float(right)}, Verdict.RIGHT if right else Verdict.WRONG, f"{request.prompt}/{key[1]}"
        )


def collector(folder, sampler=None, prompts=PROMPTS, pool=None):
    order = lambda start, count: np.arange(start, start + count) % len(prompts)  # noqa: E731
    return Collector(folder, prompts, order, sampler or FakeSampler(), pool or FakePool(), Numbers(), lambda: False)


def request(**changed):
    plain = dict(rollout=3, prompts=4, prompts_per_wave=4, samples=2, seed=7, max_tokens=9, temperature=1.0, again=0)
    return WaveRequest(**{**plain, "stop_ids": frozenset({1}), **changed})


def same(one, two):
    """Whether two rollouts are equal to the bit."""

    def plain(sample):
        s = sample.sequence
        arrays = (s.prompt_tokens.tobytes(), s.tokens.tobytes(), s.logprobs.tobytes())
        return (*arrays, s.prompt_id, s.sample, s.finish_reason, sample.record, sample.row, sample.completion)

    groups = [[plain(s) for s in group] for group in one.groups] == [[plain(s) for s in group] for group in two.groups]
    everything = list(map(plain, one.all_samples)) == list(map(plain, two.all_samples))
    return groups and everything and one.prompts_used == two.prompts_used


@pytest.fixture
def folder(tmp_path):
    from etils import epath

    return epath.Path(tmp_path)


def test_a_request_says_how_its_waves_are_sampled():
    wave = request(top_p=0.5, temperature=0.7).wave(PROMPTS[:2], 5)
    assert (wave.top_p, wave.temperature, wave.prompt_ids, wave.rollout) == (0.5, 0.7, (5, 6), 3)
    assert request().wave(PROMPTS[:2], 0).top_p == 1.0


def test_waves_one_at_a_time_are_those_of_the_whole(folder):
    whole = collector(folder / "whole").collect(None, request(), 0)
    timing = Timing()
    sampler = FakeSampler()
    waves = list(collector(folder / "parts", sampler).waves(None, request(prompts_per_wave=3), timing))
    assert [len(wave) for wave in waves] == [6, 2] and [w.prompt_ids for w in sampler.waves] == [(0, 1, 2), (3,)]
    everything = [sample for wave in waves for sample in wave]
    assert [s.completion for s in everything] == [s.completion for s in whole.all_samples]
    assert timing.tokens == sum(len(s.sequence.tokens) for s in everything)


def test_each_sample_gets_its_own_verdict_whatever_the_order(folder):
    rollout = collector(folder).collect(None, request(), 0)
    assert [len(g) for g in rollout.groups] == [2] * 4 and rollout.prompts_used == 4
    for sample in rollout.samples:
        assert sample.record.reason == f"p{sample.row}/{sample.sequence.sample}"
        assert sample.completion == " ".join([str(10 + sample.row)] * (sample.sequence.sample + 1))


def test_a_recorded_wave_is_neither_sampled_nor_graded_again(folder):
    first = collector(folder).collect(None, request(), 0)
    sampler = FakeSampler(stop_at=0)  # would stop the run if it were asked
    again = collector(folder, sampler).collect(None, request(), 0)
    assert sampler.waves == []
    assert same(first, again)


def test_a_wave_without_its_record_did_not_happen(folder):
    collector(folder).collect(None, request(), 0)
    (wave_folder(folder, 3, 0) / records.RECORD).unlink()
    sampler = FakeSampler()
    collector(folder, sampler).collect(None, request(), 0)
    assert len(sampler.waves) == 1 and records.committed(wave_folder(folder, 3, 0))


def test_a_damaged_wave_is_refused(folder):
    collector(folder).collect(None, request(), 0)
    file = wave_folder(folder, 3, 0) / "rollouts.jsonl"
    file.write_text(file.read_text().replace("right", "wrong"))
    with pytest.raises(records.DamagedRecord, match="rollouts.jsonl"):
        read_wave(wave_folder(folder, 3, 0))


def test_dynamic_sampling_replaces_groups_that_say_nothing(folder):
    sampler = FakeSampler()
    rollout = collector(folder, sampler).collect(None, request(again=5), 0)
    assert [g[0].row for g in rollout.groups] == [0, 2, 4, 6]
    assert all(says_something(g) for g in rollout.groups)
    assert [len(w.prompts) for w in sampler.waves] == [4, 2, 1] and rollout.prompts_used == 7
    ids = [i for w in sampler.waves for i in w.prompt_ids]
    assert ids == list(range(7)), "prompts of one rollout keep their identities, and with them their randomness, apart"
    assert len(rollout.all_samples) == 14


def test_dynamic_sampling_ends(folder):
    hopeless = [p for i, p in enumerate(PROMPTS) if i % 2]
    sampler = FakeSampler()
    rollout = collector(folder, sampler, hopeless).collect(None, request(again=2), 0)
    assert len(sampler.waves) == 3 and len(rollout.groups) == 4, "the size of a rollout never changes"


def test_a_stop_keeps_finished_waves(folder):
    with pytest.raises(SamplingStopped):
        collector(folder, FakeSampler(stop_at=1)).collect(None, request(again=3), 0)
    sampler = FakeSampler()
    resumed = collector(folder, sampler).collect(None, request(again=3), 0)
    assert [len(w.prompts) for w in sampler.waves] == [2, 1]
    assert [g[0].row for g in resumed.groups] == [0, 2, 4, 6]


# ---------------------------------------------------------------------------------------------- several waves
@pytest.mark.parametrize("again", [0, 3])
@pytest.mark.parametrize("per_wave", [1, 2])
def test_a_rollout_does_not_depend_on_the_size_of_its_waves(folder, per_wave, again):
    whole = collector(folder / "whole").collect(None, request(again=again), 5)
    sampler = FakeSampler()
    parts = collector(folder / "parts", sampler).collect(None, request(again=again, prompts_per_wave=per_wave), 5)
    assert same(whole, parts)
    assert {len(w.prompts) for w in sampler.waves} <= {per_wave, 1} and len(sampler.waves) >= 4 // per_wave
    folders = sorted(p.name for p in (folder / "parts" / "waves").iterdir())
    assert folders == [f"00003-{i:02d}" for i in range(len(sampler.waves))], "replacements go on counting"


def test_what_was_cut_between_two_waves_costs_the_second_only(folder):
    whole = collector(folder / "whole").collect(None, request(prompts_per_wave=2, again=2), 0)
    with pytest.raises(SamplingStopped):
        collector(folder / "cut", FakeSampler(stop_at=1)).collect(None, request(prompts_per_wave=2, again=2), 0)
    sampler, pool = FakeSampler(), FakePool()
    resumed = collector(folder / "cut", sampler, pool=pool).collect(None, request(prompts_per_wave=2, again=2), 0)
    assert [w.prompt_ids for w in sampler.waves] == [(2, 3), (4, 5), (6,)], "the first wave is not sampled again"
    assert sorted({prompt for prompt, _ in pool.graded}) == [2, 3, 4, 5, 6], "nor graded"
    assert same(whole, resumed)
    for number in range(4):
        for name in ("rollouts.jsonl", "arrays.npz", "commit.json"):
            files = [wave_folder(folder / run, 3, number) / name for run in ("whole", "cut")]
            assert files[0].read_bytes() == files[1].read_bytes()


def test_progress_goes_on_from_wave_to_wave(folder):
    class Showing(FakeSampler):
        def run(self, params, wave, on_finished, should_stop=None, on_progress=None):
            sequences = super().run(params, wave, on_finished)
            on_progress(len(sequences), sum(len(s.tokens) for s in sequences))
            return sequences

    shown = []
    collector(folder, Showing()).collect(None, request(prompts_per_wave=2), 0, lambda *now: shown.append(now))
    assert shown == [(4, 10), (8, 20)]


def test_ungraded_samples_do_not_make_a_group_informative(folder):
    rollout = collector(folder).collect(None, request(), 1)
    group = rollout.groups[0]
    assert not says_something(group)
    import dataclasses

    ungraded = dataclasses.replace(group[0], record=RewardRecord({"accuracy": None}, Verdict.UNGRADED))
    assert not says_something([ungraded, group[1]])


def test_what_models_reward_is_recorded_with_the_wave(folder):
    calls = []

    def scores(asked):
        calls.append(len(asked))
        return [{"helpfulness": Scored(len(each.completion) / 10, "short")} for each in asked]

    order = lambda start, count: np.arange(start, start + count)  # noqa: E731
    made = Collector(folder, PROMPTS, order, FakeSampler(), FakePool(), Numbers(), lambda: False, scores)
    first = made.collect(None, request(prompts_per_wave=2), 0)
    assert calls == [4, 4]
    for sample in first.all_samples:
        assert sample.record.parts["helpfulness"] == len(sample.completion) / 10 and "accuracy" in sample.record.parts
        assert "short" in sample.record.reason
    again = made.collect(None, request(prompts_per_wave=2), 0)
    assert calls == [4, 4] and [s.record for s in again.all_samples] == [s.record for s in first.all_samples]


def test_a_group_without_right_answers_says_something():
    class Sample:
        def __init__(self, verdict):
            self.record = RewardRecord({}, verdict)

    assert says_something([Sample(Verdict.NONE), Sample(Verdict.NONE)])
    assert not says_something([Sample(Verdict.UNGRADED), Sample(Verdict.UNGRADED)])
    assert not says_something([Sample(Verdict.RIGHT), Sample(Verdict.UNGRADED)])
