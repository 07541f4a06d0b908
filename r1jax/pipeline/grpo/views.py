"""What the report shows of a rollout: a few groups with the text of each token, their rewards and advantages.

    <workdir>/stages/<stage>/views/<rollout>.json

Made from the recorded waves and the advantages, so a replayed rollout leaves the same bytes. Nothing reads it but people:
resuming does not need it, and a run without it is only harder to look at.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from r1jax.data import Tokenizer
from r1jax.evaluation.grading import GradedSample, Prompt
from r1jax.pipeline import records
from r1jax.rewards import mix

MOST_GROUPS = 4
MOST_SAMPLES = 8  # of a group
HEAD, TAIL = 700, 300  # tokens of a long sample: its beginning, and its end, where the answer stands


def token_texts(tokenizer: Tokenizer, tokens: Sequence[int]) -> list[str]:
    """The text of each token; together they are the text of all. A token that only begins a character has none, and the
    character stands with the token that ends it."""
    stream = tokenizer.stream()
    texts = [stream.push(int(token)) for token in tokens]
    rest = stream.finish()
    if rest and not any(texts):  # a decoder that is only known as a whole: the vocabulary's own spelling is the next best
        return [tokenizer.token(token) or "" for token in tokens]
    if texts:
        texts[-1] += rest
    return texts


def shown_groups(advantages: np.ndarray) -> list[int]:
    """Which of the groups ``[P, G]`` are shown: the first ones by position, half of the places for those that teach."""
    chosen = list(range(min(MOST_GROUPS // 2, len(advantages))))
    teaching = [int(i) for i in np.flatnonzero(advantages.any(1)) if i not in chosen]
    rest = [i for i in range(len(advantages)) if i not in chosen and i not in teaching]
    return sorted(chosen + (teaching + rest)[: MOST_GROUPS - len(chosen)])


def _sample(
    sample: GradedSample, tokenizer: Tokenizer, reward: float, graded: bool, advantage: float, in_loss: bool
) -> dict[str, Any]:
    tokens, logprobs = sample.sequence.tokens, sample.sequence.logprobs
    texts = token_texts(tokenizer, tokens)
    left_out = max(0, len(texts) - HEAD - TAIL)
    kept = [*range(HEAD), *range(len(texts) - TAIL, len(texts))] if left_out else range(len(texts))
    return {
        "sample": sample.sequence.sample,
        "tokens": len(tokens),
        "finish_reason": sample.sequence.finish_reason,
        "reward": round(float(reward), 6) if graded else None,
        "advantage": round(float(advantage), 6),
        "in_loss": bool(in_loss),
        **sample.record.to_json(),
        "texts": [texts[i] for i in kept],
        "logprobs": [round(float(logprobs[i]), 3) + 0.0 if np.isfinite(logprobs[i]) else None for i in kept],
        "left_out": [HEAD, left_out] if left_out else None,
    }


def write_view(
    stage: epath.Path,
    rollout: int,
    step: int,
    groups: Sequence[Sequence[GradedSample]],
    prompts: Sequence[Prompt],
    weights_of: Callable[[Mapping[str, Any]], Mapping[str, float]],
    advantages: np.ndarray,
    in_loss: np.ndarray,
    tokenizer: Tokenizer,
) -> None:
    """Writes the view of a rollout, unless it is there already.

    Args:
      step: the first update that the rollout is for.
      groups: those that are trained on, in order. prompts: the whole prompt set.
      weights_of: the weights of the reward's parts for a prompt with this row.
      advantages: ``[P, G]``. in_loss: bool ``[P, G]``, whether a sequence takes part in the loss.
    """
    path = stage / "views" / f"{rollout:05d}.json"
    if path.exists():
        return
    shown = []
    for i in shown_groups(advantages):
        prompt = prompts[groups[i][0].row]
        rewards, graded = mix([sample.record for sample in groups[i]], weights_of(prompt.row))
        samples = [
            _sample(sample, tokenizer, rewards[j], graded[j], advantages[i, j], in_loss[i, j])
            for j, sample in enumerate(groups[i][:MOST_SAMPLES])
        ]
        shown.append(
            {
                "prompt_id": groups[i][0].sequence.prompt_id,
                "row_index": groups[i][0].row,
                "prompt": prompt.text,
                "answer": str(prompt.row.get("answer", "")),
                "group": len(groups[i]),
                "samples": samples,
            }
        )
    view = {"rollout": rollout, "step": step, "groups": shown}
    records.write_atomic(path, json.dumps(view, ensure_ascii=False, separators=(",", ":")) + "\n")
