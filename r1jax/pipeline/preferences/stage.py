"""The stage that makes preference pairs for a reward model of helpfulness.

A model writes several answers to each prompt. A judge compares pairs of them several times, half with either answer shown first;
a pair is kept where the mean difference is clear, and the set is balanced by length (``pairing.balanced``). What is written is the
answers' final summaries: that is what the judge saw, and what the reward model will read.

What is sampled, of the model (waves of rollout 0) and of the judge (rollout 1), is recorded; everything else is computed from the
records in every session, by seed alone.

Departures from the paper, which leaves these open: how many answers a prompt has, which of them are compared, what the labels
count (``rewards.judgements.PREFERENCES``), how lengths are balanced.
"""

from __future__ import annotations

import dataclasses
import json
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from r1jax import config, data
from r1jax.data.summary import THINK, final_summary, opens_thought
from r1jax.data.template import check_template
from r1jax.evaluation.contamination import Contamination
from r1jax.evaluation.grading import GradedSample, Prompt, render
from r1jax.pipeline import records
from r1jax.pipeline.checks import check_judge_model, check_sampler
from r1jax.pipeline.collection import WaveRequest
from r1jax.pipeline.curation.card import made_with
from r1jax.pipeline.curation.dataset import write_dataset
from r1jax.pipeline.curation.sampling import ModelSource
from r1jax.pipeline.preferences.card import card_text
from r1jax.pipeline.preferences.pairing import Preference, Said, balanced, candidates, in_order, length_figures
from r1jax.pipeline.stage import Artefacts, Context, StopRequested
from r1jax.rewards import RewardPool
from r1jax.scoring.judge import Judge, JudgePrompt, Pair, check_judge_settings
from r1jax.scoring.judge_prompts import load_judge_prompts
from r1jax.scoring.verdicts import Answer, Comparison, position_bias

SAMPLED, JUDGED = range(2)  # numbers of rollouts
TRUNCATED, NO_SUMMARY, EQUAL, END_TOKEN = "truncated", "no final summary", "equal to another", "end token in text"
UNREADABLE, NOT_CLEAR, OVER_BALANCE = "judge: unreadable", "not clear", "over the balance of lengths"


def check_settings(name: str, settings: config.PreferencePairsSettings) -> None:
    """Refuses settings that can't be worked with.

    Raises:
      RecipeError: naming the key, its value and the remedy.
    """
    where = f"stages.{name}"
    for key, least in (
        ("samples_per_prompt", 2),
        ("prompts_per_wave", 1),
        ("max_tokens", 1),
        ("max_prompt_tokens", 1),
        ("prompts", 0),
        ("pairs_per_prompt", 0),
        ("decontamination_words", 0),
    ):
        if getattr(settings, key) < least:
            raise config.RecipeError(f"{where}.{key} must be at least {least}, not {getattr(settings, key)}")
    if not 0 <= settings.least_difference < 2:
        raise config.RecipeError(
            f"{where}.least_difference must lie in [0, 2), the judge's scale, not {settings.least_difference}"
        )
    if settings.temperature <= 0:
        raise config.RecipeError(
            f"{where}.temperature must be positive, not {settings.temperature}: else all answers are one"
        )
    if not 0 < settings.top_p <= 1:
        raise config.RecipeError(f"{where}.top_p must be over 0 and at most 1, not {settings.top_p}")
    check_sampler(where, settings.sampler)
    try:
        if settings.template:
            check_template(settings.template)
        check_judge_settings(settings.judging, f"{where}.judging")
        prompts = load_judge_prompts(settings.judging.prompts)
    except ValueError as error:
        raise config.RecipeError(f"{where}: {error}") from error
    if "pair" not in prompts.texts:
        raise config.RecipeError(
            f"{where}.judging.prompts: {settings.judging.prompts} has no pair.txt, by which answers are compared"
        )


class PreferencePairsStage:
    """``kind: preference_pairs``. Inputs: ``model`` (it answers), ``judge`` (a model that compares), ``data`` (prompts)."""

    settings = config.PreferencePairsSettings

    def __init__(self, name: str, settings: config.PreferencePairsSettings):
        check_settings(name, settings)
        self.name, self._settings = name, settings

    def check(self, inputs: Mapping[str, Any]) -> None:
        """See ``pipeline.Stage``."""
        if "judge" in inputs:
            check_judge_model(f"stages.{self.name}.judging", inputs["judge"], self._settings.judging)

    def run(self, inputs: Mapping[str, Any], workdir: epath.Path, context: Context) -> Artefacts:
        """See ``pipeline.Stage``."""
        with RewardPool(("accuracy",), workers=1) as pool:  # of general prompts, which have no right answer
            return _Session(self.name, self._settings, inputs, workdir, context, pool).to_the_end()


