"""The loop of stages that learn from a fixed set of examples: supervised fine-tuning, reward models.

An update takes the next so many examples of an order that is reshuffled in each epoch. A checkpoint lies between two updates;
resuming is the last checkpoint, then the later updates again, from the same examples to the same bits. An update that begins in
one epoch and ends in the next is as large as any other, so that the last one may take a few examples once more.
"""

from __future__ import annotations

import contextlib
import json
import math
import time
import zlib
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from etils import epath

from r1jax import data
from r1jax.pipeline import records
from r1jax.pipeline.checkpoints import Checkpoints
from r1jax.pipeline.compiles import compile_counter
from r1jax.pipeline.stage import Context, StopRequested
from r1jax.pipeline.updates import record_update

Metrics = dict[str, float]
# (state, numbers of the examples) -> (state, metrics); the state is donated.
Update = Callable[[Any, Sequence[int]], tuple[Any, Metrics]]


class ExampleLoop:
    """One session of such a stage's updates.

    Args:
      name: of the stage.
      workdir: the stage's own folder.
      examples: how many there are.
      per_update: how many an update takes.
      epochs: how often each is taken, where ``steps`` is 0.
      steps: updates of the whole stage; 0: as many as ``epochs`` take.
      checkpoint_every: in updates; 0: at the end only.

    Attributes:
      steps: updates of the whole stage.
      step: updates done.
      state: the train state after them, once ``begin`` was called.
    """

    def __init__(
        self,
        name: str,
        workdir: epath.Path,
        context: Context,
        *,
        examples: int,
        per_update: int,
        epochs: int,
        steps: int,
        checkpoint_every: int,
    ):
        self._name, self._workdir, self._context, self._console = name, workdir, context, context.console
        self._timing = workdir.parent.parent / "timing" / name
        self._examples, self._per_update, self._checkpoint_every = examples, per_update, checkpoint_every
        self._order = data.PromptOrder(examples, zlib.crc32(f"{context.recipe.seed}/{name}".encode()) >> 1)
        self.steps = steps or math.ceil(epochs * examples / per_update)
        records.write_atomic(workdir / "plan.json", json.dumps({"steps": self.steps}))  # for the report
        self._checkpoints = Checkpoints(workdir / "checkpoints")
        self.step, self.state = 0, None

    def begin(self, fresh: Callable[[], Any], abstract: Callable[[], Any]) -> None:
        """Takes the state of the last checkpoint, or a fresh one where there is none.

        Args:
          fresh: makes the state before the first update.
          abstract: its shapes, dtypes and shardings, which restoring needs.
        """
        self.state = abstract() if self._checkpoints.found() else fresh()
        if (found := self._checkpoints.restore(self.state, self._console.warn)) is None:
            return
        self.state, progress = found
        self.step = progress["step"]
        self._order.restore(progress)
        self._console.say(f"{self._name}: goes on from step {self.step}")

    def run(
        self,
        update: Update,
        shown: Callable[[Metrics, Sequence[int], float], dict[str, Any]],
        *,
        warm_up: Callable[[], None] = lambda: None,
        after: Callable[[], None] = lambda: None,
    ) -> None:
        """Makes the updates that are left.

        Args:
          shown: what progress shows, from the metrics, the examples and the seconds of an update.
          warm_up: compiles what ``after`` will need, before the session's first update.
          after: what is done between an update and the checkpoint that may follow it: benchmarks.

        Raises:
          StopRequested: the run was asked to stop, and the state is saved.
        """
        warm = False
        while self.step < self.steps:
            if self._context.stop():
                self._stop()
            with contextlib.ExitStack() as stack:
                if not warm:
                    reason = f"{self._name}: the first update"
                    stack.enter_context(compile_counter().planned(reason, self._console.say))
                    warm_up()
                    warm = True
                self._update(update, shown, after)
        self._console.end_progress()

    def _update(self, update: Update, shown: Any, after: Callable[[], None]) -> None:
        """One update, from its examples to the checkpoint and what else may be due after it."""
        began, unplanned = time.monotonic(), compile_counter().unplanned
        self._console.progress(self._name, self.step, self.steps)
        taken = self._order.take(self._per_update)
        with self._console.phase("updating"):
            self.state, metrics = update(self.state, taken)
        epoch = (self.step + 1) * self._per_update / self._examples
        record_update(self._workdir, {"step": self.step, "epoch": epoch, **metrics})
        updated = time.monotonic()
        self.step += 1
        self._console.progress(self._name, self.step, self.steps, shown(metrics, taken, updated - began))
        after()  # before the checkpoint: what is stopped here is done again from an earlier one
        saving = time.monotonic()
        if self.step >= self.steps or (self._checkpoint_every and self.step % self._checkpoint_every == 0):
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
        records.write_atomic(self._timing / f"{self.step - 1:06d}.json", json.dumps(seconds))

    def last_metrics(self) -> Metrics:
        """Of the stage's last update, from its record."""
        return json.loads((self._workdir / "updates" / f"{self.steps - 1:06d}" / "metrics.json").read_text())

    def _stop(self) -> NoReturn:
        """Saves what a later session goes on from, and ends this one. Before the first update that is nothing."""
        if self.step:
            self._save()
        raise StopRequested

    def _save(self) -> None:
        with compile_counter().planned(f"{self._name}: checkpoints", self._console.say):
            self._checkpoints.save(self.step, self.state, {"step": self.step, **self._order.state()})
