"""What of a response a reward model reads: the final summary, or all of it.

R1's helpfulness is judged by the final summary alone, "which minimises interference with the reasoning"; its harmlessness by
the whole response, thought and summary (Nature 645:633).
"""

from __future__ import annotations

THINK, END_OF_THINKING = "<think>", "</think>"
READS = ("final_summary", "whole_response")


def final_summary(response: str) -> str | None:
    """What a response says to its reader: what follows its last ``</think>``, or all of it where it has no thought.

    Args:
      response: the text that the model wrote, with the ``<think>`` that its prompt may have ended in.

    Returns:
      The summary without blanks around it; None where a thought never ends or nothing follows it.
    """
    thought, end, after = response.rpartition(END_OF_THINKING)
    if not end and THINK in response:
        return None
    return after.strip() or None


def opens_thought(prompt: str) -> bool:
    """Whether a prompt ends in ``<think>``, as R1's chat template has it since 2025."""
    return prompt.rstrip().endswith(THINK)


def without_opened_thought(prompt: str) -> str:
    """The prompt without the ``<think>`` that it may end in: what comes before a summary alone."""
    return prompt[: prompt.rindex(THINK)] if opens_thought(prompt) else prompt
