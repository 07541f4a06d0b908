"""The format rewards are not satisfied by anything less than the form."""

import pytest

from r1jax.rewards import format_reward, think_format_reward


@pytest.mark.parametrize(
    "completion",
    [
        "<think> I add. </think> <answer> 4 </answer>",
        "<think>8-7=1 wait 7*3=21</think><answer>7*3</answer>",
        "\n<think>\n思考\n</think>\n\n<answer>四</answer>\n",
    ],
)
def test_the_form(completion):
    assert format_reward(completion) == 1.0


@pytest.mark.parametrize(
    "completion",
    [
        "",
        "<think></think><answer>4</answer>",
        "<think>   \n</think><answer>4</answer>",
        "<think>\u200b\u200d</think><answer>4</answer>",
        "<think>...</think><answer>4</answer>",
        "<think>\u3164</think><answer>4</answer>",  # a letter that nobody sees
        "<think>a</think><answer></answer>",
        "<think>a</think><answer> </answer>",
        "<think>a</think>4",
        "<think>a</think><answer>4",
        "a</think><answer>4</answer>",
        "<answer>4</answer><think>a</think>",
        "</think>a<think></answer>4<answer>",
        "<think>a<answer>4</answer></think>",
        "<think>a<answer></think>4</answer>",
        "<think>a</think><think>b</think><answer>4</answer>",
        "<think><think>a</think><answer>4</answer>",
        "<think>a</think><answer>4</answer><answer>5</answer>",
        "<think>a</think></think><answer>4</answer>",
        "<think>a</think> so <answer>4</answer>",
        "well <think>a</think><answer>4</answer>",
        "<think>a</think><answer>4</answer> and more",
        "<THINK>a</THINK><answer>4</answer>",
        "< think>a</think><answer>4</answer>",
    ],
)
def test_what_is_not_the_form(completion):
    assert format_reward(completion) == 0.0


def test_the_form_of_a_prompt_that_opened_the_thought():
    assert think_format_reward("I add.\n</think>\n\nIt is 4.") == 1.0
    for bad in (
        "",
        "</think>4",
        "  </think>4",
        "a</think>",
        "a</think> \n",
        "a",
        "a</think></think>4",
        "<think>a</think>4",
        "a</think>b<think>",
    ):
        assert think_format_reward(bad) == 0.0, bad
