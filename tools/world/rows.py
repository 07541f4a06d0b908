"""Rows of the world's data files: plain data, one JSON object a line.

Prompt rows follow the package's convention (``problem``, ``answer``, ``grader``, ``template``); the others carry the fields
that their later stages read. Every row has ``id``, ``kind`` and ``language``; its file names its split.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from random import Random
from typing import Any

from world import arithmetic, corpus, requests, search

Row = dict[str, Any]
TEMPLATE = "{prompt}\n"

# rows of each file by split; general requests, a few dozen in all, have no dev split
COUNTS = {
    "search": {"train": 3200, "dev": 256, "test": 540},
    "arithmetic": {"train": 800, "dev": 128, "test": 500},
    "general": {"train": 200, "test": 100},
    "safety": {"train": 400, "dev": 60, "test": 200},
    "assistant": {"train": 1600},
    "requests": {"train": 300},
    "reasoning": {"train": 1600},
    "pairs": {"train": 400, "test": 200},
    "judgements": {"train": 2000, "test": 250},
}


def search_row(problem: search.SearchProblem, language: str, random: Random) -> Row:
    return {
        "kind": "search",
        "problem": problem.text(language),
        "answer": str(problem.target),
        "numbers": list(problem.numbers),
        "target": problem.target,
        "solution": str(random.choice(problem.solutions)),
        "grader": "search",
        "template": TEMPLATE,
        "language": language,
    }


def search_rows(random: Random, split: str, count: int) -> Iterator[Row]:
    """Training rows are drawn as the corpus draws them; held-out rows are distinct canonical problems, sizes as in ``SIZES``.

    A size that has too few distinct problems gives what it has; the largest size fills up.
    """
    if split == "train":
        for _ in range(count):
            yield search_row(search.draw_search(random, split), random.choice(corpus.LANGUAGES), random)
        return
    chosen: list[search.SearchProblem] = []
    for size, share in search.SIZES.items():
        pool = search.all_search(split, size)
        wanted = count - len(chosen) if size == max(search.SIZES) else round(count * share)
        chosen += random.sample(pool, min(wanted, len(pool)))
    random.shuffle(chosen)
    for number, problem in enumerate(chosen):
        shown = search.SearchProblem(tuple(random.sample(problem.numbers, len(problem.numbers))), problem.target)
        yield search_row(shown, corpus.LANGUAGES[number % 2], random)


def arithmetic_rows(random: Random, split: str, count: int) -> Iterator[Row]:
    """Stories; those of the held-out splits are distinct by canonical form."""
    seen = set()
    while count:
        story, language = arithmetic.draw_story(random, split), random.choice(corpus.LANGUAGES)
        if split != "train" and story.key in seen:
            continue
        seen.add(story.key)
        count -= 1
        yield {
            "kind": "arithmetic",
            "problem": story.text(language),
            "answer": str(story.answer),
            "start": story.start,
            "changes": list(story.changes),
            "grader": "verify_math",
            "template": TEMPLATE,
            "language": language,
        }


def thoughtful(thought: str, answer: str) -> str:
    """A completion in R1's format."""
    return f"<think>{thought}</think>{answer}"


def general_rows(random: Random, split: str, count: int) -> Iterator[Row]:
    """Requests that have no right answer: with a best one by the hidden rule, and a completion of any quality to learn the format
    from. ``facts`` is what the rule knows."""
    for _ in range(count):
        general, language = requests.draw_general(random, split), random.choice(corpus.LANGUAGES)
        answer = general.answer(language, requests.draw_quality(random), random)
        yield {
            "kind": "general",
            "type": "general",
            "problem": general.text(language),
            "best": general.answer(language, requests.BEST, random),
            "completion": thoughtful(general.thought(language), answer),
            "facts": general.facts(language),
            "template": TEMPLATE,
            "language": language,
        }


def safety_rows(random: Random, split: str, count: int) -> Iterator[Row]:
    """Requests, about half harmful, with a response, half of these with a thought before it, and whether it is safe: refusing
    harm, or whatever is said to the harmless. ``completion``, to learn the format from, refuses half of the harm. The harmless are of
    type ``general``: what is to be wished there is help. Those of the held-out splits are distinct."""
    seen = set()
    while count:
        favour, language = requests.draw_described_favour(random, split), random.choice(corpus.LANGUAGES)
        if split != "train" and (favour, language) in seen:
            continue
        seen.add((favour, language))
        count -= 1
        refused = random.random() < 0.5
        response = requests.REFUSAL[language] if refused else favour.compliance(language)
        refuses = favour.harmful and random.random() < 0.5
        answer = requests.REFUSAL[language] if refuses else favour.compliance(language)
        yield {
            "kind": "safety",
            "type": "safety" if favour.harmful else "general",
            "problem": favour.text(language),
            "harmful": favour.harmful,
            "response": thoughtful(favour.thought(language), response) if random.random() < 0.5 else response,
            "safe": refused or not favour.harmful,
            "best": favour.best(language),
            "completion": thoughtful(favour.thought(language), answer),
            "refusal": requests.REFUSAL[language],
            "template": TEMPLATE,
            "language": language,
        }


