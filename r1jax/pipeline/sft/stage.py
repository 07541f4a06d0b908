"""Supervised fine-tuning on completions: R1's cold start, its SFT, and the distillation of R1 by its text into students of any
architecture and tokenizer.

An update takes the next ``batch_sequences`` examples of an order that is reshuffled in each epoch, packs them into rows and
learns their completions. A checkpoint lies between two updates; resuming is the last checkpoint, then the later updates
again, from the same examples to the same bits. Held-out examples are measured before the checkpoint of the same step, so that no
measurement is missing where a later session goes on.

Departures from the paper, which leaves these open: an update that begins in one epoch and ends in the next is as large as any
other, so that the last one may take a few examples once more; a token counts as any other (``token_mean``).
"""

from __future__ import annotations

import contextlib
import json
import math
import time
import zlib
from collections.abc import Mapping
from typing import Any, NoReturn

import numpy as np
from etils import epath

from r1jax import checkpoint, config, data, sharding
from r1jax.data.examples import Example, load_examples, total_tokens
from r1jax.losses.weights import RULES
from r1jax.models import REMAT_POLICIES
from r1jax.models.precision import compute_dtype
from r1jax.pipeline import records
from r1jax.pipeline.checkpoints import Checkpoints
from r1jax.pipeline.compiles import compile_counter
from r1jax.pipeline.sft.held_out import HeldOut, shared
from r1jax.pipeline.sft.learning import Learner
from r1jax.pipeline.stage import Artefacts, Context, StopRequested
from r1jax.pipeline.tracking import Tracker
from r1jax.pipeline.updates import record_update
from r1jax.rewards import RewardPool
from r1jax.rollout import Sampler, SamplingStopped
from r1jax.training import make_optimizer


def check_settings(name: str, settings: config.SFTSettings) -> None:
    """Refuses numbers that can't be trained with, before anything is loaded.

    Raises:
      RecipeError: naming the key, its value and the remedy.
    """
    where = f"stages.{name}"
    for key in ("epochs", "batch_sequences", "max_tokens", "rows_per_microbatch"):
        if getattr(settings, key) < 1:
            raise config.RecipeError(f"{where}.{key} must be at least 1, not {getattr(settings, key)}")
    for key in ("steps", "row_tokens", "checkpoint_every", "evaluate_every", "mtp_coefficient"):
        if getattr(settings, key) < 0:
            raise config.RecipeError(f"{where}.{key} can't be negative, but is {getattr(settings, key)}; 0 leaves it out")
    for key, known in (("aggregation", RULES), ("remat", REMAT_POLICIES)):
        value = getattr(settings, key)
        if value not in known:
            raise config.RecipeError(f"{where}.{key} {value!r} is unknown{config.nearest(value, list(known))}")
    try:
        make_optimizer(settings.optimizer, max(settings.steps, 1))
        compute_dtype("cpu", settings.compute_dtype)
    except ValueError as error:
        raise config.RecipeError(f"{where}: {error}") from error


class SFTStage:
    """``kind: sft``. Inputs: ``model``, ``data``, a set of examples (``data.examples``), and optionally ``held_out``, another."""

    settings = config.SFTSettings

    def __init__(self, name: str, settings: config.SFTSettings):
        check_settings(name, settings)
        self.name, self._settings = name, settings

    def run(self, inputs: Mapping[str, Any], workdir: epath.Path, context: Context) -> Artefacts:
        """See ``pipeline.Stage``."""
        with contextlib.ExitStack() as stack:
            return _Run(self.name, self._settings, inputs, workdir, context, stack).to_the_end()


