"""Settings of a generative judge, the same wherever one is asked."""

from __future__ import annotations

from dataclasses import dataclass

JUDGE_PROMPTS = ("chat", "plain")


@dataclass(frozen=True)
class JudgeSettings:
    """How a model is asked for its judgement.

    ``prompts``: ``chat`` (full instructions as a user's message), ``plain`` (``Question: ... Verdict:``, the form of the small
    world's judges) or a folder of one's own with ``reference.txt``, ``pair.txt`` and, unless it is ``chat``, the template in
    ``template.txt`` (``scoring.judge_prompts``). ``reference_judgements``: times that an answer is compared with its reference.
    ``pair_judgements``: times that two answers are compared, half of them in either order, so an even number; the paper's 4.
    ``max_prompt_tokens``: requests that are longer are ungraded. ``rows``: requests at a time.
    """

    prompts: str = "chat"
    reference_judgements: int = 1
    pair_judgements: int = 4
    temperature: float = 0.6
    top_p: float = 0.95
    max_tokens: int = 2_048
    max_prompt_tokens: int = 8_192
    rows: int = 16
