"""The stages that make data, from prompts to a data set with its card.

What is sampled, rewritten and graded is recorded; everything else is computed from the records in every session.

Departures from the paper, which leaves these open: bounds of the filters, what a duplicate is, how examples of a prompt are
chosen; filters are asked before the judge, which costs more.
"""

from __future__ import annotations

import dataclasses
import json
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from etils import epath

from r1jax import config, data
from r1jax.evaluation.contamination import Contamination
from r1jax.evaluation.grading import GradedSample, Prompt, render
from r1jax.pipeline import records
from r1jax.pipeline.checks import check_judge_model
from r1jax.pipeline.collection import WaveRequest
from r1jax.pipeline.curation.card import Tally, build_card, card_text, made_with
from r1jax.pipeline.curation.checks import check_settings
from r1jax.pipeline.curation.dataset import Example, domain_of, read_general, write_dataset
from r1jax.pipeline.curation.filters import Filter, first_reason, make_filters, own_filter
from r1jax.pipeline.curation.judging import UNGRADED, check_judging, judge_by_model
from r1jax.pipeline.curation.refining import drop_contaminated, drop_duplicates, in_order, mix_general, select
from r1jax.pipeline.curation.rewriting import grade_again, rewrite_by_model, rewrite_by_template
from r1jax.pipeline.curation.sampling import ModelSource
from r1jax.pipeline.stage import Artefacts, Context, StopRequested
from r1jax.rewards import RewardPool, Verdict
from r1jax.rewards.record import RewardRecord, common_failure
from r1jax.scoring.judge_parts import reference_of

THINK = "<think>"
UNVERIFIED, END_TOKEN = "no right answer known", "end token in text"  # reasons of rejection
_ENCODED_TOGETHER = 1_024
# Rollouts, by which waves and their randomness are told apart; the samples themselves are 0.
_REWRITTEN, _JUDGED = {"reasoning": 1, "summary": 2}, 3


class RejectionSamplingStage:
    """``kind: rejection_sampling``. Inputs: ``model``, ``data``, and optionally ``general``, data that is mixed in, and ``judge``, a
    model that compares answers with references where no grader can."""

    settings = config.RejectionSamplingSettings

    def __init__(self, name: str, settings: config.RejectionSamplingSettings):
        check_settings(name, settings)
        self.name, self._settings = name, settings

    def check(self, inputs: Mapping[str, Any]) -> None:
        """See ``pipeline.Stage``."""
        if "judge" in inputs:
            check_judge_model(f"stages.{self.name}.judging", inputs["judge"], self._settings.judging)

    def run(self, inputs: Mapping[str, Any], workdir: epath.Path, context: Context) -> Artefacts:
        """See ``pipeline.Stage``."""
        with _pool(self._settings) as pool:
            session = _Session(self.name, self._settings, inputs, workdir, context, pool)
            return session.finish(session.judged(session.sampled()), self._settings.general_share)


class ColdStartStage:
    """``kind: cold_start``. Inputs: ``model`` (an R1-Zero), ``data``, and optionally ``rewriter``, another model."""

    settings = config.ColdStartSettings

    def __init__(self, name: str, settings: config.ColdStartSettings):
        check_settings(name, settings)
        self.name, self._settings = name, settings

    def run(self, inputs: Mapping[str, Any], workdir: epath.Path, context: Context) -> Artefacts:
        """See ``pipeline.Stage``."""
        with _pool(self._settings) as pool:
            session = _Session(self.name, self._settings, inputs, workdir, context, pool)
            return session.finish(session.rewritten(session.sampled()), 0.0)


def _pool(settings: config.CurationSettings) -> RewardPool:
    return RewardPool(("accuracy",), workers=settings.workers.count, timeout=settings.workers.timeout)


def whole_text(prompt: str, completion: str) -> str:
    """The completion with the ``<think>`` that its prompt ended with, if it did."""
    return (prompt[prompt.rindex(THINK) :] if prompt.rstrip().endswith(THINK) else "") + completion


