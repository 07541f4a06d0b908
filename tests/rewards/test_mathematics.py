"""verify_math: equal and unequal answers, real data against itself, and what must not hang or run."""

import importlib.util
import json
import os
import time
from pathlib import Path

import pytest

from r1jax.rewards import Verdict, answer_key, grade_math, same_answer, verify_math
from r1jax.rewards.answer import guess
from r1jax.rewards.expressions.reading.parser import parse

EQUAL = r"""
72 | 72
72 | 72.0
72 | +72 | no key
72 | 7２
072 | 72
1,000 | 1000
10,\!080 | 10080
11,\! 111,\! 111,\! 100 | 11111111100
2{,}016{,}532 | 2,016,532
\$18.90 | 18.9
\$32,\!348 | 32,348 dollars
-5 | −5
1.5e3 | 1500
3\times 10^5 | 300000
1/2 | 0.5
\frac12 | 1/2
\dfrac{1}{2} | \tfrac{2}{4}
\frac9{19} | \frac{9}{19}
\frac{270}7\text{ degrees} | 270/7
-\frac{1}{3} | \frac{-1}{3}
0.\overline{3} | 1/3
½ | .5
137 \frac{1}{2} | 137.5
137 1/2 | 275/2
-15\frac{3}{5} | -15.6
50\% | 0.5
50\% | 50 | no key
\sqrt{8} | 2\sqrt{2}
\sqrt{16} | 4
\sqrt[3]{-8} | -2
\frac{\sqrt{3}}{3} | 1/\sqrt3
2\sqrt5 | 2*sqrt(5)
\frac{3\pi}{4} | 3π/4
e^{2} | e^2
5! | 120
\binom{5}{2} | 10
\log_2 8 | 3
6 - 5i | -5i+6
x^2 | x²
(a+5)(b+2) | ab+2a+5b+10
x^3+3x-6 | -6+3x+x^{3}
\frac{1}{x-1} | -\frac{1}{1-x}
2k+2 | 2(k+1)
\cot x | \frac{\cos x}{\sin x}
\sin^2 t | 1 - \cos^2 t
|x| | \sqrt{x^2}
(1,2) | ( 1 , 2 )
\left( 3, \frac{\pi}{2} \right) | (3, \pi/2)
(-\infty, 0] | (-∞,0]
(-\infty, 2) \cup (3, \infty) | (3,\infty)∪(-\infty,2)
x \in [-2,7] | [-2,7]
-80\leq g(x)\leq 82 | [-80,82]
x > 5 | (5,\infty)
x<1 \text{ or } x>3 | (-\infty,1)\cup(3,\infty)
x=5 | 5
5 | x = 5
y = 2x + 3 | 2x+3
y = 2x + 3 | y = 3 + 2x
AB=12+12\sqrt{3} | 12+12\sqrt3
5x - 7y + 11z + 4 = 0 | 10x-14y+22z+8=0
3, 5, 7 | 7,5,3
6, 8\text{, and }10 | 10, 8, 6
1,-2 | \{-2,1\}
\sqrt{2} | 1.4142135623730951 | no key
\pi | 3.14159265358979 | no key
1 \pm \sqrt{19} | 1+\sqrt{19}, 1-\sqrt{19}
\{1\pm\sqrt{5},-2\} | \{-2, 1-\sqrt5, 1+\sqrt5\}
3:2 | 6:4
100,101 | 100, 101 | no key
2516_8 | 2516_{8}
2516_8 | 2516 | no key
\begin{pmatrix} -1 & 0 \\ 0 & -1 \end{pmatrix} | \begin{bmatrix}-1&0\\0&-1\end{bmatrix}
\begin{pmatrix} 1/5 \\ -18/5 \end{pmatrix} | (0.2, -3.6)
90^\circ | 90 degrees
90^\circ | 90°
5.4 \text{ cents} | 5.4
864 \mbox{ inches}^2 | 864 square inches
9 | 9页
\text{(B)} | B
\text{(C)} | (C) 17
B | B. Paris
\text{Evelyn} | evelyn.
\text{even} | Even
\text{odd} | Odd | no key
\mbox{four} | 4
72 | The answer is 72.
72 | So the total cost is $72.
72 | **72**
\frac{3}{4} | Thus we get $\frac{3}{4}$.
72 | 70 + 2 = 72
Natalia sold 48+24 = 72 clips. #### 72 | <think>x</think> <answer>72</answer>
18 | <think>a \boxed{3}</think> Therefore \boxed{18}
18 | \boxed{18 \text{ dollars}}
18 | \boxed{\text{18 dollars}}
"""

