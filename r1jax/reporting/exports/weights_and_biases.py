"""Weights & Biases: one run there per work directory, a step axis per stage."""

from __future__ import annotations

import json
import os
import uuid

from r1jax.reporting import files
from r1jax.reporting.exports.follow import Event


class WeightsAndBiases:
    """Sends figures to a W&B run that belongs to the work directory. ``<workdir>/wandb.json`` says which run and what it has
    been sent, so that a resumed run goes on there.

    For a process of its own: see ``process.py``. What W&B's environment variables say holds.
    """

    def __init__(self, workdir: str, project: str):
        import wandb

        self._file = f"{workdir}/wandb.json"
        state = self._state()
        self._sent: dict[str, int] = state["sent"]
        self._id: str = state["id"]
        name, recipe = os.path.basename(os.path.abspath(workdir)), _recipe(workdir)
        self._run = wandb.init(
            project=project, name=str(recipe.get("name") or name), id=self._id, resume="allow", dir=workdir, config=recipe
        )
        self._stages: set[str] = set()

    def _state(self) -> dict:
        try:
            state = json.loads(files.read_bytes(self._file) or b"{}")
            return {"id": str(state["id"]), "sent": {str(k): int(v) for k, v in state["sent"].items()}}
        except (ValueError, KeyError, TypeError, AttributeError):
            return {"id": uuid.uuid4().hex[:12], "sent": {}}

    def write(self, event: Event) -> None:
        kind = f"{event.stage}/{event.kind}"
        if not event.figures or event.step <= self._sent.get(kind, -1):
            return
        if event.stage not in self._stages:
            self._run.define_metric(f"{event.stage}/step")
            self._run.define_metric(f"{event.stage}/*", step_metric=f"{event.stage}/step")
            self._stages.add(event.stage)
        self._run.log({f"{event.stage}/step": event.step, **{f"{event.stage}/{k}": v for k, v in event.figures.items()}})
        self._sent[kind] = event.step

    def flush(self) -> None:
        files.write_text(self._file, json.dumps({"id": self._id, "sent": self._sent}))

    def close(self) -> None:
        self.flush()
        self._run.finish()


def _recipe(workdir: str) -> dict:
    import yaml

    try:
        recipe = yaml.safe_load(files.read_bytes(f"{workdir}/recipe.yaml") or b"")
    except (yaml.YAMLError, UnicodeDecodeError):
        recipe = None
    return recipe if isinstance(recipe, dict) else {}
