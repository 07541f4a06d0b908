"""Training of a reward model: a language model whose head gives a score, from pairs or from labelled responses.

The first state has the base's weights and a new head, drawn from the run's seed. Measured on held-out data before the first
update, after the last and, if asked, between: the folders ``evaluations/held_out-...`` of the stage.

Departures from the paper, which leaves these open: the learning rate is constant, and nothing holds the scores near 0, since a
prompt's samples are compared with each other alone.
"""

from __future__ import annotations

import dataclasses
import json
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from etils import epath

from r1jax import checkpoint, config
from r1jax.data.preferences import Labelled, LeftOut, Pair, labelled_rows, load_labelled, load_pairs, pair_rows
from r1jax.data.summary import READS
from r1jax.models import REMAT_POLICIES, ModelConfig, init_scalar_head
from r1jax.models.precision import compute_dtype
from r1jax.pipeline import records
from r1jax.pipeline.compiles import compile_counter
from r1jax.pipeline.example_loop import ExampleLoop
from r1jax.pipeline.records import evaluation_folder
from r1jax.pipeline.reward_model.learning import Learner
from r1jax.pipeline.reward_model.measuring import Measure, write_measurement
from r1jax.pipeline.stage import Artefacts, Context
from r1jax.scoring.reward_model import FILE, OBJECTIVES, RewardCard
from r1jax.scoring.sequences import SequenceScorer
from r1jax.training import make_optimizer

Judged = Sequence[Pair] | Sequence[Labelled]
HELD_OUT = "held_out"
MEASURED = 512  # pairs or responses of the training data that are measured where there is no held-out data
_USUAL = {"pairwise": "final_summary", "pointwise": "whole_response"}


def check_settings(name: str, settings: config.RewardModelSettings) -> None:
    """Refuses what can't be trained with, before anything is loaded.

    Raises:
      RecipeError: naming the key, its value and the remedy.
    """
    where = f"stages.{name}"
    for key in ("epochs", "batch_examples", "max_tokens", "rows_per_microbatch"):
        if getattr(settings, key) < 1:
            raise config.RecipeError(f"{where}.{key} must be at least 1, not {getattr(settings, key)}")
    for key in ("steps", "row_tokens", "checkpoint_every", "evaluate_every"):
        if getattr(settings, key) < 0:
            raise config.RecipeError(f"{where}.{key} can't be negative, but is {getattr(settings, key)}; 0 leaves it out")
    for key, known in (("objective", OBJECTIVES), ("reads", ("", *READS)), ("remat", tuple(REMAT_POLICIES))):
        value = getattr(settings, key)
        if value not in known:
            raise config.RecipeError(f"{where}.{key} {value!r} is unknown{config.nearest(value, list(filter(None, known)))}")
    try:
        make_optimizer(settings.optimizer, max(settings.steps, 1))
        compute_dtype("cpu", settings.compute_dtype)
    except ValueError as error:
        raise config.RecipeError(f"{where}: {error}") from error


class RewardModelStage:
    """``kind: reward_model``. Inputs: ``model`` (a language model, or a reward model to go on from), ``data``, and optionally
    ``held_out``: pairs or labelled responses (``data.preferences``)."""

    settings = config.RewardModelSettings

    def __init__(self, name: str, settings: config.RewardModelSettings):
        check_settings(name, settings)
        self.name, self._settings = name, settings

    def run(self, inputs: Mapping[str, Any], workdir: epath.Path, context: Context) -> Artefacts:
        """See ``pipeline.Stage``."""
        return _Run(self.name, self._settings, inputs, workdir, context).to_the_end()


def reward_config(config: ModelConfig) -> ModelConfig:
    """The configuration of the reward model that a language model becomes: no vocabulary's head, nothing looks ahead."""
    return dataclasses.replace(config, num_labels=1, num_nextn_predict_layers=0)


