"""Prompt templates: how a problem becomes the text that a model continues.

A recipe, a data set's row or the command line names one: ``r1_zero``, ``none``, ``chat``, ``boxed``, or gives any text
that contains ``{prompt}``.
"""

from __future__ import annotations

from r1jax.config import nearest
from r1jax.data.tokenizer import Tokenizer

# DeepSeek-R1 (arXiv 2501.12948), Table 1. The full stop after the problem is the paper's.
R1_ZERO = (
    "A conversation between User and Assistant. The user asks a question, and the Assistant solves it. The assistant "
    "first thinks about the reasoning process in the mind and then provides the user with the answer. The reasoning "
    "process and answer are enclosed within <think> </think> and <answer> </answer> tags, respectively, i.e., <think> "
    "reasoning process here </think> <answer> answer here </answer>. User: {prompt}. Assistant:"
)
# DeepSeek-R1's README: the directive for mathematical problems, in the user's message, no system prompt.
BOXED_DIRECTIVE = "Please reason step by step, and put your final answer within \\boxed{}."

PLACEHOLDER = "{prompt}"
PLAIN_TEMPLATES = {"r1_zero": R1_ZERO, "none": PLACEHOLDER}
CHAT_TEMPLATES = {"chat": PLACEHOLDER, "boxed": f"{PLACEHOLDER}\n{BOXED_DIRECTIVE}"}
TEMPLATE_NAMES = (*PLAIN_TEMPLATES, *CHAT_TEMPLATES)


def check_template(template: str) -> None:
    """Raises ValueError, naming the nearest name, unless ``template`` is a name or contains ``{prompt}``."""
    if template not in TEMPLATE_NAMES and PLACEHOLDER not in template:
        raise ValueError(
            f"unknown prompt template {template!r:.80}{nearest(template, TEMPLATE_NAMES)} (or any text containing {PLACEHOLDER})"
        )


def render_prompt(template: str, problem: str, tokenizer: Tokenizer) -> tuple[str, list[int]]:
    """The prompt's text and its token ids.

    Only ``{prompt}`` is replaced; every other brace stands for itself, in the template and in the problem. A plain
    text begins with one BOS if the tokenizer wants one; a chat template writes its own.

    Raises:
      ValueError: unknown template; ChatTemplateError (a ValueError): a chat template is needed and there is none.
    """
    check_template(template)
    if template in CHAT_TEMPLATES:
        content = CHAT_TEMPLATES[template].replace(PLACEHOLDER, problem)
        text = tokenizer.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
        return text, tokenizer.encode(text)
    text = PLAIN_TEMPLATES.get(template, template).replace(PLACEHOLDER, problem)
    return text, tokenizer.encode(text, add_bos=tokenizer.adds_bos)


def fill(template: str, **values: str) -> str:
    """Replaces ``{name}`` by its value, from left to right and once: braces in a value stand for themselves."""
    found: list[str] = []
    rest = template
    while rest:
        places = {rest.find("{" + name + "}"): name for name in values if "{" + name + "}" in rest}
        if not places:
            break
        first = min(places)
        name = places[first]
        found += [rest[:first], values[name]]
        rest = rest[first + len(name) + 2 :]
    return "".join([*found, rest])