UNEQUAL = r"""
72 | 73
72 | -72
72 | 7.2
72 | 7 2
0.5 | 0.05
1/2 | 1/3
1,000 | 100
\frac13 | 0.3333
\sqrt{2} | 1.4142
\pi | 3.14159265358978
262537412640768744 | e^{\pi\sqrt{163}}
10^{10} | 10^{11}
50\% | 0.5\%
(1,2) | (2,1)
(1,2) | [1,2]
(1,2] | (1,2)
(1,2) | (1,2,3)
x=5 | y=5
3,5 | 3,5,7
1,1 | 1
3 | 3, 5
2x | 3x
2x | 2y
x^2 | x^3
x | |x|
y=2x+3 | y=2x-3
x>5 | x \ge 5
x>5 | x<5
5x+y=0 | 5x-y=0
3:2 | 2:3
1:2:3 | 1:3:2
2516_8 | 2517_8
2516_8 | 2516_9
\begin{pmatrix}1\\2\end{pmatrix} | (2,1)
\begin{pmatrix}1&2\\3&4\end{pmatrix} | \begin{pmatrix}1&3\\2&4\end{pmatrix}
90^\circ | 91^\circ
\text{(B)} | (C)
B | Because it is so
A | An apple
Evelyn | Evan
east | west
1 \pm \sqrt{19} | 1 + \sqrt{19}
7 | 1/0
7 | \infty
18 | <think>18</think>
18 | <think>so it is 18
18 | <think>a</think> <answer></answer>
18 | <answer>17</answer> although 18 would be nice: <answer>19</answer>
27 | 2‮7
72 | ７３
"""


def pairs(table):
    return [tuple(part.strip() for part in line.split(" | ")) for line in table.strip().split("\n")]


@pytest.mark.parametrize("pair", pairs(EQUAL), ids=" = ".join)
def test_equal(pair):
    gold, prediction = pair[:2]
    assert grade_math(gold, prediction)[0] is Verdict.RIGHT, grade_math(gold, prediction)
    if len(pair) == 2:  # what only a look at the gold answer can join has no common key
        assert same_answer(gold, prediction), (answer_key(gold), answer_key(prediction))


@pytest.mark.parametrize("pair", pairs(UNEQUAL), ids=" # ".join)
def test_unequal(pair):
    assert grade_math(*pair)[0] is Verdict.WRONG, grade_math(*pair)


def test_the_truth_value_is_right():
    assert verify_math("72", "72") and not verify_math("72", "71")


@pytest.mark.parametrize(
    ("gold", "prediction"),
    [("", "5"), ("72", "10^{10^{10}}"), ("\\frac{1}{0}", "5"), ("\\foo{1}", "5"), ("\\oint_C x dx", "1/2")],
)
def test_what_it_cannot_decide_is_ungraded(gold, prediction):
    verdict, reason = grade_math(gold, prediction)
    assert verdict is Verdict.UNGRADED and reason


def test_an_answer_as_the_gold_writes_it_is_right_even_if_it_cant_be_read():
    assert verify_math("\\frac{1}{7}\\triangle ABC", "\\boxed{\\frac{1}{7} \\triangle ABC}")


def test_keys_group_votes():
    votes = ["<answer>1/2</answer>", "\\boxed{0.5}", "\\boxed{\\frac{1}{2}}", "\\boxed{2}", "no", "<think>1/2"]
    keys = [answer_key(vote) for vote in votes]
    assert keys[0] == keys[1] == keys[2] != keys[3] and keys[5] is None
    assert len({k for k in keys if k is not None}) == 3
    assert not same_answer("<think>1", "<think>1")


def test_plain_numbers_are_fast():
    """Tens of thousands a second on one core; a tenth of that here, for a busy machine."""
    cases = [(str(i), f"<think>so</think> <answer>{i + i % 2}</answer>") for i in range(5_000)]
    start = time.process_time()
    right = sum(bool(verify_math(gold, prediction)) for gold, prediction in cases)
    assert right == 2_500 and time.process_time() - start < 1


PAIRS = sorted((Path(__file__).parents[1] / "data" / "mathematics").glob("*.txt"))


