"""How well a judge agrees with labelled judgements, and how far the order of two answers sways it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from r1jax.data import PromptRow
from r1jax.evaluation.estimators import bootstrap_interval
from r1jax.rewards.graders import row_answer
from r1jax.rewards.judgements import CORRECTNESS, PREFERENCES, read_correctness, read_preference
from r1jax.scoring.judge import Judge, Pair, WithReference
from r1jax.scoring.verdicts import position_bias

REFERENCE_FIELDS, PAIR_FIELDS = ("question", "reference", "response"), ("question", "a", "b")


def measure_judge(judge: Judge, rows: Sequence[PromptRow]) -> dict[str, dict[str, Any]]:
    """Has a judge judge labelled rows.

    Args:
      rows: with the fields ``question, reference, response`` or ``question, a, b``, and an answer that holds the right verdict
        as a judge writes it.

    Returns:
      Of each form that there is (``reference``, ``pair``): ``rows``; ``agreement``, the share of them with the right verdict
      (of pairs: the same side, by the mean of both orders), what can't be read among the others; ``agreement_interval``, of
      95%; ``ungraded``, the share that can't be read. Of pairs also ``exact`` (share of single judgements whose label is the
      right one, ``>>`` and ``>`` told apart), ``clear`` (share with a preference over 1, as the paper keeps),
      ``clear_agreement`` (among those; None of none) and ``scoring.verdicts.PositionBias``.

    Raises:
      ValueError: a row without the fields of a form, or without a verdict.
    """
    forms: dict[str, list[PromptRow]] = {"reference": [], "pair": []}
    for row in rows:
        forms[_form(row)].append(row)
    measures = {"reference": _measure_references, "pair": _measure_pairs}
    return {form: measures[form](judge, own) for form, own in forms.items() if own}


def _form(row: PromptRow) -> str:
    for form, fields in (("reference", REFERENCE_FIELDS), ("pair", PAIR_FIELDS)):
        if all(isinstance(row.row.get(field), str) for field in fields):
            return form
    raise ValueError(
        f"row {row.index}: a labelled judgement has {', '.join(REFERENCE_FIELDS)} or {', '.join(PAIR_FIELDS)}, this one "
        f"{', '.join(map(str, row.row))}"
    )


def _label(row: PromptRow, read, values) -> float:
    if (label := read(row_answer(row.row))) is None:
        raise ValueError(f"row {row.index}: its answer is no verdict: {row_answer(row.row)!r:.80}")
    return values[label]


def _agreement(right: Sequence[bool], ungraded: Sequence[bool]) -> dict[str, Any]:
    shares = np.array(right, float)
    return {
        "rows": len(right),
        "agreement": float(shares.mean()),
        "agreement_interval": list(bootstrap_interval(shares)),
        "ungraded": float(np.mean(ungraded)),
    }


def _measure_references(judge: Judge, rows: Sequence[PromptRow]) -> dict[str, Any]:
    labels = [_label(row, read_correctness, CORRECTNESS) for row in rows]
    verdicts = judge.with_references([WithReference(*(row.row[field] for field in REFERENCE_FIELDS)) for row in rows])
    right = [verdict.correct is not None and verdict.correct == bool(label) for verdict, label in zip(verdicts, labels)]
    return _agreement(right, [verdict.correct is None for verdict in verdicts])


def _measure_pairs(judge: Judge, rows: Sequence[PromptRow]) -> dict[str, Any]:
    labels = np.array([_label(row, read_preference, PREFERENCES) for row in rows])
    compared = judge.compare([Pair(*(row.row[field] for field in PAIR_FIELDS)) for row in rows])
    values = np.array([np.nan if each.value is None else each.value for each in compared])
    right = np.sign(values) == np.sign(labels)
    clear = np.array([each.clear() for each in compared])
    single = [
        reading.value == sign * label
        for each, label in zip(compared, labels)
        for readings, sign in ((each.straight, 1), (each.swapped, -1))
        for reading in readings
    ]
    bias = asdict(position_bias(compared))
    del bias["pairs"], bias["graded"]
    return {
        **_agreement(right.tolist(), np.isnan(values).tolist()),
        "exact": float(np.mean(single)),
        "clear": float(clear.mean()),
        "clear_agreement": float(right[clear].mean()) if clear.any() else None,
        **bias,
    }
