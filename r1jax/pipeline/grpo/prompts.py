"""The prompts of an RL stage, and the order in which rollouts take them: reasoning prompts and, late, general ones among them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from r1jax import config, data
from r1jax.evaluation.grading import Prompt, render
from r1jax.pipeline.grpo.model_rewards import JUDGE_FORMS
from r1jax.rewards.mixing import weights_of_type
from r1jax.scoring.judge_parts import reference_of


def read_prompts(
    source: config.DataSource, tokenizer: data.Tokenizer, longest: int, warn: Callable[[str], None]
) -> list[Prompt]:
    """The prompt set as token ids; prompts over ``longest`` tokens are left out, and that is said.

    Raises:
      ValueError: nothing is left.
    """
    rows = data.load_prompts(source)
    prompts = [prompt for prompt in (render(row, tokenizer) for row in rows) if 0 < len(prompt.tokens) <= longest]
    if len(prompts) < len(rows):
        warn(f"{len(rows) - len(prompts)} of {len(rows)} prompts of {source.path} exceed {longest} tokens and are left out")
    if not prompts:
        raise ValueError(f"no prompt of {source.path} fits max_prompt_tokens {longest}; raise it")
    return prompts


def check_rows(
    source: config.DataSource, type_of: Callable[[Mapping[str, Any]], str], weights: Mapping[str, Mapping[str, float]]
) -> None:
    """Refuses rows whose reward can't be given: what a rollout would find out when it meets them.

    Args:
      type_of: a row's type of prompt. weights: type -> part -> weight.

    Raises:
      ValueError: a type without weights; accuracy asked of a row without a right answer; a judge, of one without a reference.
    """
    for row in data.load_prompts(source):
        parts, where = weights_of_type(type_of(row.row), weights), f"{source.path}: row {row.index}"
        if row.grader == "none" and parts.get("accuracy"):
            raise ValueError(
                f"{where} has no right answer (grader none), but its reward counts accuracy; give its type other weights "
                "(rewards_by_type), or the data set a grader"
            )
        if JUDGE_FORMS.keys() & parts.keys() and reference_of({**row.row, "answer": row.answer}) is None:
            raise ValueError(f"{where} has no reference or answer, which a judge compares with; give it one")


def check_prompts(source: config.DataSource, tokenizer: data.Tokenizer, longest: int) -> None:
    """Refuses a prompt set of which no prompt fits; looks only until one does.

    Raises:
      ValueError: see ``read_prompts``.
    """
    if not any(0 < len(render(row, tokenizer).tokens) <= longest for row in data.load_prompts(source)):
        raise ValueError(f"no prompt of {source.path} fits max_prompt_tokens {longest}; raise it")


def weighed_problems(
    sources: Sequence[config.DataSource],
    type_of: Callable[[Mapping[str, Any]], str],
    weights: Mapping[str, Mapping[str, float]],
    part: str,
    most: int = 64,
) -> list[str]:
    """Some problems whose reward has a part: the first ``most`` of the sources."""
    rows = (row for source in sources for row in data.load_prompts(source))
    return [row.problem for row in itertools.islice((r for r in rows if part in weights.get(type_of(r.row), {})), most)]


class PromptMix:
    """An endless order of two prompt sets, each reshuffled in each epoch; the same on any number of hosts.

    From ``general_index`` of the order on, one place in ``1 / share`` is a general prompt's. Which prompt stands at a place
    depends on the place alone: not on how many are taken at a time, nor on who is asked again.

    Args:
      reasoning, general: the prompts; ``general`` may be empty.
      share: of general prompts, from 0 to 1.
      seed: of the shuffles.

    Attributes:
      prompts: of both sets, the reasoning ones first: what the order's indices point at.
      general_index: where general prompts begin; None: not yet.
    """

    def __init__(self, reasoning: Sequence[Prompt], general: Sequence[Prompt], share: float, seed: int):
        self.prompts = [*reasoning, *general]
        self.general_index: int | None = None
        self._share, self._first_general = share, len(reasoning)
        self._reasoning = data.PromptOrder(len(reasoning), seed)
        self._general = data.PromptOrder(len(general), seed) if general else None

    def take(self, start: int, count: int) -> np.ndarray:
        """Indices into ``prompts`` of the places ``start .. start + count - 1``."""
        before = [self._general_before(place) for place in range(start, start + count + 1)]
        self._reasoning.restore({"next_index": start - before[0]})
        own = iter(self._reasoning.take(count - (before[-1] - before[0])))
        if before[-1] == before[0]:
            return np.array(list(own))
        self._general.restore({"next_index": before[0]})
        others = iter(self._general.take(before[-1] - before[0]))
        return np.array(
            [self._first_general + next(others) if after > now else next(own) for now, after in zip(before, before[1:])]
        )

    def _general_before(self, place: int) -> int:
        """General prompts at the places before this one."""
        if self._general is None or self.general_index is None:
            return 0
        # 1e-9: a share that binary fractions miss by a bit does not cost a prompt.
        return math.floor(max(0, place - self.general_index) * self._share + 1e-9)