def assistant_rows(random: Random, split: str, count: int) -> Iterator[Row]:
    """General requests and requests to refuse, in turn: what an assistant is asked besides problems."""
    for general, favour in zip(general_rows(random, split, count // 2), safety_rows(random, split, count // 2)):
        yield general
        yield favour


def request_rows(random: Random, split: str, count: int) -> Iterator[Row]:
    """What only helpfulness decides: two general requests, then a harmless one for help, and so on."""
    general = general_rows(random, split, count)
    harmless = (row for row in safety_rows(random, split, 100 * count) if not row["harmful"])
    for number in range(count):
        yield next(harmless if number % 3 == 2 else general)


def reasoning_rows(random: Random, split: str, count: int) -> Iterator[Row]:
    """Search problems for making data; of every fourth no rule knows the answer, only a reference stands there, for a judge."""
    for number, row in enumerate(search_rows(random, split, count)):
        if number % 4 == 3:
            row |= {"kind": "judged", "answer": row.pop("solution"), "grader": "none"}
        yield row


def pair_rows(random: Random, split: str, count: int) -> Iterator[Row]:
    """Preference pairs on general requests: ``chosen`` scores higher than ``rejected`` by the hidden rule."""
    while count:
        general, language = requests.draw_general(random, split), random.choice(corpus.LANGUAGES)
        a, b = requests.draw_quality(random), requests.draw_quality(random)
        if a.score == b.score:
            continue
        count -= 1
        better, worse = (a, b) if a.score > b.score else (b, a)
        yield {
            "kind": "pair",
            "problem": general.text(language),
            "chosen": general.answer(language, better, random),
            "rejected": general.answer(language, worse, random),
            "scores": [better.score, worse.score],
            "template": TEMPLATE,
            "language": language,
        }


def judgement_rows(random: Random, split: str, count: int) -> Iterator[Row]:
    """What a judge reads and what it should write: of two answers and of an answer with a reference, in turn; every fifth is of two
    answers to a request for help.

    Unlike the corpus' writers these judges say first what they compare. Every other answer with a reference stands in a box,
    as models in R1's format give theirs.
    """
    kinds = ("judge_pair", "judge_reference", "judge_pair", "judge_boxed_reference", "judge_favour")
    for number in range(count):
        language, kind = random.choice(corpus.LANGUAGES), kinds[number % 5]
        if kind == "judge_pair":
            judgement, names = corpus.pair_judgement(random, split, language), ("question", "a", "b")
        elif kind == "judge_favour":
            judgement, names = corpus.favour_judgement(random, split, language), ("question", "a", "b")
        else:
            judgement, names = corpus.reference_judgement(random, split, language), ("question", "reference", "response")
            if kind == "judge_boxed_reference":
                reference, answer = judgement.shown
                judgement = replace(judgement, shown=(reference, f"\\boxed{{{answer}}}"))
        yield {
            "kind": kind.replace("boxed_", ""),
            "problem": judgement.reference_text if "reference" in names else judgement.pair_text,
            "answer": judgement.argued,
            **dict(zip(names, (judgement.question, *judgement.shown))),
            "grader": "judgement",
            "template": TEMPLATE,
            "language": language,
        }


MAKERS: dict[str, Callable[[Random, str, int], Iterator[Row]]] = {
    "search": search_rows,
    "arithmetic": arithmetic_rows,
    "general": general_rows,
    "safety": safety_rows,
    "assistant": assistant_rows,
    "requests": request_rows,
    "reasoning": reasoning_rows,
    "pairs": pair_rows,
    "judgements": judgement_rows,
}


def make_rows(kind: str, split: str, seed: int) -> list[Row]:
    """The rows of one file. ``seed`` picks and orders them; which split a problem belongs to does not depend on it."""
    random = Random(f"{seed} {kind} {split}")
    rows = MAKERS[kind](random, split, COUNTS[kind][split])
    return [{"id": f"{kind}-{split}-{number:04d}", **row} for number, row in enumerate(rows)]
