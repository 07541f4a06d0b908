"""Who sits where: the host's book-keeping of slots, a function of the wave and of what finished, never of the clock."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import numpy as np

from r1jax.rollout.wave import Wave


def ladder(first: int, last: int) -> tuple[int, ...]:
    """Lengths of buckets: ``first`` doubled until it covers ``last``; the final one is cut to ``last`` rounded up to 16."""
    end = -(-last // 16) * 16
    steps = [min(first, end)]
    while steps[-1] < last:
        steps.append(min(2 * steps[-1], end))
    return tuple(steps)


def prompt_bucket(first: int, longest: int) -> int:
    """``first``, doubled until it holds the ``longest`` prompt. Never cut to it: waves would compile for their own lengths."""
    while first < longest:
        first *= 2
    return first


def row_ladder(rows: int, multiple: int) -> tuple[int, ...]:
    """Numbers of prompt rows: ``rows`` and a quarter of them, each a multiple of the mesh's shards."""
    steps = (-(-rows // multiple) * multiple, -(-rows // 4 // multiple) * multiple)
    return tuple(sorted(set(steps), reverse=True))


@dataclass
class Admission:
    """New work for the slots: prompts to prefill and sequences to start.

    Attributes:
      prompts: (row, position of the prompt in the wave).
      lanes: (lane ``row * N + n``, position of the prompt in the wave, number of the sample).
    """

    prompts: list[tuple[int, int]] = field(default_factory=list)
    lanes: list[tuple[int, int, int]] = field(default_factory=list)


class Slots:
    """P rows of N lanes. A row holds one prompt; its lanes take that prompt's samples in turn; a freed lane takes the
    next sample of its prompt, a freed row the next prompt."""

    def __init__(self, wave: Wave, rows: int, lanes: int):
        self.lanes = lanes
        self._wave = wave
        self._waiting = deque(range(len(wave.prompts)))
        self.prompt = np.full(rows, -1)  # position in the wave, -1: free
        self._next_sample = np.zeros(rows, int)  # of the row's prompt
        self.sample = np.full((rows, lanes), -1)  # -1: idle

    @property
    def rows(self) -> int:
        return len(self.prompt)

    @property
    def prompts_waiting(self) -> bool:
        return bool(self._waiting)

    @property
    def work_waiting(self) -> bool:
        """Whether an idle lane could be given work: a prompt waits, or a row has samples left."""
        return self.prompts_waiting or bool(((self.prompt >= 0) & (self._next_sample < self._wave.samples)).any())

    @property
    def finished(self) -> bool:
        return not self.prompts_waiting and not (self.prompt >= 0).any()

    def admit(self) -> Admission:
        """Gives waiting work to free rows and idle lanes."""
        admission = Admission()
        for row in np.flatnonzero(self.prompt < 0):
            if not self._waiting:
                break
            self.prompt[row] = self._waiting.popleft()
            self._next_sample[row] = 0
            admission.prompts.append((int(row), int(self.prompt[row])))
        for row, lane in np.argwhere((self.sample < 0) & (self.prompt >= 0)[:, None]):
            if self._next_sample[row] < self._wave.samples:
                self.sample[row, lane] = self._next_sample[row]
                self._next_sample[row] += 1
                admission.lanes.append(
                    (int(row) * self.lanes + int(lane), int(self.prompt[row]), int(self.sample[row, lane]))
                )
        return admission

    def finish(self, active: np.ndarray) -> list[tuple[int, int, int]]:
        """Frees the lanes that are no longer active ``[P*N]``; returns (lane, prompt, sample) of each, in lane order."""
        done = (self.sample >= 0) & ~active.reshape(self.sample.shape)
        finished = [
            (int(row) * self.lanes + int(lane), int(self.prompt[row]), int(self.sample[row, lane]))
            for row, lane in np.argwhere(done)
        ]
        self.sample[done] = -1
        empty = (self.sample < 0).all(1) & (self._next_sample >= self._wave.samples)
        self.prompt[empty] = -1
        return finished

    def occupied(self) -> np.ndarray:
        """Rows that hold a prompt."""
        return np.flatnonzero(self.prompt >= 0)

    def move(self, source: np.ndarray) -> None:
        """Takes the rows ``source`` (-1: an empty one) as the new rows."""
        empty = source < 0
        self.prompt = np.where(empty, -1, self.prompt[source])
        self._next_sample = np.where(empty, 0, self._next_sample[source])
        self.sample = np.where(empty[:, None], -1, self.sample[source])
