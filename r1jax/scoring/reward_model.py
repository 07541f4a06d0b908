"""A reward model in use: texts in, a score for each out. A part of the reward (``scoring.parts``).

What a response is scored by is what the model learnt from, as its directory's ``reward_model.json`` says: the prompt in the
model's own template, and the final summary or the whole response (``data.summary``). A response that breaks off is scored as it is.

Where a summary is to be read and there is none, since the thought never ends or nothing follows it, the score is ``lowest``, that of
the worst answer that the model was measured on. It is not None: then samples that think for ever would cost the policy nothing,
and too many of them would stop the run. It is not the score of an empty answer either, which no model has learnt to give.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from etils import epath

from r1jax.config import nearest
from r1jax.data.examples import Example, ExampleRow
from r1jax.data.preferences import encode_responses
from r1jax.data.summary import READS, THINK, opens_thought
from r1jax.data.template import check_template
from r1jax.models.interface import Model
from r1jax.rewards.record import RewardRequest
from r1jax.scoring.judge_parts import question_of
from r1jax.scoring.parts import Scored
from r1jax.scoring.sequences import SequenceScorer
from r1jax.sharding import Layout

FILE = "reward_model.json"
NO_SUMMARY = "no final summary, so the lowest score"  # the reason of a score that the model did not give
OBJECTIVES = ("pairwise", "pointwise")


@dataclass(frozen=True)
class RewardCard:
    """How a reward model is asked, and what it answers with: ``reward_model.json`` of its directory.

    Attributes:
      objective: ``pairwise``: scores of which only differences mean something; ``pointwise``: a score is the logit of "safe".
      reads: see ``data.summary``.
      template: of the prompts that it was trained on (``data.template``).
      lowest: the lowest score that it gave to the responses which it was measured on.
    """

    objective: str
    reads: str
    template: str
    lowest: float

    def __post_init__(self):
        for name, known in (("objective", OBJECTIVES), ("reads", READS)):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} {getattr(self, name)!r} is unknown{nearest(str(getattr(self, name)), known)}")
        if not isinstance(self.template, str):
            raise ValueError(f"template must be text, not {self.template!r:.80}")
        check_template(self.template)
        if isinstance(self.lowest, bool) or not isinstance(self.lowest, (int, float)) or not math.isfinite(self.lowest):
            raise ValueError(f"lowest must be a finite number, not {self.lowest!r:.80}")

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=1, ensure_ascii=False)


def read_card(path: epath.PathLike) -> RewardCard:
    """The card of a reward model's directory.

    Raises:
      ValueError: there is none, or it is damaged.
    """
    file = epath.Path(path) / FILE
    if not file.exists():
        example = RewardCard("pairwise", "final_summary", "chat", -10.0)
        raise ValueError(
            f"{path} has no {FILE}, which says how a reward model is asked: kind reward_model writes it; for another's model "
            f"write one, such as {json.dumps(dataclasses.asdict(example))}"
        )
    try:
        return RewardCard(**json.loads(file.read_text()))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{file} is not the card of a reward model: {error}") from None


class RewardModel:
    """A ``ModelPart`` that a reward model gives: the score itself, or the probability of "safe" where it is pointwise (bounded, so
    that no one verdict outweighs all other rewards).

    Args:
      name: of the part.
      model: loaded under ``layout``, with its tokenizer.
      card: see ``RewardCard``.
      layout: where its parameters lie.
      rows: sequences of a batch; a multiple of the layout's batch shards.
      longest: prompt and response together, in tokens; longer ones are not graded. 0: as many as the model has positions (the paper
        sets no bound here).
      compute_dtype: see ``models.precision``.

    Raises:
      ValueError: a model without a scalar head or a tokenizer.
    """

    def __init__(
        self,
        name: str,
        model: Model,
        card: RewardCard,
        layout: Layout,
        *,
        rows: int,
        longest: int = 0,
        compute_dtype: Any = jnp.float32,
    ):
        if not model.config.num_labels:
            raise ValueError(
                f"reward {name}: the model is a language model; a reward model has a scalar head (num_labels 1)"
            )
        if model.tokenizer is None:
            raise ValueError(f"reward {name}: the model has no tokenizer; put its tokenizer.json or tokenizer.model there")
        self.name = name
        self._params, self._tokenizer, self._card = model.params, model.tokenizer, card
        self._longest = longest or model.config.max_position_embeddings
        self._vocabulary = model.config.vocab_size
        self._scorer = SequenceScorer(model.config, layout, longest=self._longest, rows=rows, compute_dtype=compute_dtype)

    def warm_up(self, should_stop: Callable[[], bool] | None = None) -> None:
        """See ``ModelPart``."""
        self._scorer.warm_up(self._params, should_stop)

    def score(self, requests: Sequence[RewardRequest]) -> list[Scored]:
        """See ``ModelPart``.

        Raises:
          ValueError: the tokenizer is of another model.
        """
        found = self._encode(requests)
        places = [i for i, example in enumerate(found) if isinstance(example, Example)]
        check_ids(f"reward {self.name}", [found[i].tokens for i in places], self._vocabulary)
        scores = self._scorer(self._params, [found[i].tokens for i in places])
        for i, score in zip(places, scores):
            found[i] = self._valued(score)
        return found

    def _valued(self, score: np.float32) -> Scored:
        if not np.isfinite(score):
            return Scored(None, f"reward {self.name}: the model gave {score}")
        if self._card.objective == "pairwise":
            return Scored(float(score))
        return Scored(float(_sigmoid(float(score))))

    def _encode(self, requests: Sequence[RewardRequest]) -> list[Any]:
        """The sequences to be scored, or what is said without scoring."""
        try:
            return [self._readable(example) for example in self._examples(requests)]
        except ValueError as error:  # one of them; alone they tell which
            if len(requests) > 1:
                return [self._encode([request])[0] for request in requests]
            return [Scored(None, f"reward {self.name}: {error}")]

    def _examples(self, requests: Sequence[RewardRequest]) -> list[Example | None]:
        rows = [ExampleRow("the response", _whole(r), self._card.template, _problem(r)) for r in requests]
        return encode_responses(rows, self._tokenizer, self._card.reads)

    def _readable(self, example: Example | None) -> Example | Scored:
        if example is None:
            lowest = self._card.lowest if self._card.objective == "pairwise" else _sigmoid(self._card.lowest)
            return Scored(lowest, f"reward {self.name}: {NO_SUMMARY}")
        if len(example.tokens) > self._longest:
            return Scored(None, f"reward {self.name}: {len(example.tokens)} tokens, the model reads {self._longest}")
        return example


def check_ids(what: str, sequences: Sequence[np.ndarray], vocabulary: int) -> None:
    """Refuses token ids that an embedding has no row for, where XLA would quietly take another's.

    Raises:
      ValueError: there are some.
    """
    highest = max((int(tokens.max()) for tokens in sequences), default=-1)
    if highest >= vocabulary:
        raise ValueError(
            f"{what}: its tokenizer writes id {highest}, its embedding has {vocabulary} rows; the tokenizer is of another model"
        )


def _whole(request: RewardRequest) -> str:
    """The completion with the ``<think>`` that its own prompt ended in, if it did."""
    return (THINK if opens_thought(request.prompt) else "") + request.completion


def _problem(request: RewardRequest) -> str:
    problem = question_of(request)
    if not problem.strip():
        raise ValueError("no problem or question in the row, and no prompt")
    return problem


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))
