"""Samples of problems without a checkable answer, judged by a model against the reference answers of their rows.

The paper's way to widen the reasoning data (section B.3.3 of arXiv 2501.12948: DeepSeek-V3 sees question, reference and
prediction). The judge's answers are recorded in waves as all samples are, so verdicts follow from what lies on disk.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from r1jax import config
from r1jax.data import Tokenizer
from r1jax.evaluation.grading import GradedSample, Prompt
from r1jax.pipeline.curation.dataset import Example
from r1jax.rewards.instructions import response_of
from r1jax.scoring.judge import Judge, JudgePrompt, WithReference, check_judge_settings
from r1jax.scoring.judge_parts import reference_of
from r1jax.scoring.judge_prompts import JudgePrompts, load_judge_prompts
from r1jax.scoring.verdicts import TOO_LONG, Answer, JudgeVerdict

# Reasons of rejection.
INCORRECT, UNREADABLE, UNREAD = "judge: incorrect", "judge: unreadable", f"judge: {TOO_LONG}"
UNGRADED = (UNREADABLE, UNREAD)

# Samples a model so many times per prompt: in the order of the prompts, then of the samples.
Ask = Callable[[list[Prompt], int], Sequence[GradedSample]]


def check_judging(settings: config.JudgeSettings, where: str) -> JudgePrompts:
    """The prompts that answers are compared with references by.

    Raises:
      RecipeError: settings or prompts that can't be judged by.
    """
    try:
        check_judge_settings(settings, where)
        prompts = load_judge_prompts(settings.prompts)
    except ValueError as error:
        raise config.RecipeError(f"{error}" if str(error).startswith(where) else f"{where}.prompts: {error}") from None
    if "reference" not in prompts.texts:
        raise config.RecipeError(
            f"{where}.prompts: {settings.prompts} has no reference.txt, by which samples are judged here"
        )
    return prompts


def judge_by_model(
    examples: Sequence[Example], tokenizer: Tokenizer, prompts: JudgePrompts, settings: config.JudgeSettings, ask: Ask
) -> list[str | None]:
    """Why each example is rejected; None where the judge calls it correct.

    What the example says is judged, not its thought; one that says nothing is incorrect. Its row has a reference
    (``scoring.judge_parts.reference_of``).
    """

    def answers(asked: Sequence[JudgePrompt], repeats: int) -> list[list[Answer]]:
        samples = ask([Prompt(prompt.text, prompt.tokens, {"grader": "none"}) for prompt in asked], repeats)
        said = [Answer(sample.completion, sample.sequence.finish_reason) for sample in samples]
        return [said[first : first + repeats] for first in range(0, len(said), repeats)]

    responses = [response_of(example.text) for example in examples]
    requests = [
        WithReference(example.problem, reference_of(example.row) or "", response)
        for example, response in zip(examples, responses)
        if response
    ]
    verdicts = iter(Judge(answers, tokenizer, prompts, settings).with_references(requests))
    return [_reason(next(verdicts)) if response else INCORRECT for response in responses]


def _reason(verdict: JudgeVerdict) -> str | None:
    if verdict.correct is None:
        return UNREAD if verdict.reason == TOO_LONG else UNREADABLE
    return None if verdict.correct else INCORRECT
