"""A stage: one step of a recipe's graph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol


@dataclass(frozen=True)
class Artefacts:
    """What a stage leaves for later stages and for the reader.

    Attributes:
      model: path of the model that it made, or None.
      data: path of the data set that it made, or None.
      steps: optimizer updates done.
      figures: plain numbers and strings for the tables.
    """

    model: str | None = None
    data: str | None = None
    steps: int = 0
    figures: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Context:
    """What the runner gives every stage.

    Attributes:
      recipe: the whole resolved ``config.Recipe``.
      layout: ``sharding.Layout``, the mesh and its rules.
      stop: ``stop() -> bool``; true once the run was asked to stop. Same answer on every host.
      console: ``reporting.Console``, where progress is drawn.
    """

    recipe: Any
    layout: Any
    stop: Any
    console: Any


class StopRequested(Exception):
    """Raised by a stage that saved its state because it was asked to stop; the process exits with 75."""


class Stage(Protocol):
    """A kind of stage. ``settings`` is the dataclass that its recipe keys are read into."""

    settings: type

    def __init__(self, name: str, settings: Any): ...

    # Optional: ``check(inputs)`` refuses inputs that can't be worked with, in little time. It is called before the first stage
    # with those inputs that the recipe names itself, and before the stage's own benchmarks with all of them.

    def run(self, inputs: Mapping[str, Any], workdir: Any, context: Context) -> Artefacts:
        """Runs to the end, or resumes.

        Args:
          inputs: the stage's declared inputs by name (``model``, ``data``, ``reference`` ...), resolved to paths
            of models and to ``config.DataSource``.
          workdir: ``etils.epath.Path``, this stage's own folder. What it holds without a commit record did not happen.
          context: see ``Context``.

        Raises:
          StopRequested: the state was saved; the same command goes on from it.
        """
        ...