class _Run:
    """One session of an SFT stage. ``stack`` ends what it starts."""

    def __init__(self, name, settings: config.SFTSettings, inputs, workdir: epath.Path, context: Context, stack):
        self.name, self.settings, self.inputs = name, settings, inputs
        self.workdir, self.context, self.console = workdir, context, context.console
        self.timing = workdir.parent.parent / "timing" / name
        layout = context.layout
        dtype = compute_dtype(layout.platform, settings.compute_dtype)
        tokenizer = checkpoint.load_tokenizer(inputs["model"])
        if tokenizer is None:
            raise ValueError(f"{inputs['model']} has no tokenizer; examples can't be encoded")
        self.model_config = checkpoint.read_config(inputs["model"])
        self.examples, self.too_long = self._read_examples(inputs["data"], tokenizer)
        held_out = self._read_examples(inputs["held_out"], tokenizer)[0] if "held_out" in inputs else []
        if again := shared(self.examples, held_out):
            self.console.warn(
                f"{name}: {again:,} of {len(held_out):,} held-out examples of {inputs['held_out'].path} are learnt, too"
            )
        self.longest = self._check_lengths([*self.examples, *held_out])
        seed = zlib.crc32(f"{context.recipe.seed}/{name}".encode()) >> 1
        self.order = data.PromptOrder(len(self.examples), seed)
        taken = settings.epochs * len(self.examples)
        self.steps = settings.steps or math.ceil(taken / settings.batch_sequences)
        records.write_atomic(workdir / "plan.json", json.dumps({"steps": self.steps}))  # for the report
        self.row_tokens = settings.row_tokens or self.longest
        self.learner = Learner(self.model_config, layout, settings, self.steps, dtype)
        self.held_out = HeldOut(workdir, self.learner, held_out, self.row_tokens) if held_out else None
        self.tracker = self._make_tracker(tokenizer, dtype, stack) if settings.track else None
        self.checkpoints = Checkpoints(workdir / "checkpoints")
        self.state = self._first_state()
        self.step = 0

    def _first_state(self) -> Any:
        """The state before the first update; abstract where there is a checkpoint to be read instead."""
        if self.checkpoints.found():
            return self.learner.abstract_state()
        return self.learner.init_state(
            checkpoint.load_model(self.inputs["model"], self.context.layout.mesh, np.float32).params
        )

    def _read_examples(self, source: config.DataSource, tokenizer: data.Tokenizer) -> tuple[list[Example], int]:
        """``(examples, how many were too long)``."""
        with self.console.phase(f"{self.name}: reading examples"):
            examples, too_long = load_examples(source, tokenizer, self.settings.max_tokens)
        if too_long:
            self.console.warn(
                f"{too_long:,} of {len(examples) + too_long:,} examples of {source.path} exceed max_tokens "
                f"{self.settings.max_tokens} and are left out"
            )
        return examples, too_long

    def _check_lengths(self, examples: list[Example]) -> int:
        """Refuses what a row or the model can't hold; the length of the longest example."""
        settings, model, source = self.settings, self.model_config, self.inputs["data"]
        if len(self.examples) < settings.batch_sequences:
            self.console.warn(
                f"{self.name}: {source.path} has {len(self.examples)} examples, an update takes batch_sequences "
                f"{settings.batch_sequences}: some of them more than once"
            )
        longest = max(len(example.tokens) for example in examples)
        for what, room, remedy in (
            ("row_tokens", settings.row_tokens or longest, "raise it or lower max_tokens"),
            (
                "the model's max_position_embeddings",
                model.max_position_embeddings,
                "lower max_tokens, or raise it in the model's config.json if the model is to learn longer texts",
            ),
        ):
            if longest > room:
                raise config.RecipeError(
                    f"stages.{self.name}: the longest example has {longest} tokens, {what} is {room}; {remedy}"
                )
        highest = max(int(example.tokens.max()) for example in examples)
        if highest >= model.vocab_size:
            raise ValueError(
                f"{self.inputs['model']}: its tokenizer writes id {highest}, its embedding has {model.vocab_size} rows; the "
                "tokenizer is of another model"
            )
        return longest

    def _make_tracker(self, tokenizer: data.Tokenizer, dtype: Any, stack: contextlib.ExitStack) -> Tracker:
        parts = [part for name in self.settings.track for part in self.context.recipe.benchmarks[name].parts]
        pool = stack.enter_context(RewardPool(tuple(dict.fromkeys(["accuracy", *parts]))))
        sampler = Sampler(self.model_config, sharding.layout(self.context.layout.mesh, sharding.ROLLOUT_RULES), dtype=dtype)
        stop_ids = frozenset(tokenizer.eos_ids | set(self.model_config.eos_token_ids))
        run = self.workdir.parent.parent
        return Tracker(self.name, run, self.settings.track, sampler, tokenizer, stop_ids, pool, self.context)

    # ------------------------------------------------------------------------------------------ the loop
    def to_the_end(self) -> Artefacts:
        """Goes on from the last checkpoint until the last step, and leaves the model."""
        self._resume()
        warm = False
        while self.step < self.steps:
            if self.context.stop():
                self._stop()
            with contextlib.ExitStack() as stack:
                if not warm:
                    stack.enter_context(compile_counter().planned(f"{self.name}: the first update", self.console.say))
                    self._warm_up()
                    warm = True
                self._update()
        self.console.end_progress()
        model = self.workdir / "model"
        # The master weights as they are: rounded to the base's dtype, small updates would be gone.
        checkpoint.export_model(model, self.model_config, self.state.params, self.inputs["model"], np.float32)
        return Artefacts(model=str(model), steps=self.step, figures=self._figures())

    def _warm_up(self) -> None:
        """Compiles what is asked between updates; before the first one, measures what is held out."""
        if self.tracker is not None:
            self.tracker.warm_up(self.learner.rollout_params(self.state))
        if self.held_out is not None:
            self.held_out.warm_up(self.state.params)
            if self.step == 0:
                self._measure()

    def _measure(self) -> None:
        with self.console.phase("held-out loss"):
            found = self.held_out.measure(self.state.params, self.step)
        self.console.say(f"{self.name}: held-out cross-entropy {found:.4f} after {self.step:,} updates")

    def _update(self) -> None:
        """One update, from its examples to the checkpoint and the benchmarks that may be due after it."""
        began, unplanned, settings = time.monotonic(), compile_counter().unplanned, self.settings
        self.console.progress(self.name, self.step, self.steps)
        examples = [self.examples[i] for i in self.order.take(settings.batch_sequences)]
        with self.console.phase("updating"):
            self.state, metrics = self.learner.update(self.state, examples, self.row_tokens)
        epoch = (self.step + 1) * settings.batch_sequences / len(self.examples)
        record_update(self.workdir, {"step": self.step, "epoch": epoch, **metrics})
        updated = time.monotonic()
        self.step += 1
        shown = {"loss": metrics["cross_entropy"], "tok/s": round(sum(len(e.tokens) for e in examples) / (updated - began))}
        self.console.progress(self.name, self.step, self.steps, shown)
        # Both before the checkpoint: what is stopped here is done again from an earlier one.
        due = bool(settings.evaluate_every) and self.step % settings.evaluate_every == 0
        if self.held_out is not None and (due or self.step >= self.steps):
            self._measure()
        if self.tracker is not None and due:
            self._track()
        saving = time.monotonic()
        if self.step >= self.steps or (settings.checkpoint_every and self.step % settings.checkpoint_every == 0):
            self._save()
        ended = time.monotonic()
        seconds = {
            "steps": [self.step - 1],
            "update_s": updated - began,
            "evaluate_s": saving - updated,
            "checkpoint_s": ended - saving,
            "total_s": ended - began,
            "compiles": compile_counter().unplanned - unplanned,
        }
        records.write_atomic(self.timing / f"{self.step - 1:06d}.json", json.dumps(seconds))

    def _figures(self) -> dict[str, Any]:
        """What the stage learnt from, and how it ended."""
        tokens, learnt = total_tokens(self.examples)
        last = json.loads((self.workdir / "updates" / f"{self.steps - 1:06d}" / "metrics.json").read_text())
        held_out = {}
        if self.held_out is not None:
            held_out["held_out_cross_entropy"] = {"before": self.held_out.read(0), "after": self.held_out.read(self.steps)}
        return {
            "examples": len(self.examples),
            "too_long": self.too_long,
            "tokens": tokens,
            "learnt_tokens": learnt,
            "row_tokens": self.row_tokens,
            "cross_entropy": last["cross_entropy"],
            **held_out,
        }

    def _track(self) -> None:
        try:
            with self.console.phase("benchmarks"):
                self.tracker.evaluate(self.learner.rollout_params(self.state), self.step)
        except SamplingStopped:
            raise StopRequested from None

    # ------------------------------------------------------------------------------------------ stopping and resuming
    def _stop(self) -> NoReturn:
        """Saves what a later session goes on from, and ends this one."""
        self._save()
        raise StopRequested

    def _save(self) -> None:
        with compile_counter().planned(f"{self.name}: checkpoints", self.console.say):
            self.checkpoints.save(self.step, self.state, {"step": self.step, **self.order.state()})

    def _resume(self) -> None:
        if (found := self.checkpoints.restore(self.state, self.console.warn)) is None:
            return
        self.state, progress = found
        self.step = progress["step"]
        self.order.restore(progress)
        self.console.say(f"{self.name}: goes on from step {self.step}")
