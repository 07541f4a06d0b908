"""From R1-Zero's samples to R1's format: ``<think>\\n{reasoning}\\n</think>\\n\\n{summary}``.

By default the reasoning stays as it is and the summary comes from a template. A model, where the recipe names one, writes
both anew from few-shot prompts (``prompts/*.txt``): first the reasoning, in the problem's language, then a summary of that.
Whatever is made is graded again: what no longer ends in a right answer is rejected.
"""

from __future__ import annotations

import dataclasses
import importlib.resources
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from r1jax.data import Tokenizer
from r1jax.data.template import fill
from r1jax.evaluation.grading import GradedSample, Pool, Prompt
from r1jax.pipeline import records
from r1jax.pipeline.curation.dataset import Example
from r1jax.rewards import RewardRecord, RewardRequest, Verdict
from r1jax.rewards.answer import last_tagged, marked_answer
from r1jax.rewards.language import reasoning
from r1jax.rewards.language.detection import LANGUAGES
from r1jax.rewards.parts import target_language

OPENING, CLOSING = "<rewritten>", "</rewritten>"
# Reasons of rejection.
UNREADABLE, CHANGED = "no rewrite", "rewrite changed the answer"
_GRADED_TOGETHER = 1_024

Texts = list["str | None"]


def in_r1_format(thought: str, summary: str) -> str:
    """The two parts as the released model writes them."""
    return f"<think>\n{thought.strip()}\n</think>\n\n{summary.strip()}"


def language_of(example: Example) -> str:
    """The ISO 639-1 code of the problem's language; English where nothing shows one."""
    try:
        return target_language(RewardRequest({"problem": example.problem, **example.row}, example.problem, example.text))
    except ValueError:
        return "en"


# ---------------------------------------------------------------------------------------------- by template
def rewrite_by_template(examples: Sequence[Example], summaries: Mapping[str, str]) -> Texts:
    """R1-Zero's samples with a summary from ``summaries`` (language -> text with ``{answer}`` and ``{problem}``).

    A language that has none gets the English one, or the first there is. A program is its own summary. None for a sample
    without an answer.
    """
    rest = summaries.get("en", next(iter(summaries.values())))
    texts: Texts = []
    for example in examples:
        answer = marked_answer(example.text)
        if example.row.get("grader") == "code":
            summary = last_tagged(example.text)
        else:
            summary = answer and fill(summaries.get(language_of(example), rest), answer=answer, problem=example.problem)
        texts.append(in_r1_format(reasoning(example.text), summary) if summary else None)
    return texts


# ---------------------------------------------------------------------------------------------- by a model
def few_shot(name: str) -> str:
    """The text of a prompt of this package: ``reasoning`` or ``summary``."""
    return (importlib.resources.files("r1jax.pipeline.curation") / "prompts" / f"{name}.txt").read_text("utf-8")


def rewritten_part(completion: str) -> str | None:
    """What a rewriter put between its tags; None where they never closed or hold nothing. After a prompt that ends with the
    opening tag it is not repeated."""
    before, closed, _ = completion.rpartition("</think>")[2].partition(CLOSING)
    return before.rpartition(OPENING)[2].strip() or None if closed else None


def _prompt(text: str, tokenizer: Tokenizer) -> Prompt:
    """A request to a rewriter: as a user's message, or for a model without a chat template as a text to go on with."""
    if tokenizer.chat is not None:
        text = tokenizer.apply_chat_template([{"role": "user", "content": text.rstrip()}], add_generation_prompt=True)
        ids = tokenizer.encode(text)
    else:
        text += OPENING
        ids = tokenizer.encode(text, add_bos=tokenizer.adds_bos)
    return Prompt(text, np.asarray(ids, np.int32), {"grader": "none"})


def rewrite_by_model(
    examples: Sequence[Example], tokenizer: Tokenizer, ask: Callable[[str, list[Prompt]], Sequence[GradedSample]]
) -> Texts:
    """Reasoning and summary in the words of a model; None where it did not write them.

    Args:
      ask: ``ask(name, prompts)`` samples the rewriter once per prompt, in order.
    """
    languages = [LANGUAGES[language_of(example)][0].capitalize() for example in examples]
    texts = few_shot("reasoning")
    requests = [
        _prompt(
            fill(texts, language=language, problem=example.problem, reasoning=reasoning(example.text).strip()), tokenizer
        )
        for example, language in zip(examples, languages)
    ]
    thoughts = [rewritten_part(sample.completion) for sample in ask("reasoning", requests)]
    found = [i for i, thought in enumerate(thoughts) if thought is not None and "think>" not in thought]
    result: Texts = [None] * len(examples)
    if not found:
        return result
    texts = few_shot("summary")
    requests = []
    for i in found:
        example, answer = examples[i], marked_answer(examples[i].text) or ""
        told = fill(texts, language=languages[i], problem=example.problem, reasoning=thoughts[i], answer=answer)
        requests.append(_prompt(told, tokenizer))
    for i, sample in zip(found, ask("summary", requests)):
        summary = rewritten_part(sample.completion)
        if summary is not None and "think>" not in summary:
            result[i] = in_r1_format(thoughts[i], summary)
    return result


# ---------------------------------------------------------------------------------------------- grading again
def grade_again(
    folder: epath.Path, examples: Sequence[Example], texts: Texts, pool: Pool, stop: Callable[[], None]
) -> list[tuple[Example, Verdict, str | None]]:
    """``(example with its new text, verdict, reason of rejection or None)`` for each.

    Verdicts are recorded, some at a time, and never asked for again.

    Args:
      folder: where the records lie.
      stop: called between two records; may raise.

    Raises:
      DamagedRecord: a recorded file has changed.
    """
    judged: list[tuple[Example, Verdict, str | None]] = []
    for number, first in enumerate(range(0, len(examples), _GRADED_TOGETHER)):
        some = slice(first, first + _GRADED_TOGETHER)
        place = folder / f"{number:05d}"
        if not records.committed(place):
            stop()
            _grade_and_record(place, examples[some], texts[some], pool)
        records.read_record(place)
        lines = [json.loads(line) for line in (place / "texts.jsonl").read_bytes().decode().rstrip("\n").split("\n")]
        for example, line in zip(examples[some], lines, strict=True):
            kept = dataclasses.replace(example, text=example.text if line["text"] is None else line["text"])
            judged.append((kept, Verdict(line["verdict"]), line["rejected"]))
    return judged


def _grade_and_record(place: epath.Path, examples: Sequence[Example], texts: Texts, pool: Pool) -> None:
    for key, (example, text) in enumerate(zip(examples, texts)):
        if text is not None:
            pool.submit(key, RewardRequest(row=example.row, prompt=example.problem, completion=text))
    verdicts = dict(pool.drain())

    def line(key: int) -> dict[str, Any]:
        record = verdicts.get(key, RewardRecord({}, Verdict.UNGRADED, UNREADABLE))
        reasons = {Verdict.WRONG: CHANGED, Verdict.UNGRADED: "ungraded", Verdict.NONE: None, Verdict.RIGHT: None}
        example = examples[key]
        return {
            "prompt": example.prompt,
            "sample": example.sample,
            "text": texts[key],
            "rejected": UNREADABLE if texts[key] is None else reasons[record.verdict],
            **record.to_json(),
        }

    lines = [json.dumps(line(key), ensure_ascii=False) + "\n" for key in range(len(examples))]
    records.write_atomic(place / "texts.jsonl", "".join(lines))
    records.commit(place, ["texts.jsonl"])
