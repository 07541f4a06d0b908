"""What a judge is asked: the built-in prompts, or those of a folder of one's own.

    reference.txt   holds {question}, {reference} and {answer}; asks for JSON with ``correctness``, correct or incorrect
    pair.txt        holds {question}, {a} and {b}; asks for one of [[A>>B]] [[A>B]] [[A=B]] [[B>A]] [[B>>A]]
    template.txt    the prompt template around them (``data.template``: ``chat``, ``none``, a text with {prompt}); may be missing

``prompts/chat`` is for chat models. ``prompts/plain`` is the short form in which small base models learn to judge. A folder
that lacks one of the two texts serves for the other one alone.
"""

from __future__ import annotations

import importlib.resources
from dataclasses import dataclass

from etils import epath

from r1jax.config import JUDGE_PROMPTS, nearest
from r1jax.data.template import TEMPLATE_NAMES, check_template, fill

PLACES = {"reference": ("question", "reference", "answer"), "pair": ("question", "a", "b")}


@dataclass(frozen=True)
class JudgePrompts:
    """Texts by form (``reference``, ``pair``), and the template around them."""

    texts: dict[str, str]
    template: str

    def render(self, form: str, **fields: str) -> str:
        """A request; braces in a field stand for themselves.

        Raises:
          ValueError: there is no text of that form.
        """
        if form not in self.texts:
            raise ValueError(f"the judge's prompts have no {form}.txt; they have {', '.join(self.texts)}")
        return fill(self.texts[form], **fields)


def load_judge_prompts(name: str) -> JudgePrompts:
    """The built-in prompts of that name, or those in that folder.

    Raises:
      ValueError: neither, a text without its placeholders, an unknown template.
    """
    folder = epath.Path(name)
    if name in JUDGE_PROMPTS:
        folder = importlib.resources.files("r1jax.scoring") / "prompts" / name
    elif not folder.is_dir():
        raise ValueError(
            f"the judge's prompts {name!r} are no folder{nearest(name, JUDGE_PROMPTS)} (or {' or '.join(JUDGE_PROMPTS)})"
        )
    texts = {}
    for form, places in PLACES.items():
        if not (folder / f"{form}.txt").is_file():
            continue
        texts[form] = (folder / f"{form}.txt").read_text(encoding="utf-8")
        missing = [place for place in places if "{" + place + "}" not in texts[form]]
        if missing:
            raise ValueError(f"the judge's prompt {folder / form}.txt must contain {{{missing[0]}}}")
    if not texts:
        raise ValueError(f"the judge's prompts in {folder}: there is neither reference.txt nor pair.txt")
    template = "chat"
    if (folder / "template.txt").is_file():
        template = (folder / "template.txt").read_text(encoding="utf-8")
        template = template.strip() if template.strip() in TEMPLATE_NAMES else template
    try:
        check_template(template)
    except ValueError as error:
        raise ValueError(f"the judge's prompts in {folder}: template.txt: {error}") from None
    return JudgePrompts(texts, template)
