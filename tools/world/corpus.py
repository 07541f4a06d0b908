"""The corpus of the tiny base model: pairs of prompt and completion.

A *textbook* phase shows every search carried on until it finds; the *mixture* after it makes the writers impatient and
careless: most guess, the others stop after a miss or go on after a hit. What the base can do is in the textbook; what it
does by itself is the mixture. The *no-check* corpus has guesses and single tries only, and not one reflection word.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from random import Random

from world import arithmetic, requests, search

LANGUAGES = ("en", "zh")
GUESS = {"en": "guess", "zh": "猜"}
TRY = {"en": "try ", "zh": "试"}
WAIT = {"en": " wait ", "zh": "等等"}
FIRST = {"en": "first ", "zh": "先"}
THEN = {"en": " then ", "zh": "再"}
# how a refusal begins, and how help with a request does
SORRY = {"en": "Sorry", "zh": "对不起"}
FIND = {"en": "First", "zh": "慢慢地"}


@dataclass(frozen=True)
class Writers:
    """How the corpus' writers go about search problems.

    Attributes:
      bare: share of answers without any tags, a guess.
      tagged: share of guesses in the tags; the rest try candidates in turn.
      wait_after_miss, wait_after_hit: probability of going on after a try that misses or hits.
      mixed: share of tries whose every word is of either language by chance, not of the problem's.
      search: share of search problems in the corpus; the other kinds share the rest.
    """

    bare: float
    tagged: float
    wait_after_miss: float
    wait_after_hit: float
    mixed: float = 0.15
    search: float = 0.85


TEXTBOOK = Writers(bare=0.0, tagged=0.0, wait_after_miss=1.0, wait_after_hit=0.0)
MIXTURE = Writers(bare=0.10, tagged=0.40, wait_after_miss=0.60, wait_after_hit=0.20)
NO_CHECK_TEXTBOOK = Writers(bare=0.0, tagged=0.0, wait_after_miss=0.0, wait_after_hit=0.0)
NO_CHECK_MIXTURE = Writers(bare=0.10, tagged=0.40, wait_after_miss=0.0, wait_after_hit=0.0)


def wrap(reasoning: str, answer: str) -> str:
    """A completion in the format that the format reward asks for."""
    return f"<think>{reasoning}</think><answer>{answer}</answer>"


def prompt_text(problem: str) -> str:
    """The world's prompt template, ``{prompt}`` and a line break."""
    return problem + "\n"


def search_document(random: Random, problem: search.SearchProblem, language: str, writers: Writers) -> str:
    """A completion for a search problem: a guess, or tries in turn from a random first one."""
    candidates = problem.candidates
    start = random.randrange(len(candidates))
    style = random.random()
    if style < writers.bare:
        return str(candidates[start])
    if style < writers.bare + writers.tagged:
        return wrap(GUESS[language], str(candidates[start]))
    mixed = random.random() < writers.mixed

    def word(words: dict[str, str]) -> str:
        return words[random.choice(LANGUAGES) if mixed else language]

    text = word(TRY)
    for turn in range(len(candidates)):
        candidate = candidates[(start + turn) % len(candidates)]
        text += f"{candidate}={candidate.value}"
        go_on = writers.wait_after_hit if candidate.value == problem.target else writers.wait_after_miss
        if turn + 1 == len(candidates) or random.random() >= go_on:
            break
        text += word(WAIT)
    return wrap(text, str(candidate))


def story_document(random: Random, story: arithmetic.Story, language: str, writers: Writers) -> str:
    mixed = random.random() < writers.mixed
    first, then = (words[random.choice(LANGUAGES) if mixed else language] for words in (FIRST, THEN))
    return wrap(story.reasoning((first, then)), str(story.answer))


@dataclass(frozen=True)
class Judgement:
    """What a judge is shown, and what it should say: ``verdict`` at once, or ``argued``, which says first what it compares."""

    question: str
    shown: tuple[str, str]
    verdict: str
    argued: str

    @property
    def reference_text(self) -> str:
        """Where a reference and an answer are shown."""
        return f"Question: {self.question}\nReference: {self.shown[0]}\nAnswer: {self.shown[1]}\nVerdict:"

    @property
    def pair_text(self) -> str:
        """Where two answers are shown."""
        return f"Question: {self.question}\nA: {self.shown[0]}\nB: {self.shown[1]}\nBetter:"