class _Session:
    """One session of the stage."""

    def __init__(self, name, settings, inputs, workdir: epath.Path, context: Context, pool: RewardPool):
        self.name, self.settings, self.inputs, self.pool = name, settings, inputs, pool
        self.workdir, self.context, self.console = workdir, context, context.console
        self.where, self.times = f"stages.{name}", workdir.parent.parent / "timing" / name
        self.seed = zlib.crc32(f"{context.recipe.seed}/{name}".encode()) >> 1
        self.rejected: Counter[str] = Counter()
        self.benchmarks = tuple(context.recipe.benchmarks) if settings.decontamination_words else ()
        self.model = ModelSource(name, inputs["model"], settings.sampler, context, self.times)
        self.counts: dict[str, int] = {}
        self.rows, self.prompts = self._read_prompts()
        self.model.check_lengths(self.prompts, settings.max_tokens, self.where)

    # ------------------------------------------------------------------------------------------ answers
    def _read_prompts(self) -> tuple[list[data.PromptRow], list[Prompt]]:
        """The prompts to be answered, in a seeded order, as rows and as the model is given them.

        Raises:
          ValueError: fewer than ``prompts`` are left.
        """
        settings, source = self.settings, self.inputs["data"]
        rows = data.load_prompts(source)
        known = Contamination(
            {name: data.load_prompts(self.context.recipe.benchmarks[name]) for name in self.benchmarks},
            settings.decontamination_words or 1,
        )
        overlaps = known.problems([row.problem for row in rows])
        clean = [row for row, overlap in zip(rows, overlaps) if overlap is None]
        prompts = [render(row, self.model.tokenizer) for row in clean]
        fits = [i for i, prompt in enumerate(prompts) if 0 < len(prompt.tokens) <= settings.max_prompt_tokens]
        wanted = settings.prompts or len(fits)
        if not fits or wanted > len(fits):
            raise ValueError(
                f"{self.where}: {len(fits)} of {len(rows)} prompts of {source.path} can be sampled ({len(rows) - len(clean)} "
                f"share words with a benchmark, {len(clean) - len(fits)} are over max_prompt_tokens "
                f"{settings.max_prompt_tokens}), {settings.prompts or 1} are asked for; lower prompts or give more data"
            )
        order = [fits[i] for i in data.PromptOrder(len(fits), self.seed).take(wanted)]
        self.counts |= {"prompts": len(rows), "contaminated_prompts": len(rows) - len(clean), "sampled_prompts": len(order)}
        return [clean[i] for i in order], [prompts[i] for i in order]

    def _request(self, rollout: int, prompts: int, samples: int, sampling: Any) -> WaveRequest:
        return WaveRequest(
            rollout=rollout,
            prompts=prompts,
            prompts_per_wave=self.settings.prompts_per_wave,
            samples=samples,
            seed=self.seed,
            max_tokens=sampling.max_tokens,
            stop_ids=frozenset(),
            temperature=sampling.temperature,
            top_p=sampling.top_p,
        )

    def answers(self) -> list[Said]:
        """What the samples say to their readers, each answer to a prompt once."""
        request = self._request(SAMPLED, len(self.prompts), self.settings.samples_per_prompt, self.settings)
        found: dict[tuple[int, str], Said] = {}
        samples = 0
        for wave in self.model.sample(self.workdir, self.prompts, request, self.pool):
            samples += len(wave)
            for said in self._said(wave):
                if found.setdefault((said.prompt, said.text), said) is not said:
                    self.rejected[EQUAL] += 1
        self.counts |= {"samples": samples, "answers": len(found)}
        return list(found.values())

    def _said(self, wave: Sequence[GradedSample]) -> list[Said]:
        tokenizer, texts = self.model.tokenizer, []
        for sample in wave:
            opened = THINK if opens_thought(self.prompts[sample.row].text) else ""
            text = None if sample.cut_off else final_summary(opened + sample.completion)
            if text is None:
                self.rejected[TRUNCATED if sample.cut_off else NO_SUMMARY] += 1
            texts.append(text)
        spoke = [(sample, text) for sample, text in zip(wave, texts) if text is not None]
        said = []
        for (sample, text), ids in zip(spoke, tokenizer.encode_batch([text for _, text in spoke]) if spoke else ()):
            if tokenizer.eos_ids.isdisjoint(ids):
                said.append(Said(sample.row, sample.sequence.sample, text, len(ids)))
            else:
                self.rejected[END_TOKEN] += 1  # nobody can learn it
        return said

    # ------------------------------------------------------------------------------------------ comparisons
    def compared(self, pairs: Sequence[tuple[Said, Said]]) -> list[Comparison]:
        """The judge's comparison of each pair."""
        judging = self.settings.judging
        self.model.release()  # two models at once may be one too many
        layout = dataclasses.replace(self.settings.sampler, rows=judging.rows)
        judge = ModelSource(self.name, self.inputs["judge"], layout, self.context, self.times)

        def answers(asked: Sequence[JudgePrompt], repeats: int) -> list[list[Answer]]:
            prompts = [Prompt(prompt.text, prompt.tokens, {"grader": "none"}) for prompt in asked]
            request = self._request(JUDGED, len(prompts), repeats, judging)
            waves = judge.sample(self.workdir, prompts, request, self.pool)
            said = [Answer(s.completion, s.sequence.finish_reason) for wave in waves for s in wave]
            return [said[first : first + repeats] for first in range(0, len(said), repeats)]

        asked = [Pair(self.rows[a.prompt].problem, a.text, b.text) for a, b in pairs]
        return Judge(answers, judge.tokenizer, load_judge_prompts(judging.prompts), judging).compare(asked)

    def clear(self, pairs: Sequence[tuple[Said, Said]], comparisons: Sequence[Comparison]) -> list[Preference]:
        """The pairs with a clear difference, the better answer first."""
        found = []
        for (a, b), comparison in zip(pairs, comparisons):
            if comparison.value is None:
                self.rejected[UNREADABLE if comparison.reason == "" else f"judge: {comparison.reason}"] += 1
            elif not comparison.clear(self.settings.least_difference):
                self.rejected[NOT_CLEAR] += 1
            else:
                chosen, rejected = (a, b) if comparison.value > 0 else (b, a)
                found.append(Preference(chosen, rejected, abs(comparison.value)))
        return found

    # ------------------------------------------------------------------------------------------ the data set
    def to_the_end(self) -> Artefacts:
        """Samples, compares, balances; writes the data set and its card.

        Raises:
          ValueError: nothing is left.
        """
        settings = self.settings
        pairs = candidates(self.answers(), settings.pairs_per_prompt, self.seed)
        if not pairs:
            raise ValueError(
                f"{self.where}: no prompt has two answers that differ ({self._told()}); raise temperature or max_tokens"
            )
        comparisons = self.compared(pairs)
        if self.context.stop():
            raise StopRequested
        clear = self.clear(pairs, comparisons)
        kept = balanced(clear, self.seed) if settings.balance_lengths else clear
        self.rejected[OVER_BALANCE] += len(clear) - len(kept)
        if not kept:
            raise ValueError(
                f"{self.where}: nothing is left of {len(pairs)} pairs: {self._told()}. What was sampled and judged is in "
                f"{self.workdir / 'waves'}; lower least_difference, set balance_lengths to false, or give another judge"
            )
        rows = [self._row(pair) for pair in in_order(kept, self.seed)]
        if "data.parquet" not in list(write_dataset(self.workdir, rows)):
            self.console.warn(f"{self.name}: no data.parquet, for that pyarrow is needed: pip install pyarrow")
        self.counts |= {"judged": len(pairs), "clear": len(clear), "rows": len(kept)}
        card = {
            **self.counts,
            "rejected": {
                why: count for why, count in sorted(self.rejected.items(), key=lambda item: (-item[1], item[0])) if count
            },
            "lengths_before": length_figures(clear),
            "lengths": length_figures(kept),
            "position_bias": dataclasses.asdict(position_bias(comparisons)),
            **made_with(self.name, self.context, self.workdir, self.inputs["data"].path, self.benchmarks, self.settings),
        }
        records.write_atomic(self.workdir / "card.json", json.dumps(card, indent=1, ensure_ascii=False))
        records.write_atomic(self.workdir / "card.md", card_text(self.name, card))
        self.console.say(f"{self.name}: {len(kept):,} pairs of {len(pairs):,} that were judged; left out: {self._told()}")
        figures = {key: card[key] for key in (*self.counts, "rejected", "lengths_before", "lengths", "position_bias")}
        return Artefacts(data=str(self.workdir / "data.jsonl"), figures=figures)

    def _told(self) -> str:
        """``not clear 20, truncated 3``."""
        return ", ".join(f"{why} {count}" for why, count in self.rejected.most_common() if count) or "nothing was left out"

    def _row(self, pair: Preference) -> dict[str, Any]:
        """The row that is written: as reward models read it (``data.preferences``), with the prompt's own fields."""
        row = self.rows[pair.chosen.prompt]
        own = {key: value for key, value in row.row.items() if value is not None and key not in ("messages", "completion")}
        return {
            "id": f"{own.get('id', f'prompt-{row.index}')}-{pair.chosen.sample}-{pair.rejected.sample}",
            "problem": row.problem,
            "template": self.settings.template or row.template,
            "chosen": pair.chosen.text,
            "rejected": pair.rejected.text,
            "difference": pair.difference,
            "chosen_tokens": pair.chosen.tokens,
            "rejected_tokens": pair.rejected.tokens,
        } | {k: v for k, v in own.items() if k not in ("id", "problem", "template", "chosen", "rejected")}
