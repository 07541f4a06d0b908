"""The order of reasoning and general prompts: a function of the place alone."""

import numpy as np
import pytest

from r1jax.evaluation.grading import Prompt
from r1jax.pipeline.grpo.prompts import PromptMix


def prompts(name, count):
    return [Prompt(f"{name}{i}", np.array([i], np.int32), {}) for i in range(count)]


def mix(share, begin, general=6):
    made = PromptMix(prompts("r", 10), prompts("g", general), share, seed=3)
    made.general_index = begin
    return made


@pytest.mark.parametrize("share", [0.25, 0.3, 0.5, 2 / 3])
def test_the_order_does_not_depend_on_how_much_is_taken(share):
    whole = mix(share, 8).take(0, 60)
    for size in (1, 4, 7):
        pieces = np.concatenate([mix(share, 8).take(start, min(size, 60 - start)) for start in range(0, 60, size)])
        assert pieces.tolist() == whole.tolist()
    assert (whole[:8] < 10).all()
    assert (whole[8:] >= 10).sum() == int(52 * share + 1e-9)


def test_a_rollout_has_its_share_and_epochs_are_whole():
    order = mix(0.25, 16)
    rollouts = [order.take(start, 8) for start in range(0, 160, 8)]
    assert [(r >= 10).sum() for r in rollouts] == [0, 0] + [2] * 18
    general = np.concatenate(rollouts)
    general = general[general >= 10]
    assert sorted(general[:6]) == sorted(general[6:12]) == list(range(10, 16))
    reasoning = np.concatenate(rollouts)
    reasoning = reasoning[reasoning < 10]
    assert sorted(reasoning[:10]) == list(range(10))


def test_without_general_prompts_it_is_the_plain_order():
    from r1jax.data import PromptOrder

    plain = PromptOrder(10, 3)
    plain.restore({"next_index": 5})
    assert mix(0.5, 0, general=0).take(5, 12).tolist() == mix(0.5, None).take(5, 12).tolist() == plain.take(12)