def labelled():
    """(family, label, gold, prediction) of each labelled pair."""
    family = None
    for line in "\n".join(path.read_text() for path in PAIRS).splitlines():
        if line.startswith("# "):
            family = line[2:]
        elif line:
            label, gold, prediction = (part.strip() for part in f"{line} ".split(" ;; "))
            yield family, label, gold, prediction.replace("⏎", "\n")


FAMILIES = list(dict.fromkeys(case[0] for case in labelled()))


@pytest.mark.parametrize("family", FAMILIES)
def test_labelled_pairs(family):
    cases = [case for case in labelled() if case[0] == family]
    assert {label for _, label, _, _ in cases} == {"right", "wrong"}
    verdicts = [(gold, prediction, label, grade_math(gold, prediction)) for _, label, gold, prediction in cases]
    assert [case for case in verdicts if (case[3][0] is Verdict.RIGHT) != (case[2] == "right")] == []


@pytest.mark.parametrize("family", FAMILIES)
def test_every_answer_is_itself(family):
    golds = {gold for name, _, gold, _ in labelled() if name == family}
    assert [gold for gold in golds if not verify_math(gold, gold)] == []


def test_votes_agree_with_verdicts():
    """Wrong answers share a key only where votes leave out what differs: a unit, a name, the sign of x."""
    cases = list(labelled())
    right = [same_answer(gold, prediction) for _, label, gold, prediction in cases if label == "right"]
    assert sum(right) > 0.9 * len(right)
    mixed = {
        (gold, prediction) for _, label, gold, prediction in cases if label == "wrong" and same_answer(gold, prediction)
    }
    of_units = {
        pair
        for pair in mixed
        if all(parse(guess(side) or side).kind == "unit" or parse(side).kind == "unit" for side in pair)
    }
    assert mixed - of_units == {("x", "|x|"), ("x=5", "y=5")}


DATA = Path(os.environ.get("R1JAX_DATA", Path(__file__).parents[3] / "shared/data"))


@pytest.mark.parametrize("file", ["math/math500.jsonl", "math/gsm8k_test.jsonl"])
def test_gold_answers_are_right_and_others_wrong(file):
    path = DATA / file
    if not path.exists():
        pytest.skip(f"{path} is not there: set R1JAX_DATA")
    golds = [json.loads(line)["answer"] for line in path.read_text().splitlines()]
    answers = [gold.rpartition("####")[2].strip() for gold in golds]
    failed = [gold for gold, answer in zip(golds, answers) if not verify_math(gold, f"<think>a</think> \\boxed{{{answer}}}")]
    assert failed == []
    shifted = answers[1:] + answers[:1]
    verdicts = [verify_math(gold, answer) for gold, answer in zip(golds, shifted)]
    assert Verdict.UNGRADED not in verdicts
    assert sum(map(bool, verdicts)) < 0.02 * len(golds)  # neighbours that happen to share their answer


@pytest.fixture(scope="module")
def benchmark():
    path = Path(__file__).parents[2] / "tools" / "benchmarks" / "math_rewards.py"
    spec = importlib.util.spec_from_file_location("math_rewards", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_labelled_pairs_of_the_benchmark_are_these(benchmark):
    ours = [((gold, prediction), label == "right") for _, label, gold, prediction in labelled()]
    assert benchmark.labelled_pairs() == ours
    verdicts = ["right" if label else "wrong" for _, label in ours]
    labels = [label for _, label in ours]
    assert benchmark.balanced(verdicts, labels) == 1 and benchmark.balanced(["right"] * len(ours), labels) == 0.5


@pytest.mark.parametrize("file", ["math500", "gsm8k_test", "cmath_zh"])
def test_perturbed_answers_are_wrong_and_rewritten_ones_right(file, benchmark):
    path = DATA / "math" / f"{file}.jsonl"
    if not path.exists():
        pytest.skip(f"{path} is not there: set R1JAX_DATA")
    golds = benchmark.answers(path)
    wrong = list(benchmark.perturbed(golds, 1_500, seed=1))
    assert len({change for _, _, change in wrong}) >= (10 if file == "math500" else 3)
    assert [case for case in wrong if verify_math(case[0], f"Hence \\boxed{{{case[1]}}}.")] == []
    forms = [(gold, form) for gold in golds[:400] for form in benchmark.rewritten(gold)]
    assert len(forms) > 800 and [pair for pair in forms if not verify_math(pair[0], f"Hence \\boxed{{{pair[1]}}}.")] == []
