"""Supervised fine-tuning on completions: R1's cold start, its SFT, and the distillation of R1 by its text into students of any
architecture and tokenizer.

An update packs its examples into rows and learns their completions; ``pipeline.example_loop`` says which come when. Held-out
examples are measured before the checkpoint of the same step, so that no measurement is missing where a later session goes on.

Departures from the paper, which leaves these open: an update that begins in one epoch and ends in the next is as large as any
other, so that the last one may take a few examples once more; a token counts as any other (``token_mean``).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from r1jax import checkpoint, config, data, sharding
from r1jax.data.examples import Example, load_examples, total_tokens
from r1jax.losses.weights import RULES
from r1jax.models import REMAT_POLICIES
from r1jax.models.precision import compute_dtype
from r1jax.pipeline.example_loop import ExampleLoop
from r1jax.pipeline.sft.held_out import HeldOut, shared
from r1jax.pipeline.sft.learning import Learner
from r1jax.pipeline.stage import Artefacts, Context, StopRequested
from r1jax.pipeline.tracking import Tracker
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


@contextlib.contextmanager
def _stopping() -> Iterator[None]:
    """A sampler that was asked to stop ends the session."""
    try:
        yield
    except SamplingStopped:
        raise StopRequested from None


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
        self.loop = ExampleLoop(
            name,
            workdir,
            context,
            examples=len(self.examples),
            per_update=settings.batch_sequences,
            epochs=settings.epochs,
            steps=settings.steps,
            checkpoint_every=settings.checkpoint_every,
        )
        self.row_tokens = settings.row_tokens or self.longest
        self.learner = Learner(self.model_config, layout, settings, self.loop.steps, dtype)
        self.held_out = HeldOut(workdir, self.learner, held_out, self.row_tokens) if held_out else None
        self.tracker = self._make_tracker(tokenizer, dtype, stack) if settings.track else None

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
        self.loop.begin(self._first_state, self.learner.abstract_state)
        self.loop.run(self._update, self._shown, warm_up=self._warm_up, after=self._after_update)
        model = self.workdir / "model"
        # The master weights as they are: rounded to the base's dtype, small updates would be gone.
        checkpoint.export_model(model, self.model_config, self.loop.state.params, self.inputs["model"], np.float32)
        return Artefacts(model=str(model), steps=self.loop.step, figures=self._figures())

    def _first_state(self) -> Any:
        return self.learner.init_state(
            checkpoint.load_model(self.inputs["model"], self.context.layout.mesh, np.float32).params
        )

    def _update(self, state: Any, taken: Sequence[int]) -> tuple[Any, dict[str, float]]:
        return self.learner.update(state, [self.examples[i] for i in taken], self.row_tokens)

    def _shown(self, metrics: Mapping[str, float], taken: Sequence[int], seconds: float) -> dict[str, Any]:
        tokens = sum(len(self.examples[i].tokens) for i in taken)
        return {"loss": metrics["cross_entropy"], "tok/s": round(tokens / seconds)}

    def _warm_up(self) -> None:
        """Compiles what is asked between updates; before the first one, measures what is held out."""
        if self.tracker is not None:
            with _stopping():  # nothing has been learnt since this session began
                self.tracker.warm_up(self.learner.rollout_params(self.loop.state))
        if self.held_out is not None:
            self.held_out.warm_up(self.loop.state.params)
            if self.loop.step == 0:
                self._measure()

    def _after_update(self) -> None:
        every = self.settings.evaluate_every
        due = bool(every) and self.loop.step % every == 0
        if self.held_out is not None and (due or self.loop.step >= self.loop.steps):
            self._measure()
        if self.tracker is not None and due:
            self._track()

    def _measure(self) -> None:
        with self.console.phase("held-out loss"):
            found = self.held_out.measure(self.loop.state.params, self.loop.step)
        self.console.say(f"{self.name}: held-out cross-entropy {found:.4f} after {self.loop.step:,} updates")

    def _track(self) -> None:
        with _stopping(), self.console.phase("benchmarks"):
            self.tracker.evaluate(self.learner.rollout_params(self.loop.state), self.loop.step)

    def _figures(self) -> dict[str, Any]:
        """What the stage learnt from, and how it ended."""
        tokens, learnt = total_tokens(self.examples)
        held_out = {}
        if self.held_out is not None:
            ends = {"before": self.held_out.read(0), "after": self.held_out.read(self.loop.steps)}
            held_out["held_out_cross_entropy"] = ends
        return {
            "examples": len(self.examples),
            "too_long": self.too_long,
            "tokens": tokens,
            "learnt_tokens": learnt,
            "row_tokens": self.row_tokens,
            "cross_entropy": self.loop.last_metrics()["cross_entropy"],
            **held_out,
        }