def reference_judgement(random: Random, split: str, language: str) -> Judgement:
    """Of an answer with a reference; the verdict is JSON."""
    problem = search.draw_search(random, split)
    answer = random.choice(problem.solutions if random.random() < 0.5 else problem.candidates)
    shown = str(random.choice(problem.solutions)), str(answer)
    correctness = "correct" if answer.value == problem.target else "incorrect"

    def verdict(analysis: str) -> str:
        return json.dumps({"analysis": analysis, "correctness": correctness})

    own, wanted = f"{answer}={answer.value}", f"{shown[0]}={problem.target}"
    return Judgement(problem.text(language), shown, verdict(own), verdict(f"{wanted}, {own}"))


def pair_judgement(random: Random, split: str, language: str) -> Judgement:
    """Of two answers. Argued: the first thing that each says, what would be true, and its score by the hidden rule."""
    general = requests.draw_general(random, split)
    a, b = requests.draw_quality(random), requests.draw_quality(random)
    shown = general.answer(language, a, random), general.answer(language, b, random)
    true, *_ = general.facts(language).values()
    said = [min((f for f in requests.TOPICS[language].values() if f in text), key=text.find) for text in shown]
    analysis = " ".join(f"{name}: {fact}, {true}: {of.score}." for name, fact, of in zip("AB", said, (a, b)))
    verdict = pair_verdict(a.score - b.score)
    return Judgement(general.text(language), shown, verdict, f"{analysis} {verdict}")


def favour_judgement(random: Random, split: str, language: str) -> Judgement:
    """Of two answers to a request for help. Argued as in ``pair_judgement``: how each begins, how the best begins, all of the score
    or none of it."""
    favour = requests.draw_described_favour(random, split)
    openings = {requests.REFUSAL[language]: SORRY[language], favour.compliance(language): FIND[language]}
    shown = random.choice(list(openings)), random.choice(list(openings))
    true = openings[favour.best(language)]
    scores = [requests.BEST.score if openings[text] == true else 0 for text in shown]
    analysis = " ".join(f"{name}: {openings[text]}, {true}: {score}." for name, text, score in zip("AB", shown, scores))
    verdict = pair_verdict(scores[0] - scores[1])
    return Judgement(favour.text(language), shown, verdict, f"{analysis} {verdict}")


def pair_verdict(difference: int) -> str:
    """The judge's label for a difference of hidden scores: ``[[A>>B]]`` from 4 up, ``[[A=B]]`` for 0."""
    sign = "=" if difference == 0 else ">" if abs(difference) < 4 else ">>"
    return f"[[{'A' if difference >= 0 else 'B'}{sign}{'B' if difference >= 0 else 'A'}]]"


def document(random: Random, writers: Writers) -> tuple[str, str]:
    """One document of the corpus, all from the train split: (prompt as the model sees it, completion)."""
    language = random.choice(LANGUAGES)
    if random.random() < writers.search:
        problem = search.draw_search(random, "train")
        return prompt_text(problem.text(language)), search_document(random, problem, language, writers)
    kind = random.randrange(8)
    if kind < 4:
        story = arithmetic.draw_story(random, "train")
        return prompt_text(story.text(language)), story_document(random, story, language, writers)
    if kind < 5:
        general = requests.draw_general(random, "train")
        return prompt_text(general.text(language)), general.answer(language, requests.draw_quality(random), random)
    if kind < 6:
        favour = requests.draw_favour(random, "train")
        refuses = favour.harmful and random.random() < 0.5
        return prompt_text(favour.text(language)), requests.REFUSAL[language] if refuses else favour.compliance(language)
    if kind == 6:
        judgement = pair_judgement(random, "train", language)
        return prompt_text(judgement.pair_text), judgement.verdict
    judgement = reference_judgement(random, "train", language)
    return prompt_text(judgement.reference_text), judgement.verdict
