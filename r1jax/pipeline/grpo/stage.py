"""The stage that R1 is about: GRPO from rule rewards.

A rollout is collected (sampled, graded, recorded), its advantages are computed, it is split at random into minibatches, and
each of them is one optimizer update. Checkpoints lie between two rollouts; resuming is the last checkpoint, then the later
updates again from the recorded waves.

Departures from the paper, which leaves these open: the reference is refreshed between two rollouts, at the first one that
begins at or after a multiple of ``reference_every``.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import time
import zlib
from collections.abc import Iterable, Mapping
from typing import Any, NoReturn

import numpy as np
from etils import epath

from r1jax import checkpoint, config, sharding
from r1jax.evaluation.grading import GradedSample
from r1jax.models.precision import compute_dtype
from r1jax.pipeline import records
from r1jax.pipeline.checkpoints import Checkpoints
from r1jax.pipeline.checks import check_judge_model, check_reward_model
from r1jax.pipeline.collection import Collector, Rollout, WaveRequest
from r1jax.pipeline.compiles import compile_counter
from r1jax.pipeline.grpo.checks import check_settings, length_cap, reward_weights, type_of
from r1jax.pipeline.grpo.grading import GradingWatch
from r1jax.pipeline.grpo.hacking import WATCHED_PARTS, HackingWatch, monitored
from r1jax.pipeline.grpo.learning import Learner
from r1jax.pipeline.grpo.metrics import rollout_metrics
from r1jax.pipeline.grpo.model_rewards import REWARD_MODELS, ModelRewards, load_model_rewards, rule_parts
from r1jax.pipeline.grpo.objective import rollout_advantages
from r1jax.pipeline.grpo.prompts import PromptMix, check_prompts, check_rows, read_prompts, weighed_problems
from r1jax.pipeline.grpo.views import write_view
from r1jax.pipeline.stage import Artefacts, Context, StopRequested
from r1jax.pipeline.tracking import Tracker
from r1jax.pipeline.updates import record_update
from r1jax.rewards import RewardPool
from r1jax.rewards.mixing import mix_by_type, part_names, weights_of_type
from r1jax.rewards.parts import PartSettings
from r1jax.rollout import Sampler, SamplingStopped

# Mean difference of the sampler's log-probabilities from the trainer's, by compute dtype, above which an update warns:
# float32 on CPU stays under 1e-6 on the tiny model; bfloat16 alone gives 1.5e-2 on a model of four layers.
SAMPLER_TRAINER_BOUNDS = {"float32": 1e-4, "bfloat16": 5e-2}


class GRPOStage:
    """``kind: grpo``. Inputs: ``model``, ``data``, and optionally ``reference`` (default: the model), ``general``, prompts that join
    late, and the models that reward: ``helpfulness``, ``safety``, ``judge``."""

    settings = config.GRPOSettings

    def __init__(self, name: str, settings: config.GRPOSettings):
        check_settings(name, settings)
        self.name, self._settings = name, settings

    def check(self, inputs: Mapping[str, Any]) -> None:
        """See ``pipeline.Stage``.

        Raises:
          ValueError: a model without a tokenizer, prompts of which none fits, rows whose reward can't be given, a reward model
            that can't give it.
        """
        sources = [inputs[name] for name in ("data", "general") if name in inputs]
        for source in sources:
            self._check_rows(source)
        if "judge" in inputs:
            check_judge_model(f"stages.{self.name}.judging", inputs["judge"], self._settings.judging)
        for name in REWARD_MODELS:
            if name in inputs:
                problems = weighed_problems(sources, self._type, reward_weights(self._settings), name)
                check_reward_model(f"stages.{self.name}.{name}", inputs[name], problems)
        if "model" not in inputs:
            return
        tokenizer = checkpoint.load_tokenizer(inputs["model"])
        if tokenizer is None:
            raise ValueError(f"{inputs['model']} has no tokenizer; a prompt set can't be encoded")
        for source in sources:
            check_prompts(source, tokenizer, self._settings.max_prompt_tokens)

    def _check_rows(self, source: config.DataSource) -> None:
        check_rows(source, self._type, reward_weights(self._settings))

    def _type(self, row: Mapping[str, Any]) -> str:
        return type_of(row, self._settings)

    def run(self, inputs: Mapping[str, Any], workdir: epath.Path, context: Context) -> Artefacts:
        """See ``pipeline.Stage``."""
        workers = self._settings.workers
        told = PartSettings(**vars(self._settings.reward_settings))
        tracked = [context.recipe.benchmarks[name].parts for name in self._settings.track]
        asked = [*rule_parts(part_names({}, reward_weights(self._settings))), *(part for ps in tracked for part in ps)]
        if any(name in inputs for name in config.MODEL_REWARDS.values()):
            asked += WATCHED_PARTS
        parts = tuple(dict.fromkeys(asked))
        pool = RewardPool(parts, workers=workers.count, timeout=workers.timeout, settings=told)
        with pool:
            return self.session(inputs, workdir, context, pool).to_the_end()

    def session(self, inputs: Mapping[str, Any], workdir: epath.Path, context: Context, pool: RewardPool) -> GRPORun:
        """What takes the stage to its end."""
        return GRPORun(self.name, self._settings, inputs, workdir, context, pool)


class GRPORun:
    """One session of a GRPO stage. On-policy distillation is another ``make_learner`` and ``judge``.

    Attributes:
      progress: what the progress line shows: name there -> metric.
    """

    progress: Mapping[str, str] = {"reward": "reward_mean", "length": "response_length_mean"}

    def __init__(self, name, settings: config.GRPOSettings, inputs, workdir: epath.Path, context: Context, pool: RewardPool):
        self.name, self.settings, self.inputs = name, settings, inputs
        self.workdir, self.context, self.console = workdir, context, context.console
        self.timing = workdir.parent.parent / "timing" / name
        self.seed = zlib.crc32(f"{context.recipe.seed}/{name}".encode()) >> 1
        layout = context.layout
        self.dtype = dtype = compute_dtype(layout.platform, settings.compute_dtype)
        model = checkpoint.load_model(inputs["model"], layout.mesh, np.float32)
        if model.tokenizer is None:
            raise ValueError(f"{inputs['model']} has no tokenizer; a prompt set can't be encoded")
        self.model_config, self.tokenizer = model.config, model.tokenizer
        tokenizer = model.tokenizer
        self.stop_ids = frozenset(tokenizer.eos_ids | set(model.config.eos_token_ids))
        sets = [
            read_prompts(inputs[name], tokenizer, settings.max_prompt_tokens, self.console.warn) if name in inputs else []
            for name in ("data", "general")
        ]
        self.mix = PromptMix(*sets, settings.general_share, self.seed)
        self.prompts = self.mix.prompts
        self.longest_prompt = max(len(p.tokens) for p in self.prompts)
        self._check_lengths()
        self.weights = reward_weights(settings)
        for type_ in {self._type(prompt.row) for prompt in self.prompts}:
            weights_of_type(type_, self.weights)
        self.learner = self.make_learner(dtype)
        # One bucket holds every prompt, so that no rollout compiles for its own longest one.
        slots = dataclasses.replace(settings.sampler, prompt_bucket=max(settings.sampler.prompt_bucket, self.longest_prompt))
        decode = sharding.layout(layout.mesh, sharding.ROLLOUT_RULES)
        self.sampler = Sampler(model.config, decode, slots, dtype, record_routes=True)
        self.tracker = Tracker(
            name, workdir.parent.parent, settings.track, self.sampler, tokenizer, self.stop_ids, pool, context
        )
        self.model_rewards = self._model_rewards()
        self.collector = Collector(
            workdir, self.prompts, self.mix.take, self.sampler, pool, tokenizer, context.stop, self.model_rewards
        )
        self.checkpoints = Checkpoints(workdir / "checkpoints")
        self.state = self._first_state(model.params)
        self.step = self.rollout = self.next_index = 0
        self.refreshed = 0  # refreshes of the reference so far
        self.watch = HackingWatch(workdir, settings.hacking, self.console.warn)
        models = {part: inputs[name] for part, name in config.MODEL_REWARDS.items() if name in inputs}
        self.grading = GradingWatch(workdir / "waves", settings.workers, models, self.weights, self.console.warn)
        self.warm_cap = 0  # the length cap that programs are compiled for

    def make_learner(self, dtype: Any) -> Learner:
        """Who learns from rollouts, computing in ``dtype``."""
        return Learner(self.model_config, self.context.layout, self.settings, dtype)

    def _type(self, row: Mapping[str, Any]) -> str:
        return type_of(row, self.settings)

    def _types(self, samples: Iterable[GradedSample]) -> list[str]:
        return [self._type(self.prompts[sample.row].row) for sample in samples]

    def _check_lengths(self) -> None:
        """Refuses caps that a later step could not keep: of the model's positions, of a packed row."""
        settings = self.settings
        longest = self.longest_prompt + max([settings.max_tokens, *settings.max_tokens_at.values()])
        for name, room in (
            ("the model's max_position_embeddings", self.model_config.max_position_embeddings),
            ("row_tokens", settings.row_tokens or longest),
        ):
            if longest > room:
                raise config.RecipeError(
                    f"stages.{self.name}: the longest prompt ({self.longest_prompt}) and the highest cap need {longest} tokens, "
                    f"{name} is {room}; lower max_tokens or raise row_tokens"
                )

    def _first_state(self, params: Any) -> Any:
        """The state before the first update; abstract where there is a checkpoint to be read instead."""
        if self.checkpoints.found():
            return self.learner.abstract_state()
        reference = None
        if "reference" in self.inputs and self.learner.needs_reference:
            reference = checkpoint.load_model(self.inputs["reference"], self.context.layout.mesh, np.float32).params
        return self.learner.init_state(params, reference)

    def _model_rewards(self) -> ModelRewards | None:
        """The rewards that models give; None where the recipe names no such model."""
        parts = load_model_rewards(self.inputs, self.settings, self.weights, self.context, seed=self.seed, dtype=self.dtype)
        return ModelRewards(parts, self._type, self.weights) if parts else None

    # ------------------------------------------------------------------------------------------ the loop
    def to_the_end(self) -> Artefacts:
        """Goes on from the last checkpoint until the last step, and leaves the model."""
        self._resume()
        while self.step < self.settings.steps and not self.watch.stops:
            if self.context.stop():
                self._stop()
            cap = length_cap(self.settings, self.step)
            with contextlib.ExitStack() as stack:
                if cap != self.warm_cap:
                    reason = f"{self.name}: completions of up to {cap} tokens"
                    stack.enter_context(compile_counter().planned(reason, self.console.say))
                    self._warm_up(cap)
                self._rollout_and_updates(cap)
        self.console.end_progress()
        model = self.workdir / "model"
        # The master weights as they are: rounded to the base's dtype, small updates would be gone.
        checkpoint.export_model(model, self.model_config, self.state.params, self.inputs["model"], np.float32)
        return Artefacts(model=str(model), steps=self.step, figures=self._figures())

    def _figures(self) -> dict[str, Any]:
        """What the stage's record says besides."""
        if not self.watch.stops or self.step >= self.settings.steps:
            return {}
        self.console.warn(
            f"{self.name}: stopped after {self.step} updates, {self.settings.hacking.stop_after} rollouts with alarms"
        )
        return {"stopped_early": "; ".join(self.watch.reasons)}

    def _rollout_and_updates(self, cap: int) -> None:
        """One rollout, from its sampling to the checkpoint and the benchmarks that may be due after it."""
        began, unplanned = time.monotonic(), compile_counter().unplanned
        first_step, settings = self.step, self.settings
        self.console.progress(self.name, self.step, settings.steps)
        self._refresh_reference()
        if self.mix.general_index is None and self.step >= settings.general_from:
            self.mix.general_index = self.next_index
        collected = self._collect(cap)
        if self.context.stop():  # its waves are recorded; its updates may take long, and compile first
            self._stop()
        seconds = self._learn(collected, cap)
        self.rollout, self.next_index = self.rollout + 1, self.next_index + collected.prompts_used
        evaluating = time.monotonic()
        if _passed(settings.evaluate_every, first_step, self.step):
            self._track()  # before the checkpoint: what is stopped here is done again from an earlier one
        saving = time.monotonic()
        if self.step >= settings.steps or _passed(settings.checkpoint_every, first_step, self.step):
            self._save()
        seconds |= vars(collected.timing) | {
            "rollout": self.rollout - 1,
            "steps": list(range(first_step, self.step)),
            "checkpoint_s": time.monotonic() - saving,
            "evaluate_s": saving - evaluating,
            "total_s": time.monotonic() - began,
            "compiles": compile_counter().unplanned - unplanned,
        }
        file = self.timing / f"{self.rollout - 1:05d}.json"
        if collected.timing.tokens or not file.exists():  # else replayed: the file says how long sampling it took
            records.write_atomic(file, json.dumps(seconds))

    def _refresh_reference(self) -> None:
        every = self.settings.reference_every
        if self.learner.needs_reference and every and self.step // every > self.refreshed:
            self.state = self.learner.refresh_reference(self.state)
            self.refreshed = self.step // every

    def _request(self, cap: int) -> WaveRequest:
        settings = self.settings
        return WaveRequest(
            rollout=self.rollout,
            prompts=settings.prompts_per_rollout,
            prompts_per_wave=settings.prompts_per_wave or settings.prompts_per_rollout,
            samples=settings.samples_per_prompt,
            seed=self.seed,
            max_tokens=cap,
            stop_ids=self.stop_ids,
            temperature=settings.temperature,
            again=settings.dynamic_sampling,
        )

    def _warm_up(self, cap: int) -> None:
        """Compiles every program of the sampler under this cap; the steps compile in the first update that follows."""
        params = self.learner.rollout_params(self.state)
        try:
            if not self.warm_cap:
                self.tracker.warm_up(params)
                if self.model_rewards is not None:
                    self.model_rewards.warm_up(self.context.stop)
            self.sampler.warm_up(params, self._request(cap).wave(self.prompts[:1], 0), self.context.stop)
        except SamplingStopped:
            self._stop()
        self.warm_cap = cap

    def _collect(self, cap: int) -> Rollout:
        request, settings = self._request(cap), self.settings
        sequences, started = settings.prompts_per_rollout * settings.samples_per_prompt, time.monotonic()

        def show(done: int, tokens: int) -> None:
            speed = {"tok/s": round(tokens / (time.monotonic() - started))} if tokens else {}
            self.console.progress(self.name, self.step, settings.steps, speed, f"{done:,}/{max(done, sequences):,}")

        try:
            with self.console.phase("sampling"):
                return self.collector.collect(self.learner.rollout_params(self.state), request, self.next_index, show)
        except SamplingStopped:
            self._stop()

    def judge(self, collected: Rollout) -> tuple[dict[str, float], np.ndarray, np.ndarray]:
        """``(figures, advantages float32 [P, samples], included bool [P * samples])`` of a rollout.

        Raises:
          RuntimeError: too many of its samples could not be graded.
        """
        settings = self.settings
        sampled = collected.all_samples
        rewards, graded = mix_by_type([s.record for s in sampled], self._types(sampled), self.weights)
        self.grading.look(self.rollout, sampled, self._types(sampled), graded)
        figures = rollout_metrics(sampled, [p.row for p in self.prompts], rewards, graded) | monitored(sampled)
        advantages, graded = rollout_advantages(
            [s.record for s in collected.samples],
            self._types(collected.samples),
            self.weights,
            settings.samples_per_prompt,
            settings.advantages,
        )
        included = graded.reshape(-1)
        if settings.overlong_filtering:
            included = included & np.array([s.sequence.finish_reason != "length" for s in collected.samples])
        figures["zero_advantage_groups"] = float(np.mean(~advantages.any(1)))
        return figures, advantages, included

    def _learn(self, collected: Rollout, cap: int) -> dict[str, float]:
        """Makes the updates of a rollout and records each; returns where the time went."""
        settings = self.settings
        figures, advantages, included = self.judge(collected)
        figures |= self.watch.look(self.rollout, figures)
        shown_of = self.workdir, self.rollout, self.step, collected.groups, self.prompts
        write_view(
            *shown_of,
            lambda row: self.weights[self._type(row)],
            advantages,
            included.reshape(advantages.shape),
            self.tokenizer,
        )
        seconds: dict[str, float] = {}
        updates = self.learner.learn(
            self.state,
            [s.sequence for s in collected.samples],
            advantages.reshape(-1),
            included,
            max_tokens=cap,
            row_tokens=settings.row_tokens or self.longest_prompt + cap,
            rng=np.random.default_rng([self.seed, self.rollout]),
            seconds=seconds,
        )
        per_rollout = settings.minibatches * settings.epochs
        with self.console.phase("updating"):
            for self.state, metrics in updates:
                self._watch_sampler(metrics)
                record_update(self.workdir, {"step": self.step, "rollout": self.rollout, **figures, **metrics})
                self.step += 1
                shown = {name: (figures | metrics)[metric] for name, metric in self.progress.items()}
                self.console.progress(self.name, self.step, settings.steps, shown)
                if self.step >= settings.steps:
                    break
                if self.step % per_rollout and self.context.stop():
                    self._stop_between_updates()
        return seconds

    def _watch_sampler(self, metrics: Mapping[str, float]) -> None:
        difference, bound = metrics["sampler_trainer_mean"], SAMPLER_TRAINER_BOUNDS[self.dtype.name]
        if difference > bound:
            self.console.warn(
                f"update {self.step}: the sampler's log-probabilities differ from the trainer's by {difference:.1e} in the mean, "
                f"over {bound:.0e} for {self.dtype.name}"
            )

    def _track(self) -> None:
        try:
            with self.console.phase("benchmarks"):
                self.tracker.evaluate(self.learner.rollout_params(self.state), self.step)
        except SamplingStopped:
            raise StopRequested from None

    # ------------------------------------------------------------------------------------------ stopping and resuming
    def _stop(self) -> NoReturn:
        """Saves what a later session goes on from, and ends this one. Between rollouts, or while one is sampled.

        Before the first update that is nothing: the state is the model's, and finished waves are recorded.
        """
        if self.step:
            self._save()
        raise StopRequested

    def _stop_between_updates(self) -> NoReturn:
        """Ends the session within a rollout's updates, without a checkpoint: the policy that its old log-probabilities are
        of is gone, so only the way from an earlier one, over recorded waves, leads here bit for bit."""
        found = self.checkpoints.found()
        since = f"the checkpoint of step {int(found[-1].name)}" if found else "the start"
        self.console.say(
            f"{self.name}: stopped between two updates of rollout {self.rollout}; nothing is sampled again, the updates from "
            f"{since} to step {self.step} are made again"
        )
        raise StopRequested

    def _save(self) -> None:
        progress = {
            "step": self.step,
            "rollout": self.rollout,
            "next_index": self.next_index,
            "refreshed": self.refreshed,
            "general_index": self.mix.general_index,
        }
        with compile_counter().planned(f"{self.name}: checkpoints", self.console.say):
            self.checkpoints.save(self.step, self.state, progress)

    def _resume(self) -> None:
        if (found := self.checkpoints.restore(self.state, self.console.warn)) is None:
            return
        self.state, progress = found
        self.step, self.rollout = progress["step"], progress["rollout"]
        self.next_index, self.refreshed = progress["next_index"], progress["refreshed"]
        self.mix.general_index = progress.get("general_index")
        self.watch.restore(self.rollout)
        self.console.say(f"{self.name}: goes on from step {self.step}")


def _passed(every: int, before: int, now: int) -> bool:
    """Whether a multiple of ``every`` lies in ``(before, now]``; never for 0."""
    return bool(every) and now // every > before // every
