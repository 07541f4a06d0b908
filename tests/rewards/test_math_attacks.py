"""What must not hang, run, or fill the memory: the attack corpus of verify_math. Its worst cases are counted in steps."""

import ast
import inspect
import os
import resource
import sys
import time
import tracemalloc
from pathlib import Path

import pytest

import r1jax.rewards
from r1jax.rewards import Verdict, answer_key, grade_math, verify_math
from r1jax.rewards.expressions import values

BOMBS = {
    "tower": "10^{10^{10}}",
    "power tower": "9**9**9**9",
    "negative tower": "10^{-10^{10}}",
    "factorial": "100000!",
    "factorial tower": "((9!)!)!",
    "parentheses": "(" * 5000 + "72" + ")" * 5000,
    "open": "(" * 5000,
    "braces": "{" * 5000,
    "digits": "1" * 100_000,
    "decimals": "0." + "1" * 100_000,
    "scientific": "1e1000000",
    "boxes": "\\boxed{" * 20_000,
    "boxes of nothing": "\\boxed{}" * 20_000,
    "fractions": "\\frac" * 2000,
    "roots": "\\sqrt" * 900 + "2",
    "sines": "\\sin" * 900 + "x",
    "powers": "2^" * 900 + "2",
    "signs": "\\{1\\pm" * 28 + "1" + "\\}" * 28,
    "minus": "-" * 900 + "1",
    "long sum": "+".join(f"\\sin({i}x)" for i in range(120)),
    "list of roots": ",".join(f"\\sqrt{{{i}}}" for i in range(250)),
    "exponentials": "e^{e^{e^{e^{9}}}}",
    "great angle": "\\sin(10^{900})",
    "cancellation": "10^{900}+x-10^{900}",
    "symbols in exponents": "x^{x^{x^{x^{x}}}}",
    "binomial": "\\binom{1000000}{500000}",
    "dollars": "$" * 100_000,
    "blanks around a word": " " * 100_000 + "x" + " " * 100_000,
    "blanks around an end": " " * 100_000 + "</s>" + " " * 100_000,
    "ends of a sequence": "</s>" * 50_000,
    "tags": "<answer>" * 50_000,
    "commas": "1," * 50_000,
    "blanks": " " * 1_000_000 + "7",
    "inline": "\\(" * 50_000,
    "combining": "7" + "\u0301" * 3000,
    "surrogate": "\ud800 72",
    "control": "7\x002",
    "matrices": "\\begin{pmatrix}" * 300,
    # read further than a plain grammar
    "sum big": "\\sum_{k=1}^{10^{9}} k",
    "sum nested": "\\sum_{a=1}^{999}\\sum_{b=1}^{999}\\sum_{c=1}^{999} a b c",
    "sum nested sqrt": "\\sum_{a=1}^{999}\\sum_{b=1}^{999}\\sqrt{a b}",
    "prod": "\\prod_{k=1}^{999} k^{k}",
    "expand": "(a+b+c+d+e+f+g+h)^{50}",
    "expand2": "(x+y)^{100000}",
    "expand3": "(x^{99999}+1)^{9}(x+1)^{99}",
    "poly product": "".join(f"(x+{i}y+{i * i}z+w^{i})" for i in range(60)),
    "roots of eight": "x^{8}+123456789x^7-987654321x^3+2x>0",
    "roots9": "x^{999}>0",
    "abs": "||x-1|-2|<3",
    "abs3": "|x|+|x-1|+|x-2|<9",
    "ineq": "(x-1)(x-2)(x-3)(x-4)(x-5)(x-6)(x-7)(x-8)>0",
    "union": "\\cup".join(f"({i},{i + 1})" for i in range(200)),
    "union23": "\\cup".join(f"[{i},{i}.5)" for i in range(23)),
    "inter": "\\cap".join(f"({-i},{i + 1})" for i in range(23)),
    "det": "\\begin{vmatrix}" + "\\\\".join("&".join(["x"] * 4) for _ in range(4)) + "\\end{vmatrix}",
    "det9": "\\begin{vmatrix}" + "\\\\".join("&".join(["x"] * 9) for _ in range(9)) + "\\end{vmatrix}",
    "int": "\\int_0^{10^{100}} x^{9999} dx",
    "int2": "\\int_0^1 (x+y+z)^{50} dx",
    "int3": "\\int" * 200 + "x dx",
    "gamma": "\\binom{x}{y}+\\binom{y}{z}+x!y!z!",
    "gamma cancel": "x!+10^{200}-10^{200}",
    "pmod": "x \\pmod " * 200,
    "gcd": "\\gcd(" + ",".join(["9" * 900] * 3) + ")",
    "lcm": "\\operatorname{lcm}(" + ",".join(str(10**300 + i) for i in range(10)) + ")",
    "factorials": "1000!^{1000!}",
    "factdiv": "\\frac{1000!}{999!}\\cdot" * 20 + "1",
    "big exp": "(1000!)^{3}",
    "gamma list": ",".join(f"({i}.5)!" for i in range(60)),
    "trig list": ",".join(f"\\sin({i})" for i in range(120)),
    "sqrtsum": "+".join(f"\\sqrt{{{i}}}" for i in range(140)),
    "cancel list": ",".join(f"10^{{800}}+\\sqrt{{{i}}}-10^{{800}}" for i in range(40)),
    "tan tower": "\\tan(\\tan(\\tan(\\tan(10^{700}))))",
    "exp i": "e^{10^{8}i}",
    "i pow": "i^{10^{900}}",
    "(1+i)": "(1+i)^{999999}",
    "units": "5 " + "\\text{cm}\\cdot" * 200 + "\\text{m}",
    "unit pow": "5\\text{cm}^{999999999}",
    "unit compound": "5\\text{ m}" + " 3\\text{ cm}" * 200,
    "words": "one hundred " * 900,
    "words2": "twenty-" * 900 + "five",
    "zh": "一" * 20,
    "zh2": "九千万亿" * 1000,
    "zhfrac": "九" * 12 + "分之" + "九" * 12,
    "clock": "3:45" * 500,
    "paren twice": "seven (" * 800,
    "choice": "A," * 1900,
    "choices": "A and " * 900,
    "repeating": "0." + "12" * 490 + "...",
    "repeating2": "0." + "1" * 900 + "2...",
    "ellipsis": "1,2,...," * 100,
    "between": "\\boxed{1}" + " , \\boxed{1}" * 20000,
    "between2": "\\boxed{1} and " * 5000,
    "phrase": "answer is " * 100000,
    "neg": "not " * 100000 + "5",
    "neg2": "5 not " * 400,
    "interval regex": "]" + "1," * 900 + "[",
    "interval2": "[1," * 900,
    "decl": "(k \\in \\mathbb Z)" * 100,
    "numbers with blanks": "1 000 " * 600,
    "tilde": "1~000~" * 600,
    "nested frac": "\\frac{1}{1+" * 28 + "x" + "}" * 28,
    "nested sqrt": "\\sqrt{1+" * 28 + "x" + "}" * 28,
    "cont frac sqrt": "\\frac{1}{1+\\sqrt{" * 13 + "x" + "}}" * 13,
    "matrix": "\\begin{pmatrix}" + "\\\\".join("&".join([f"\\sqrt{{{i}}}"] * 8) for i in range(8)) + "\\end{pmatrix}",
    "system": ",".join(f"x_{{{i}}}+y={i}" for i in range(60)),
    "approx": "\\sqrt2" + "\\approx 1.41" * 80,
    "chain": "=".join(["\\sqrt{2}"] * 120),
    "chainineq": "<".join(["x"] * 150),
    "set of sets": "\\{" * 28 + "1" + "\\}" * 28,
    "brackets": "[[" + "],[".join([",".join(["x"] * 10)] * 20) + "]]",
    "unicode digits": "１" * 3000,
    "arabic digits": "٧٢" * 100,
    "rtl": "\u202e27",
    "zwj": "7\u200d2" * 200,
    "combining2": "x" + "\u0338" * 50,
    "super": "2" + "⁹" * 50,
    "super2": "9⁹⁹⁹⁹⁹⁹⁹",
    "vulgar": "½" * 900,
    "input": "\\input{/etc/passwd}",
    "write18": "\\immediate\\write18{ls}",
    "def": "\\def\\a{\\a\\a}\\a",
    "newcommand": "\\newcommand{\\x}{\\x\\x}\\x",
    "catcode": "\\catcode`\\%=12",
    "csname": "\\csname end\\endcsname",
    "verb": "\\verb|x|",
    "log tower": "\\log_{\\log_{\\log_2 3} 3} 3",
    "zero log": "\\log_1 5",
    "lim": "\\lim_{x\\to 0}" * 100 + "x",
    "pow list": ",".join("x^{x^{x}}" for _ in range(80)),
}


