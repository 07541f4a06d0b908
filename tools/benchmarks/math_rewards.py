"""verify_math in figures: its speed on one core, and how often it errs, beside math-verify's where that is installed.

    python tools/benchmarks/math_rewards.py [--data ../shared/data/math] [--math-verify /path/to/its/python] [--wrong 4000]

Prints one table. Rates are of verdicts that are not what they should be:

- labelled pairs: ``tests/data/mathematics/*.txt``, written for r1jax; balanced accuracy over right and wrong ones.
- gold against itself: each answer of a data set, boxed, must be right.
- rewritten: an answer in another spelling (``a/b``, ``\\dfrac``, blanks, Unicode, a name before it) must be right.
- perturbed: an answer with a digit, a sign, a bracket, an element, a unit or a power of ten changed must not be right. The
  changes are drawn with a fixed seed; ``--show`` prints those that were called right.

math-verify is called with its defaults (its time limits off, as it must be outside a main thread) on the text in dollar signs.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAIRS = ROOT / "tests" / "data" / "mathematics"
Pair = tuple[str, str]


# ---------------------------------------------------------------------------------------------- cases
def labelled_pairs() -> list[tuple[Pair, bool]]:
    """The labelled pairs of the tests: ((gold, prediction), whether it is right)."""
    cases = []
    for path in sorted(PAIRS.glob("*.txt")):
        for line in path.read_text().splitlines():
            if line and not line.startswith("#"):
                label, gold, prediction = [part.strip() for part in f"{line} ".split(" ;; ")]
                cases.append(((gold, prediction.replace("⏎", "\n")), label == "right"))
    return cases


def answers(path: Path) -> list[str]:
    """The final answers of a data set."""
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    found = [str(row["answer"] if "answer" in row else row["Answer"]).rpartition("####")[2].strip() for row in rows]
    return [answer for answer in found if answer]


def _digit(answer: str, rng: random.Random) -> str | None:
    places = [m.start() for m in re.finditer(r"[0-9]", answer)]
    if not places:
        return None
    place = rng.choice(places)
    return answer[:place] + rng.choice([d for d in "123456789" if d != answer[place]]) + answer[place + 1 :]


def _sign(answer: str, rng: random.Random) -> str | None:
    if "\\pm" in answer or not re.search("[1-9]", answer) or not re.match(r"-?\s*(?:\\frac|\\d?frac|\\sqrt|[0-9.])", answer):
        return None
    if re.search(r"[-+,:=]", answer[1:]) or "text" in answer and not re.match("-?[0-9]", answer):
        return None
    return answer[1:].strip() if answer.startswith("-") else f"-{answer}"


def _bracket(answer: str, rng: random.Random) -> str | None:
    if not re.fullmatch(r"[(\[][^()\[\]]*,[^()\[\]]*[)\]]", answer) or "infty" in answer:
        return None
    swapped = {"(": "[", "[": "(", ")": "]", "]": ")"}
    return swapped[answer[0]] + answer[1:] if rng.random() < 0.5 else answer[:-1] + swapped[answer[-1]]


def _missing(answer: str, rng: random.Random) -> str | None:
    opening, closing = re.match(r"(\\left)?(\\\{|[(\[])?", answer)[0], re.search(r"(\\right)?(\\\}|[)\]])?$", answer)[0]
    inner = answer[len(opening) : len(answer) - len(closing)].split(",")
    if len(inner) < 3 or re.search(r"[0-9],[0-9\\]", answer) or any(c in "".join(inner) for c in "()[]{}"):
        return None
    del inner[rng.randrange(len(inner))]
    return opening + ",".join(inner) + closing


def _swapped(answer: str, rng: random.Random) -> str | None:
    match = re.fullmatch(r"((?:\\left)?\()([^(),]+),([^(),]+)((?:\\right)?\))", answer)
    if not match or match[2].strip() == match[3].strip():
        return None
    return f"{match[1]}{match[3]},{match[2]}{match[4]}"


def _inverted(answer: str, rng: random.Random) -> str | None:
    match = re.fullmatch(r"\\d?frac\{([0-9]+)\}\{([0-9]+)\}", answer)
    return f"\\frac{{{match[2]}}}{{{match[1]}}}" if match and match[1] != match[2] else None


def _tenfold(answer: str, rng: random.Random) -> str | None:
    match = re.fullmatch(r"(-?[0-9]*[1-9][0-9]*)(\\%|%| ?\\text\{.*\})?", answer)
    return f"{match[1]}{rng.choice(['0', '00', '000'])}{match[2] or ''}" if match else None


def _hundredth(answer: str, rng: random.Random) -> str | None:
    match = re.fullmatch(r"([0-9]+)\\?%", answer)
    return rng.choice([f"0.{match[1]}\\%", f"{match[1]}00\\%", f"{match[1]}00"]) if match and match[1] != "0" else None


def _unit(answer: str, rng: random.Random) -> str | None:
    for units in (("cm", "mm", "km"), ("inches", "feet", "miles"), ("hours", "minutes", "days"), ("cents", "dollars")):
        for unit in units:
            if re.search(rf"\\text\{{\s*{unit}\s*\}}", answer):
                return answer.replace(unit, rng.choice([u for u in units if u != unit]))
    return None


def _relation(answer: str, rng: random.Random) -> str | None:
    for old, new in (("\\le ", "<"), ("\\leq", "<"), ("\\ge ", ">"), ("\\geq", ">"), ("<", ">"), (">", "<")):
        if old in answer:
            return answer.replace(old, f"{new} ", 1)
    return None


def _letter(answer: str, rng: random.Random) -> str | None:
    match = re.fullmatch(r"(\\text\{\(?)?([A-E])(\)?\})?", answer)
    return (match[1] or "") + rng.choice([c for c in "ABCDE" if c != match[2]]) + (match[3] or "") if match else None


def _name(answer: str, rng: random.Random) -> str | None:
    plain = re.sub(r"\\[a-zA-Z]+(?:\{[^{}]*\})?", "", answer)
    names = sorted(set(re.findall(r"(?<![a-zA-Z])[a-z](?![a-zA-Z])", plain)) - {"e", "i"})
    if not names or "=" in answer or "text" in answer:
        return None
    return re.sub(rf"(?<![a-zA-Z\\]){names[0]}(?![a-zA-Z])", "w", answer)


def _more(answer: str, rng: random.Random) -> str | None:
    return None if re.search(r"[=<>%]|text|ge|le|,|\\in|:|_|infty|pm", answer) else f"{answer} + 1"


CHANGES: tuple[Callable[[str, random.Random], str | None], ...] = (
    _digit, _sign, _bracket, _missing, _swapped, _inverted, _tenfold, _hundredth, _unit, _relation, _letter, _name, _more,
)  # fmt: skip


def perturbed(golds: Sequence[str], count: int, seed: int = 0) -> Iterator[tuple[str, str, str]]:
    """(gold, wrong answer, name of the change): ``count`` of them, from answers drawn at random."""
    rng = random.Random(seed)
    made = 0
    while made < count:
        gold = rng.choice(golds)
        changes = [(change.__name__[1:], wrong) for change in CHANGES if (wrong := change(gold, rng)) and wrong != gold]
        if changes:
            name, wrong = rng.choice(changes)
            made += 1
            yield gold, wrong, name


def rewritten(answer: str) -> list[str]:
    """Other ways to write the same answer."""
    forms = [
        answer.replace("\\frac", "\\dfrac"),
        answer.replace("\\left", "").replace("\\right", ""),
        re.sub(r"(?<![a-zA-Z]) | (?![a-zA-Z])", "", answer),
        re.sub(r"\\\\d?frac\{([^{}]+)\}\{([^{}]+)\}", r"((\1)/(\2))", answer)
        if not re.search(r"[0-9]\\d?frac", answer)
        else "",
        re.sub(r"\^([0-9a-z])", r"^{\1}", answer),
        re.sub(r"\\sqrt\{([0-9]+)\}", r"√\1", answer),
        re.sub(r"\\(?:text|mbox)\{([^{}]*)\}", r"\\mathrm{\1}", answer) if " and " not in answer else "",
        answer.replace("pmatrix", "bmatrix"),
        answer.replace("\\pi", "π").replace("\\infty", "∞").replace("\\cup", "∪"),
        answer.replace("^\\circ", "°").replace("\\cdot", "·").replace("\\leq", "≤"),
    ]
    if match := re.fullmatch(r"\\d?frac\{([0-9]+)\}\{([0-9]+)\}", answer):
        forms += [f"{match[1]}/{match[2]}", f"\\frac{{{3 * int(match[1])}}}{{{3 * int(match[2])}}}"]
    if re.fullmatch(r"-?[0-9]+", answer):
        forms += [f"{answer}.0", f"x = {answer}", f"{answer} \\text{{ apples}}", f"{int(answer):,}", f"\\text{{{answer}}}"]
    if re.fullmatch(r"[-+0-9a-z^{}() ]*[a-z][-+0-9a-z^{}() ]*", answer) and "+" in answer and not re.search("[()]", answer):
        forms.append(" + ".join(reversed(answer.replace("-", "+-").split("+"))).replace("+  +", "+").strip("+ "))
    return [form for form in dict.fromkeys(forms) if form and form != answer]


# ---------------------------------------------------------------------------------------------- graders
def grade_ours(pairs: Sequence[Pair]) -> tuple[list[str], float]:
    from r1jax.rewards.mathematics import verify_math

    verify_math("x^2+\\sqrt{2}", "2")  # what is loaded once
    verify_math("x+x", "2x")
    start = time.process_time()
    verdicts = [str(verify_math(gold, prediction)) for gold, prediction in pairs]
    return verdicts, time.process_time() - start


def grade_theirs(pairs: Sequence[Pair]) -> tuple[list[str], float]:
    import logging

    from math_verify import parse, verify

    logging.disable(logging.CRITICAL)

    def wrapped(text: str) -> str:
        return text if re.search(r"[$\n]|boxed|####|nswer|\\\(|\\\[|答案|[a-z]{3,} [a-z]+ ", text) else f"${text}$"

    def grade(gold: str, prediction: str) -> str:
        try:
            sides = (parse(wrapped(text), parsing_timeout=None) for text in (gold, prediction))
            return "right" if verify(*sides, timeout_seconds=None) else "wrong"
        except Exception as error:  # whatever it does not catch itself
            return f"failed: {type(error).__name__}"

    grade("x+x", "2x")
    start = time.process_time()
    verdicts = [grade(gold, prediction) for gold, prediction in pairs]
    return verdicts, time.process_time() - start


def grade_elsewhere(python: str) -> Callable[[Sequence[Pair]], tuple[list[str], float]]:
    def grade(pairs: Sequence[Pair]) -> tuple[list[str], float]:
        done = subprocess.run(
            [python, __file__, "--serve"], input=json.dumps(list(pairs)), capture_output=True, text=True, check=True
        )
        verdicts, seconds = json.loads(done.stdout)
        return verdicts, seconds

    return grade


# ---------------------------------------------------------------------------------------------- the table
def balanced(verdicts: Sequence[str], labels: Sequence[bool]) -> float:
    """Mean of the share of right pairs called right and of the share of wrong pairs not called so."""
    shares = [
        sum((verdict == "right") == label for verdict, label in zip(verdicts, labels) if label is side) / labels.count(side)
        for side in (True, False)
    ]
    return sum(shares) / 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data" / "math")
    parser.add_argument(
        "--math-verify", metavar="PYTHON", help="a Python that has math-verify; default: this one, if it has"
    )
    parser.add_argument("--wrong", type=int, default=4_000, help="how many perturbed answers of each data set")
    parser.add_argument("--show", action="store_true", help="print what was misjudged")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        print(json.dumps(grade_theirs(json.load(sys.stdin))))
        return
    graders = {"r1jax": grade_ours}
    python = options.math_verify or sys.executable
    if subprocess.run([python, "-c", "import math_verify"], capture_output=True).returncode == 0:
        graders["math-verify"] = grade_elsewhere(python)

    rows: list[tuple[str, list[str]]] = []

    def row(name: str, cell: Callable[[str, list[str], float], str], pairs: Sequence[Pair]) -> None:
        rows.append((name, [cell(grader, *grade(pairs)) for grader, grade in graders.items()]))

    def speed(_: str, verdicts: list[str], seconds: float) -> str:
        return f"{len(verdicts) / seconds:,.0f}/s"

    numbers = [(str(i), f"<think>so</think> <answer>{i + i % 2}</answer>") for i in range(20_000)]
    row("plain numbers, answers a second", speed, numbers)
    symbolic = [(f"(x+{i})^2", f"x^2+{2 * i}x+{i * i + i % 2}") for i in range(1, 401)]
    row("polynomials, answers a second", speed, symbolic)
    cases = labelled_pairs()
    labels = [label for _, label in cases]
    pairs = [pair for pair, _ in cases]

    def accuracy(grader: str, verdicts: list[str], _: float) -> str:
        if options.show and grader == "r1jax":
            for pair, label, verdict in zip(pairs, labels, verdicts):
                if (verdict == "right") != label:
                    print(f"  {verdict}, should be {'right' if label else 'wrong'}: {pair}")
        return f"{balanced(verdicts, labels):.4f}"

    row(f"{len(cases)} labelled pairs, balanced accuracy", accuracy, pairs)
    for name in ("gsm8k_test", "math500", "math_train", "svamp", "cmath_zh"):
        path = options.data / f"{name}.jsonl"
        if not path.exists():
            print(f"{path} is not there: left out")
            continue
        golds = answers(path)

        def missed(grader: str, verdicts: list[str], _: float) -> str:
            return f"{sum(v != 'right' for v in verdicts)} of {len(verdicts)}"

        row(f"{name}: gold not right", missed, [(gold, f"So it is \\boxed{{{gold}}}.") for gold in golds])
        again = [(gold, f"So it is \\boxed{{{form}}}.") for gold in golds for form in rewritten(gold)]
        again = random.Random(0).sample(again, min(len(again), options.wrong))

        def unseen(grader: str, verdicts: list[str], _: float, again=again) -> str:
            if options.show and grader == "r1jax":
                for case, verdict in zip(again, verdicts):
                    if verdict != "right":
                        print(f"  {verdict}, should be right: {case}")
            return f"{sum(v != 'right' for v in verdicts)} of {len(verdicts)}"

        row(f"{name}: rewritten not right", unseen, again)
        wrong = list(perturbed(golds, options.wrong))

        def believed(grader: str, verdicts: list[str], _: float, wrong=wrong) -> str:
            if options.show and grader == "r1jax":
                for case, verdict in zip(wrong, verdicts):
                    if verdict == "right":
                        print(f"  right, should be wrong: {case}")
            return f"{sum(v == 'right' for v in verdicts)} of {len(verdicts)}"

        row(
            f"{name}: perturbed called right",
            believed,
            [(gold, f"So it is \\boxed{{{answer}}}.") for gold, answer, _ in wrong],
        )
    width = max(len(name) for name, _ in rows)
    print(f"{'':{width}}" + "".join(f"{name:>18}" for name in graders))
    for name, cells in rows:
        print(f"{name:{width}}" + "".join(f"{cell:>18}" for cell in cells))


if __name__ == "__main__":
    main()
