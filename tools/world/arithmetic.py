"""Multi-step arithmetic as short stories: somebody has some things, gets some, loses some."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from world.splits import split_of

NAMES = {"en": ("Tom", "Ann", "Ben", "Eve"), "zh": ("小明", "小红", "小刚", "小丽")}
THINGS = {"en": ("apples", "books", "cards", "eggs"), "zh": ("苹果", "书", "卡片", "鸡蛋")}
LARGEST_TOTAL = 24


@dataclass(frozen=True)
class Story:
    """``start`` things, then ``changes`` (positive: got, negative: lost); no total leaves 0..LARGEST_TOTAL."""

    start: int
    changes: tuple[int, ...]
    name: int
    thing: int

    @property
    def answer(self) -> int:
        return self.start + sum(self.changes)

    @property
    def key(self) -> str:
        """The canonical problem: the sums alone, changes in any order; no names, no language."""
        return f"story {self.start} {' '.join(map(str, sorted(self.changes)))}"

    def text(self, language: str) -> str:
        name, thing = NAMES[language][self.name], THINGS[language][self.thing]
        if language == "zh":
            steps = "，".join(f"又得{c}个" if c > 0 else f"少了{-c}个" for c in self.changes)
            return f"{name}有{self.start}个{thing}，{steps}。有几个？"
        steps = ", ".join(f"gets {c}" if c > 0 else f"loses {-c}" for c in self.changes)
        return f"{name} has {self.start} {thing}, {steps}. How many?"

    def reasoning(self, words: tuple[str, str]) -> str:
        """The steps in order; ``words``: (what opens the first step, what joins the others)."""
        total, steps = self.start, []
        for change in self.changes:
            steps.append(f"{total}{'+' if change > 0 else '-'}{abs(change)}={total + change}")
            total += change
        return words[0] + words[1].join(steps)


def draw_story(random: Random, split: str) -> Story:
    """A story of two or three changes."""
    while True:
        total = start = random.randint(2, 12)
        changes = []
        for _ in range(random.choice((2, 2, 3))):
            options = [c for c in range(-9, 10) if abs(c) >= 2 and 0 <= total + c <= LARGEST_TOTAL]
            changes.append(random.choice(options))
            total += changes[-1]
        story = Story(start, tuple(changes), random.randrange(4), random.randrange(4))
        if split_of(story.key) == split:
            return story