GOLDS = [
    "72",
    "\\sqrt{2}x",
    "(1,2)",
    "\\{1,\\sqrt2\\}",
    "(-\\infty,2)\\cup[3,\\infty)",
    "\\begin{pmatrix}1&2\\\\3&\\sqrt3\\end{pmatrix}",
    "5 \\text{ cm}",
    "k\\pi,k\\in\\mathbb{Z}",
    "x=1,y=2",
]


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_go_off_quickly_and_are_never_right(name):
    bomb = BOMBS[name]
    verify_math("x+x", "2x")  # sympy is loaded
    slowest = 0.0
    for gold in GOLDS:
        for text in (bomb, f"\\boxed{{{bomb}}}"):
            start = time.process_time()
            assert verify_math(gold, text) is not Verdict.RIGHT
            slowest = max(slowest, time.process_time() - start)
    start = time.process_time()
    verify_math(bomb, bomb)
    verify_math(bomb, "72")
    answer_key(bomb)
    assert max(slowest, time.process_time() - start) < 2  # 0.2 s for the worst on a quiet machine


def test_memory_stays_bounded():
    """Of the process as a whole: no attack needs more than its own text a few times over."""
    verify_math("x+x", "2x")
    verify_math("[0,1)\\cup[1,2]", "[0,2]")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for bomb in BOMBS.values():
        verify_math("\\sqrt{2}x", bomb)
        verify_math(bomb, "\\sqrt{2}x")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10  # KiB
    assert max(map(len, BOMBS.values())) >= 1_000_000