def template_of(source: config.DataSource, objective: str) -> str:
    """The one template that all rows of a data set have: a reward model is later asked with it.

    Raises:
      RecipeError: they have several.
    """
    pairwise = objective == "pairwise"
    rows = (row.chosen for row in pair_rows(source)) if pairwise else (row.response for row in labelled_rows(source))
    found = sorted({"chat" if row.messages is not None else row.template for row in rows})
    if len(found) > 1:
        raise config.RecipeError(
            f"{source.path}: its rows have {len(found)} prompt templates ({', '.join(map(repr, found[:3]))}), and a reward model is "
            "asked with one; set the data set's override_template"
        )
    return found[0]


class _Run:
    """One session of a reward model's stage."""

    def __init__(self, name, settings: config.RewardModelSettings, inputs, workdir: epath.Path, context: Context):
        self.name, self.settings, self.inputs = name, settings, inputs
        self.workdir, self.context, self.console = workdir, context, context.console
        layout = context.layout
        dtype = compute_dtype(layout.platform, settings.compute_dtype)
        self.tokenizer = checkpoint.load_tokenizer(inputs["model"])
        if self.tokenizer is None:
            raise ValueError(f"{inputs['model']} has no tokenizer; rows can't be encoded")
        self.base_config = checkpoint.read_config(inputs["model"])
        self.model_config = reward_config(self.base_config)
        self.reads = settings.reads or _USUAL[settings.objective]
        with self.console.phase(f"{name}: reading {settings.objective} data"):
            self.template = template_of(inputs["data"], settings.objective)
            self.judged, self.left_out = self._read(inputs["data"])
            self.held_out, _ = self._read(inputs[HELD_OUT]) if HELD_OUT in inputs else (self.judged[:MEASURED], None)
        self._check()
        self.loop = ExampleLoop(
            name,
            workdir,
            context,
            examples=len(self.judged),
            per_update=settings.batch_examples,
            epochs=settings.epochs,
            steps=settings.steps,
            checkpoint_every=settings.checkpoint_every,
        )
        self.row_tokens = settings.row_tokens or self.longest_row
        self.learner = Learner(self.model_config, layout, settings, self.loop.steps, dtype)
        longest = max(len(sequence.tokens) for each in self.held_out for sequence in each.sequences)
        scorer = SequenceScorer(
            self.model_config, layout, longest=longest, rows=settings.rows_per_microbatch, compute_dtype=dtype
        )
        self.measure = Measure(self.held_out, scorer)

    # ------------------------------------------------------------------------------------------ data
    def _read(self, source: config.DataSource) -> tuple[Judged, LeftOut]:
        load = load_pairs if self.settings.objective == "pairwise" else load_labelled
        judged, left_out = load(source, self.tokenizer, self.settings.max_tokens, self.reads)
        for count, why in (
            (left_out.too_long, f"exceed max_tokens {self.settings.max_tokens}"),
            (left_out.no_summary, "have a thought that no summary follows"),
        ):
            if count:
                total = len(judged) + left_out.too_long + left_out.no_summary
                self.console.warn(f"{count:,} of {total:,} rows of {source.path} {why} and are left out")
        return judged, left_out

    def _check(self) -> None:
        settings, model, where = self.settings, self.model_config, f"stages.{self.name}"
        if len(self.judged) < settings.batch_examples:
            self.console.warn(
                f"{self.name}: {self.inputs['data'].path} has {len(self.judged)} rows, an update takes batch_examples "
                f"{settings.batch_examples}: some of them more than once"
            )
        self.longest_row = max(sum(len(s.tokens) for s in each.sequences) for each in self.judged)
        sequences = [s for part in (self.judged, self.held_out) for each in part for s in each.sequences]
        longest = max(len(s.tokens) for s in sequences)
        if settings.row_tokens and self.longest_row > settings.row_tokens:
            what = "pair, which lies in one row," if settings.objective == "pairwise" else "response"
            raise config.RecipeError(
                f"{where}: the longest {what} has {self.longest_row} tokens, row_tokens is {settings.row_tokens}; raise it or lower "
                "max_tokens"
            )
        if longest > model.max_position_embeddings:
            raise config.RecipeError(
                f"{where}: the longest sequence has {longest} tokens, the model's max_position_embeddings is "
                f"{model.max_position_embeddings}; lower max_tokens"
            )
        highest = max(int(s.tokens.max()) for s in sequences)
        if highest >= model.vocab_size:
            raise ValueError(
                f"{self.inputs['model']}: its tokenizer writes id {highest}, its embedding has {model.vocab_size} rows; the "
                "tokenizer is of another model"
            )

    # ------------------------------------------------------------------------------------------ the loop
    def to_the_end(self) -> Artefacts:
        """Goes on from the last checkpoint until the last step, and leaves the model and its card."""
        self.loop.begin(self._first_state, self.learner.abstract_state)
        if self.loop.step == 0:
            self._measure("before")
        self.loop.run(self._update, self._shown, after=self._measure_when_due)
        figures = self._measure("after")
        model = self.workdir / "model"
        # The master weights as they are: rounded to the base's dtype, small updates would be gone.
        checkpoint.export_model(model, self.model_config, self.loop.state.params, self.inputs["model"], np.float32)
        card = RewardCard(self.settings.objective, self.reads, self.template, figures["lowest"])
        records.write_atomic(model / FILE, card.to_json())
        return Artefacts(model=str(model), steps=self.loop.step, figures=self._figures(figures))

    def _first_state(self) -> Any:
        layout = self.context.layout
        params = dict(checkpoint.load_model(self.inputs["model"], layout.mesh, np.float32, prediction=False).params)
        if not self.base_config.num_labels:
            params.pop("head", None)
            seed = zlib.crc32(f"{self.context.recipe.seed}/{self.name}/head".encode()) >> 1
            params |= init_scalar_head(self.model_config, jax.random.key(seed), layout)
        return self.learner.init_state(params)

    def _update(self, state: Any, taken: Sequence[int]) -> tuple[Any, dict[str, float]]:
        return self.learner.update(state, [self.judged[i] for i in taken], self.row_tokens)

    def _shown(self, metrics: Mapping[str, float], taken: Sequence[int], seconds: float) -> dict[str, Any]:
        tokens = sum(len(s.tokens) for i in taken for s in self.judged[i].sequences)
        accuracy = metrics.get("pair_accuracy", metrics.get("label_accuracy"))
        return {"loss": metrics["loss"], "accuracy": accuracy, "tok/s": round(tokens / seconds)}

    def _measure_when_due(self) -> None:
        every = self.settings.evaluate_every
        if every and self.loop.step % every == 0 and self.loop.step < self.loop.steps:
            self._measure(f"{self.loop.step:06d}")

    def _measure(self, when: str) -> dict[str, Any]:
        """The figures at this moment; those of an earlier session stand."""
        folder = evaluation_folder(self.workdir.parent.parent, self.name, HELD_OUT, when)
        if not records.committed(folder):
            with self.console.phase("measuring"), compile_counter().planned(f"{self.name}: scores of held-out data"):
                scores = self.measure.scores(self.loop.state.params)
            moment = {"when": when} if when in ("before", "after") else {"step": self.loop.step}
            told = {"benchmark": HELD_OUT, **moment, **self.measure.figures(scores)}
            write_measurement(folder, told, scores)
        return json.loads((folder / "figures.json").read_text())

    def _figures(self, measured: Mapping[str, Any]) -> dict[str, Any]:
        """What the stage learnt from, and how it ended."""
        sequences = [s for each in self.judged for s in each.sequences]
        return {
            "objective": self.settings.objective,
            "reads": self.reads,
            "examples": len(self.judged),
            "too_long": self.left_out.too_long,
            "no_summary": self.left_out.no_summary,
            "tokens": sum(len(s.tokens) for s in sequences),
            "row_tokens": self.row_tokens,
            "loss": self.loop.last_metrics()["loss"],
            "measured_on": HELD_OUT if HELD_OUT in self.inputs else "data",
            **{
                key: measured[key]
                for key in ("accuracy", "calibration_error", "margin", "length_pearson", "length_spearman")
            },
        }