class _Session:
    """One session of a data-making stage."""

    def __init__(self, name, settings, inputs, workdir: epath.Path, context: Context, pool: RewardPool):
        self.name, self.settings, self.inputs, self.pool = name, settings, inputs, pool
        self.workdir, self.context, self.console = workdir, context, context.console
        self.where, self.tally = f"stages.{name}", Tally()
        self.seed = zlib.crc32(f"{context.recipe.seed}/{name}".encode()) >> 1
        function, where = settings.judge_function, f"{self.where}.judge_function"
        self.judge_function: Filter | None = own_filter(function, where) if function else None
        self.unjudged: list[Example] = []
        names = settings.decontaminate or tuple(context.recipe.benchmarks)
        self.benchmarks = names if settings.decontamination_words else ()
        rows = {name: data.load_prompts(context.recipe.benchmarks[name]) for name in self.benchmarks}
        self.known = Contamination(rows, settings.decontamination_words or 1)
        self.general = read_general(inputs["general"], settings.selection.domain_field) if "general" in inputs else []
        self.times = workdir.parent.parent / "timing" / name
        self.model = ModelSource(name, inputs["model"], settings.sampler, context, self.times)
        self.tokenizer = self.model.tokenizer
        self.rows, self.prompts = self._read_prompts()
        self.tally.asked.update(map(self._domain, self.rows))
        self.model.check_lengths(self.prompts, settings.max_tokens, self.where)

    # ------------------------------------------------------------------------------------------ sampling
    def _domain(self, row: data.PromptRow) -> str:
        return domain_of(row.row, self.settings.selection.domain_field, row.grader)

    def _read_prompts(self) -> tuple[list[data.PromptRow], list[Prompt]]:
        """The prompts to be sampled, in a seeded order, as rows and as the model is given them.

        Raises:
          ValueError: fewer than ``prompts`` are left.
        """
        settings, source = self.settings, self.inputs["data"]
        rows = data.load_prompts(source)
        for row in rows:
            self.tally.prompts[self._domain(row)] += 1
        overlaps = self.known.problems([row.problem for row in rows])
        self.tally.contaminated.update(overlap.benchmark for overlap in overlaps if overlap is not None)
        clean = [row for row, overlap in zip(rows, overlaps) if overlap is None]
        if len(clean) < len(rows):
            self.console.say(
                f"{self.name}: {len(rows) - len(clean)} of {len(rows)} prompts are those of benchmarks: left out"
            )
        prompts = [render(row, self.tokenizer) for row in clean]
        fits = [i for i, prompt in enumerate(prompts) if 0 < len(prompt.tokens) <= settings.max_prompt_tokens]
        if len(fits) < len(clean):
            self.console.warn(
                f"{len(clean) - len(fits)} prompts exceed {settings.max_prompt_tokens} tokens and are left out"
            )
        wanted = settings.prompts or len(fits)
        if not fits or wanted > len(fits):
            raise ValueError(
                f"{self.where}: {len(fits)} of {len(rows)} prompts of {source.path} can be sampled ({len(rows) - len(clean)} "
                f"share words with a benchmark, {len(clean) - len(fits)} are over max_prompt_tokens "
                f"{settings.max_prompt_tokens}), {settings.prompts or 1} are asked for; lower prompts or give more data"
            )
        missing = sorted(set(settings.selection.domain_weights) - {self._domain(clean[i]) for i in fits})
        if missing:
            raise ValueError(
                f"{self.where}.selection.domain_weights: no prompt of {source.path} is of domain {missing[0]!r}"
                f"{config.nearest(missing[0], sorted({self._domain(clean[i]) for i in fits}))}"
            )
        order = [fits[i] for i in data.PromptOrder(len(fits), self.seed).take(wanted)]
        return [clean[i] for i in order], [prompts[i] for i in order]

    def _request(self, rollout: int, prompts: int, samples: int, sampling: Any, max_tokens: int) -> WaveRequest:
        return WaveRequest(
            rollout=rollout,
            prompts=prompts,
            prompts_per_wave=self.settings.prompts_per_wave,
            samples=samples,
            seed=self.seed,
            max_tokens=max_tokens,
            stop_ids=frozenset(),
            temperature=sampling.temperature,
            top_p=sampling.top_p,
        )

    def sampled(self) -> list[Example]:
        """Samples every prompt; the right samples that pass the filters."""
        settings = self.settings
        filters = make_filters(settings.filters, settings.form, settings.filter_settings, self.where)
        request = self._request(0, len(self.prompts), settings.samples_per_prompt, settings, settings.max_tokens)
        examples: list[Example] = []
        ungraded: list[RewardRecord] = []
        for wave in self.model.sample(self.workdir, self.prompts, request, self.pool):
            ungraded += [sample.record for sample in wave if sample.record.verdict is Verdict.UNGRADED]
            examples += self._passing(wave, filters)
        why = common_failure(ungraded) or "no reason was given"
        self._watch_grading(len(ungraded) / sum(self.tally.samples.values()), f"graded ({why})")
        return examples

    def _passing(self, samples: Iterable[GradedSample], filters: Sequence[Filter]) -> list[Example]:
        examples = []
        for sample in samples:
            row, prompt = self.rows[sample.row], self.prompts[sample.row]
            domain = self._domain(row)
            text = whole_text(prompt.text, sample.completion)
            shown = {**prompt.row, "problem": row.problem, "prompt": prompt.text}
            shown["finish_reason"] = sample.sequence.finish_reason
            self.tally.samples[domain] += 1
            self.tally.right[domain] += sample.right
            reason = self._verdict(sample, text, shown) or first_reason(filters, text, shown)
            if reason is None:
                own = {**prompt.row, "template": row.template}
                example = Example(row.problem, text, domain, row.index, sample.sequence.sample, row=own)
                (self.unjudged if self._awaits_judge(sample) else examples).append(example)
            else:
                self.tally.reject(domain, reason)
        return examples

    def _verdict(self, sample: GradedSample, text: str, row: Mapping[str, Any]) -> str | None:
        """Why a sample does not count as right, or None."""
        if sample.cut_off:
            return "truncated"
        verdict = sample.record.verdict
        if verdict is Verdict.NONE and self.judge_function is not None:
            return self.judge_function(text, row)
        if verdict is Verdict.NONE:
            return None if self._awaits_judge(sample) else UNVERIFIED
        return None if verdict is Verdict.RIGHT else str(verdict)

    def _awaits_judge(self, sample: GradedSample) -> bool:
        """Whether a model has to say if a sample is right: its grader can't, and there is something to compare it with."""
        unknown = sample.record.verdict is Verdict.NONE and "judge" in self.inputs
        return unknown and reference_of(self.prompts[sample.row].row) is not None

    def _watch_grading(self, share: float, what: str) -> None:
        workers = self.settings.workers
        if share > workers.stop_ungraded:
            raise RuntimeError(
                f"{share:.0%} of the samples could not be {what}, over workers.stop_ungraded {workers.stop_ungraded:.0%}; all "
                f"reasons are in {self.workdir / 'waves'}. What is recorded there stands: once the cause is mended, delete it "
                "and give the same command again"
            )
        if share > workers.warn_ungraded:
            self.console.warn(f"{self.name}: {share:.0%} of the samples could not be {what}")

    # ------------------------------------------------------------------------------------------ judging
    def judged(self, examples: list[Example]) -> list[Example]:
        """The examples, and those that waited for the judge and that it calls correct.

        Raises:
          RuntimeError: more of the judge's answers can't be read than ``workers.stop_ungraded`` allows.
        """
        if not self.unjudged:
            return examples
        judging, where = self.settings.judging, f"{self.where}.judging"
        self.model.release()  # two models at once may be one too many
        layout = dataclasses.replace(self.settings.sampler, rows=judging.rows)
        model = ModelSource(self.name, self.inputs["judge"], layout, self.context, self.times)

        def ask(prompts: list[Prompt], repeats: int) -> list[GradedSample]:
            request = self._request(_JUDGED, len(prompts), repeats, judging, judging.max_tokens)
            return [s for wave in model.sample(self.workdir, prompts, request, self.pool) for s in wave]

        reasons = judge_by_model(self.unjudged, model.tokenizer, check_judging(judging, where), judging, ask)
        for example, reason in zip(self.unjudged, reasons):
            if reason is None:
                self.tally.right[example.domain] += 1
                examples.append(example)
            else:
                self.tally.reject(example.domain, reason)
        self._watch_grading(sum(reason in UNGRADED for reason in reasons) / len(reasons), "read by the judge")
        return examples

    # ------------------------------------------------------------------------------------------ rewriting
    def rewritten(self, examples: list[Example]) -> list[Example]:
        """The examples in R1's format, those of them that are still right and pass the filters in it."""
        settings = self.settings
        if not examples:
            return []
        if "rewriter" in self.inputs:
            texts = self._by_model(examples)
        else:
            texts = rewrite_by_template(examples, settings.summaries)
        filters = make_filters(settings.filters, "think", settings.filter_settings, self.where)
        kept = []
        for example, verdict, rejected in grade_again(self.workdir / "rewrites", examples, texts, self.pool, self._stop):
            row = {**example.row, "problem": example.problem, "prompt": "", "finish_reason": "stop"}
            if rejected is None and verdict is Verdict.NONE:
                rejected = UNVERIFIED if self.judge_function is None else self.judge_function(example.text, row)
            rejected = rejected or first_reason(filters, example.text, row)
            if rejected is None:
                kept.append(example)
            else:
                self.tally.reject(example.domain, rejected)
        return kept

    def _by_model(self, examples: Sequence[Example]) -> list[str | None]:
        settings, sampling = self.settings, self.settings.rewriter_sampling
        self.model.release()  # two models at once may be one too many
        layout = dataclasses.replace(settings.sampler, rows=sampling.rows)
        model = ModelSource(self.name, self.inputs["rewriter"], layout, self.context, self.times)
        cap = sampling.max_tokens or settings.max_tokens

        def ask(name: str, prompts: list[Prompt]) -> list[GradedSample]:
            model.check_lengths(prompts, cap, f"{self.where}.rewriter_sampling")
            request = self._request(_REWRITTEN[name], len(prompts), 1, sampling, cap)
            waves = model.sample(self.workdir, prompts, request, self.pool)
            return [sample for wave in waves for sample in wave]

        return rewrite_by_model(examples, model.tokenizer, ask)

    def _stop(self) -> None:
        if self.context.stop():
            raise StopRequested

    # ------------------------------------------------------------------------------------------ the data set
    def finish(self, examples: list[Example], general_share: float) -> Artefacts:
        """Refines the examples, mixes in general data, writes the data set and its card.

        Raises:
          ValueError: nothing is left.
        """
        self._stop()
        settings, tally = self.settings, self.tally
        examples = drop_contaminated(examples, self.known, tally)
        encoded = self._with_tokens(examples)
        for example in (example for example, own in zip(examples, encoded) if own is None):
            tally.reject(example.domain, END_TOKEN)
        examples = [example for example in encoded if example is not None]
        examples = drop_duplicates(examples, settings.deduplication, tally)
        examples = select(examples, settings.selection, settings.deduplication.ngram, self.seed, tally)
        if not examples:
            raise ValueError(
                f"{self.where}: nothing is left of {sum(tally.samples.values())} samples: {tally.told()}. The samples and "
                f"their verdicts are in {self.workdir / 'waves'}"
            )
        learnable = [example for example in self._with_tokens(self.general) if example is not None]
        general, counts = mix_general(examples, learnable, general_share, self.known, self.seed)
        counts |= {"read": len(self.general), END_TOKEN: len(self.general) - len(learnable)}
        if self.general and counts["taken"] < counts["wanted"]:
            self.console.warn(
                f"{self.name}: general_share {general_share} wants {counts['wanted']} rows of general data, there are "
                f"{counts['taken']}: they are {counts['taken'] / (len(examples) + counts['taken']):.1%} of the set"
            )
        rows = in_order([*examples, *general], self.seed)
        if "data.parquet" not in list(write_dataset(self.workdir, [row.to_row(settings.template) for row in rows])):
            self.console.warn(f"{self.name}: no data.parquet, for that pyarrow is needed: pip install pyarrow")
        origin = made_with(self.name, self.context, self.workdir, self.inputs["data"].path, self.benchmarks, self.settings)
        card = build_card(tally, rows, {**({"general": dict(counts)} if self.general else {}), **origin})
        records.write_atomic(self.workdir / "card.json", json.dumps(card, indent=1, ensure_ascii=False))
        records.write_atomic(self.workdir / "card.md", card_text(self.name, card))
        self.console.say(f"{self.name}: {card['rows']:,} rows of {card['samples']:,} samples; rejected: {tally.told()}")
        return Artefacts(data=str(self.workdir / "data.jsonl"), figures=_figures(card))

    def _with_tokens(self, examples: Sequence[Example]) -> list[Example | None]:
        """The examples with their lengths; None for those that hold a token which ends a sequence: nobody can learn them."""
        encoded: list[Example | None] = []
        for first in range(0, len(examples), _ENCODED_TOGETHER):
            some = examples[first : first + _ENCODED_TOGETHER]
            for example, ids in zip(some, self.tokenizer.encode_batch([example.text for example in some])):
                learnable = self.tokenizer.eos_ids.isdisjoint(ids)
                encoded.append(dataclasses.replace(example, tokens=len(ids)) if learnable else None)
        return encoded


def _figures(card: Mapping[str, Any]) -> dict[str, Any]:
    """What the tables of a run show."""
    figures = {
        key: card[key] for key in ("prompts", "sampled_prompts", "samples", "right", "rows", "sampled_rows", "general_rows")
    }
    figures["contaminated_prompts"] = sum(card["contaminated_prompts"].values())
    return figures | {"mean_tokens": card["tokens"]["mean"], "rejected": card["rejected"]}