@pytest.mark.slow
def test_answers_are_not_remembered_for_ever():
    verify_math("x+x", "2x")
    tracemalloc.start()
    try:
        for i in range(100):
            verify_math("2x", "\\boxed{" + "+".join(f"\\sqrt{{{i}{j}}}" for j in range(150)) + "}")
        kept = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert kept < 2 << 20  # 100 such trees are more than twice that


def test_steps_not_seconds_end_the_work(monkeypatch):
    """The same expression ends at the same step, however fast the machine."""
    gold, prediction = "\\sum_{k=1}^{99} \\sqrt{k}", "\\sum_{k=0}^{98} \\sqrt{k+1}"
    assert grade_math(gold, prediction)[0] is Verdict.RIGHT
    monkeypatch.setattr(values, "STEPS", 500)
    assert grade_math(gold, prediction) == (
        Verdict.UNGRADED,
        f"{prediction} against {gold}: more steps than an answer is worth",
    )


def test_a_full_stack_is_no_error():
    def deeper(levels):
        return deeper(levels - 1) if levels else grade_math("x+\\sqrt{1+\\sqrt{1+y}}", "\\sqrt{1+\\sqrt{1+y}}+x+0")[0]

    room = sys.getrecursionlimit() - len(inspect.stack())
    verdicts = [deeper(room - left) for left in range(60, 300, 20)]
    assert verdicts[0] is Verdict.UNGRADED and verdicts[-1] is Verdict.RIGHT and Verdict.WRONG not in verdicts


ATTACKS = [
    "__import__('os').system('touch {mark}')",
    "exec(\"open('{mark}','w')\")",
    "().__class__.__bases__[0].__subclasses__()",
    "\\text{{__import__('os').system('touch {mark}')}}",
    "Integer(__import__('os').system('touch {mark}'))",
    "lambda: open('{mark}', 'w')",
    "[open('{mark}','w') for _ in (1,)]",
    'f\'{{open("{mark}","w")}}\'',
    "\\immediate\\write18{{touch {mark}}}",
]


@pytest.mark.parametrize("attack", ATTACKS)
def test_no_text_is_run(attack, tmp_path, monkeypatch):
    import builtins
    import subprocess

    def forbidden(*_, **__):
        raise AssertionError("text of a model was run")

    mark = tmp_path / "mark"
    text = attack.format(mark=mark)
    verify_math("72", "1")  # lazy imports first
    verify_math("x+x", "2x")
    verify_math("[0,1)\\cup[1,2]", "[0,2]")
    monkeypatch.setattr(builtins, "eval", forbidden)
    monkeypatch.setattr(builtins, "exec", forbidden)
    monkeypatch.setattr(os, "system", forbidden)
    monkeypatch.setattr(subprocess, "Popen", forbidden)
    monkeypatch.setattr("sympy.parsing.sympy_parser.parse_expr", forbidden)
    for completion in (text, f"\\boxed{{{text}}}", f"<answer>{text}</answer>"):
        assert verify_math("72", completion) is not Verdict.RIGHT
        assert verify_math("x^2+y", completion) is not Verdict.RIGHT
        assert verify_math(text, "72") is not Verdict.RIGHT
        answer_key(completion)
    assert not mark.exists()


def test_nothing_in_the_room_evaluates_text():
    """Invariant 6, in the source: none of these names is called in what grades mathematics."""
    forbidden = {
        "eval",
        "exec",
        "compile",
        "sympify",
        "S",
        "parse_expr",
        "parse_latex",
        "lambdify",
        "simplify",
        "solve",
        "__import__",
    }
    room = Path(r1jax.rewards.__file__).parent
    called = set()
    for path in (room / "mathematics.py", room / "answer.py", *sorted((room / "expressions").rglob("*.py"))):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                called.add(getattr(node.func, "id", getattr(node.func, "attr", None)))
    called.discard("compile")  # of regular expressions
    assert not called & (forbidden - {"compile"})
