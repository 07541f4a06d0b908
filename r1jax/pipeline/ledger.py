"""The ledger: what a finished wave sampled and how it was graded, written once, in files with a commit record."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from r1jax.evaluation.grading import GradedSample
from r1jax.pipeline import records
from r1jax.rewards.record import RewardRecord
from r1jax.rollout.wave import SampledSequence

ROLLOUTS, ARRAYS = "rollouts.jsonl", "arrays.npz"


def wave_folder(stage: epath.Path, rollout: int, wave: int) -> epath.Path:
    """Where a wave's files lie."""
    return stage / "waves" / f"{rollout:05d}-{wave:02d}"


def write_wave(folder: epath.Path, samples: Sequence[GradedSample], rows: Mapping[int, Mapping[str, Any]]) -> None:
    """Writes a finished wave; it has happened once this returns.

    Args:
      rows: the data set's row of each prompt, by ``GradedSample.row``: kept with the wave, for the reader.
    """
    lines = []
    for sample in samples:
        sequence = sample.sequence
        line = {
            "prompt_id": sequence.prompt_id,
            "sample": sequence.sample,
            "row_index": sample.row,
            "row": rows[sample.row],
            "completion": sample.completion,
            "tokens": len(sequence.tokens),
            "finish_reason": sequence.finish_reason,
            **sample.record.to_json(),
        }
        lines.append(json.dumps(line, ensure_ascii=False) + "\n")
    sequences = [sample.sequence for sample in samples]
    buffer = io.BytesIO()
    recorded = [s.routes for s in sequences if s.routes is not None]
    np.savez(
        buffer,
        **({"routes": np.concatenate(recorded)} if recorded else {}),
        prompt_tokens=np.concatenate([s.prompt_tokens for s in sequences]),
        prompt_lengths=np.array([len(s.prompt_tokens) for s in sequences]),
        tokens=np.concatenate([s.tokens for s in sequences]),
        logprobs=np.concatenate([s.logprobs for s in sequences]),
        lengths=np.array([len(s.tokens) for s in sequences]),
    )
    records.write_atomic(folder / ROLLOUTS, "".join(lines))
    records.write_atomic(folder / ARRAYS, buffer.getvalue())
    records.commit(folder, [ROLLOUTS, ARRAYS], {"samples": len(samples)})


def read_wave(folder: epath.Path) -> list[GradedSample]:
    """A recorded wave, as it was written.

    Raises:
      DamagedRecord: a file is missing or has changed.
    """
    records.read_record(folder)
    with np.load(io.BytesIO((folder / ARRAYS).read_bytes())) as arrays:
        prompts = np.split(arrays["prompt_tokens"], np.cumsum(arrays["prompt_lengths"])[:-1])
        ends = np.cumsum(arrays["lengths"])[:-1]
        tokens, logprobs = np.split(arrays["tokens"], ends), np.split(arrays["logprobs"], ends)
        routes: list[np.ndarray | None] = [None] * len(tokens)
        if "routes" in arrays:
            routes = np.split(arrays["routes"], np.cumsum(arrays["prompt_lengths"] + arrays["lengths"])[:-1])
    samples = []
    # Not splitlines(), which would also split at the line separators of Unicode inside a text.
    for i, text in enumerate((folder / ROLLOUTS).read_bytes().decode().rstrip("\n").split("\n")):
        line = json.loads(text)
        sequence = SampledSequence(
            line["prompt_id"], line["sample"], prompts[i], tokens[i], logprobs[i], line["finish_reason"], routes[i]
        )
        samples.append(GradedSample(sequence, RewardRecord.from_json(line), line["row_index"], line["completion"]))
    return samples
