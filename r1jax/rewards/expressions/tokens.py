r"""From the text of an answer to tokens: plain text, LaTeX and Unicode mathematics in one strict grammar."""

from __future__ import annotations

import re
import unicodedata
from fractions import Fraction
from typing import NamedTuple

MAX_CHARACTERS = 4_000
MAX_TOKENS = 1_000
MAX_DIGITS = 1_000


class Unreadable(ValueError):
    """The text is not an expression of this grammar, or longer or deeper than any sensible answer."""


class Token(NamedTuple):
    """``kind``: number, symbol, function, operator, text, word, command or end.

    ``value``: a ``Fraction`` for numbers, else the name. ``raw``: digits as written. ``spaced``: white space came before.
    """

    kind: str
    value: str | Fraction
    raw: str = ""
    spaced: bool = False


FUNCTIONS = frozenset(
    "sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh log ln lg exp abs floor ceil sqrt cbrt min max gcd lcm".split()
)
GREEK = frozenset(
    "alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta iota kappa lambda mu nu xi rho sigma tau upsilon "
    "phi varphi chi psi omega Gamma Delta Theta Lambda Xi Pi Sigma Upsilon Phi Psi Omega ell".split()
)
_UNITS = frozenset(
    "cm mm km kg mg ml mL ft in mi yd lb lbs oz gal min sec hr hrs mph kph rpm deg rad sq cu pt qt pm am PM AM USD usd th st nd rd "
    "m/s dm nm kJ Hz kW".split()
)
_SPACES = frozenset(
    [" ", ",", ";", ":", "!", ">", "quad", "qquad", "left", "right", "displaystyle", "textstyle", "limits", "nolimits"]
    + [
        "big",
        "Big",
        "bigg",
        "Bigg",
        "bigl",
        "bigr",
        "Bigl",
        "Bigr",
        "biggl",
        "biggr",
        "Biggl",
        "Biggr",
        "middle",
        "$",
        "rm",
        "bf",
    ]
)
_TEXT = frozenset("text mbox textnormal textbf textit textrm texttt textsf mathrm hbox operatorname".split())
_TRANSPARENT = frozenset(
    "mathbf boldsymbol mathit mathbb mathcal mathsf bm vec hat bar overline underline ensuremath".split()
)
_OPERATORS = {
    **dict.fromkeys(["cdot", "times", "ast", "cdotp", "bullet"], "*"),
    "div": "/",
    "pm": "±",
    "mp": "∓",
    **dict.fromkeys(["le", "leq", "leqslant"], "<="),
    **dict.fromkeys(["ge", "geq", "geqslant"], ">="),
    "lt": "<",
    "gt": ">",
    **dict.fromkeys(["ne", "neq"], "!="),
    **dict.fromkeys(["approx", "equiv", "simeq", "sim", "cong"], "="),
    **{
        "in": "in",
        "cup": "∪",
        "cap": "∩",
        "setminus": "∖",
        "infty": "∞",
        "%": "%",
        "circ": "°",
        "degree": "°",
        "&": "&",
        "\\": "row",
    },
    **{"{": "\\{", "}": "\\}", "lbrace": "\\{", "rbrace": "\\}", "langle": "(", "rangle": ")", "lbrack": "[", "rbrack": "]"},
    **dict.fromkeys(["lvert", "rvert", "vert", "mid", "|"], "|"),
    **{"lfloor": "⌊", "rfloor": "⌋", "lceil": "⌈", "rceil": "⌉"},
}
_COMMANDS = frozenset("frac dfrac tfrac cfrac sqrt binom dbinom tbinom begin end".split())

# Unicode mathematics as LaTeX, before compatibility forms are folded (which would turn x² into x2).
_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ", "0123456789+-n")
_VULGAR = {c: "\\frac{{{}}}{{{}}}".format(*unicodedata.normalize("NFKC", c).split("\u2044")) for c in "½⅓⅔¼¾⅕⅖⅗⅘⅙⅚⅐⅛⅜⅝⅞⅑⅒"}
_UNICODE = str.maketrans(
    {
        **{c: "-" for c in "−–—‐‑﹣－"},
        **{c: "\\cdot " for c in "×·⋅∙•✕✖＊"},
        **{"÷": "/", "∕": "/", "⁄": "/", "√": "\\sqrt ", "∛": "\\sqrt[3]", "π": "\\pi ", "∞": "\\infty ", "°": "^\\circ "},
        **{"∪": "\\cup ", "∩": "\\cap ", "∈": "\\in ", "≤": "\\le ", "≥": "\\ge ", "≠": "\\ne ", "≈": "\\approx ", "±": "\\pm "},
        **{"。": ".", "，": ",", "、": ",", "；": ";", "：": ":", "“": '"', "”": '"', "’": "'", "‘": "'", "⟨": "(", "⟩": ")"},
        **{"€": "\\$", "£": "\\$", "¥": "\\$", "￥": "\\$", "∅": "\\emptyset ", "⌊": "\\lfloor ", "⌋": "\\rfloor "},
        **{"⌈": "\\lceil ", "⌉": "\\rceil ", "∖": "\\setminus "},
        **{c: f"\\{n} " for c, n in zip("αβγδεζηθικλμνξρστυφχψω", "alpha beta gamma delta epsilon zeta eta theta iota kappa "
           "lambda mu nu xi rho sigma tau upsilon phi chi psi omega".split())},
    }
)  # fmt: skip
_INVISIBLE = frozenset("\u200b\u200c\u200d\u2060\ufeff\u00ad")


def plain_unicode(text: str) -> str:
    """The text with Unicode mathematics spelled in LaTeX and compatibility forms folded.

    Raises:
      Unreadable: it holds control characters or overrides of the writing direction: what a reader sees is not what it says.
    """
    if text.isascii() and text.isprintable():
        return text
    if len(text) > MAX_CHARACTERS:
        raise Unreadable(f"{len(text)} characters are no final answer")
    out: list[str] = []
    for run in re.split("([⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ]+)", text):
        out.append("^{" + run.translate(_SUPERSCRIPTS) + "}" if run and run[0] in "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ" else run)
    text = "".join(out)
    text = "".join(_VULGAR.get(c, c) for c in text if c not in _INVISIBLE)
    text = unicodedata.normalize("NFKC", text.translate(_UNICODE)).translate(_UNICODE)
    for character in text:
        if unicodedata.category(character) in ("Cc", "Cf", "Cs", "Co", "Cn") and character not in " \t\n\r":
            raise Unreadable(f"the answer holds the control character U+{ord(character):04X}")
    return text


_LEXEME = re.compile(
    r"(?P<space>[\s~]+)"
    r"|(?P<number>(?:[0-9]+(?:(?:,\\!\s{0,3}|\{,\}|\\,|\\!)[0-9]{3}(?![0-9]))*)(?:\.[0-9]*)?|\.[0-9]+)"
    r"|(?P<command>\\(?:[A-Za-z]+|.))"
    r"|(?P<letters>[A-Za-z]+)"
    r"|(?P<other>[^\x00-\x7f]+)"
    r"|(?P<operator>\*\*|<=|>=|!=|==|[-+*/^_=<>()\[\]{}|,;:!%&'])",
    re.DOTALL,
)
_COMMAS = re.compile(r"(?<![0-9,.])[0-9]{1,3}(?:,[0-9]{3})+(?![0-9,])")
_EXPONENT = re.compile(r"[eE]([+-]?[0-9]{1,4})(?![0-9A-Za-z])")
_REPEATING = re.compile(r"\\overline\{([0-9]{1,50})\}")
_PLAIN_CONTENT = re.compile(r"[\s0-9+\-*/.,=()]*")
_LETTER_LIST = re.compile(r"\s*[A-Z](?:\s*(?:,|;|and|&)\s*[A-Z])*\s*")
_OPENING, _CLOSING = frozenset(["(", "[", "\\{"]), frozenset([")", "]", "\\}"])


def number(raw: str) -> Fraction:
    """The exact value of digits with an optional point.

    Raises:
      Unreadable: there are more than ``MAX_DIGITS`` of them.
    """
    if len(raw) > MAX_DIGITS:
        raise Unreadable(f"a number of {len(raw)} digits")
    whole, _, part = raw.partition(".")
    return Fraction(int((whole + part) or "0"), 10 ** len(part))


class _Reader:
    def __init__(self, text: str, commas_group: bool):
        self.text = text
        self.commas_group = commas_group
        self.place = 0
        self.depth = 0
        self.spaced = False
        self.tokens: list[Token] = []

    def add(self, kind: str, value: str | Fraction, raw: str = "") -> None:
        self.tokens.append(Token(kind, value, raw, self.spaced))
        self.spaced = False
        if len(self.tokens) > MAX_TOKENS:
            raise Unreadable(f"more than {MAX_TOKENS} symbols are no final answer")

    def operator(self, name: str) -> None:
        self.depth += (name in _OPENING) - (name in _CLOSING)
        self.add("operator", name)

    def group(self) -> str:
        """The literal content of the braces that open here."""
        start = self.place
        while start < len(self.text) and self.text[start] == " ":
            start += 1
        if not self.text.startswith("{", start):
            raise Unreadable("a command without its braces")
        depth = 0
        for end in range(start, len(self.text)):
            depth += (self.text[end] == "{") - (self.text[end] == "}")
            if depth == 0:
                self.place = end + 1
                return self.text[start + 1 : end]
        raise Unreadable("braces that never close")

    def read(self) -> list[Token]:
        while self.place < len(self.text):
            if self.commas_group and self.depth <= 0 and (grouped := _COMMAS.match(self.text, self.place)):
                end = grouped.end()
                point = re.compile(r"\.[0-9]*").match(self.text, end)
                end = point.end() if point else end
                raw = self.text[self.place : end].replace(",", "")
                self.place = end
                self.add("number", number(raw), raw)
                continue
            match = _LEXEME.match(self.text, self.place)
            if match is None:
                raise Unreadable(f"unexpected character {self.text[self.place]!r}")
            self.place = match.end()
            getattr(self, f"read_{match.lastgroup}")(match[0])
        self.add("end", "")
        return self.tokens

    def read_space(self, _: str) -> None:
        self.spaced = True

    def read_number(self, written: str) -> None:
        raw = re.sub(r"[^0-9.]", "", written)
        value = number(raw)
        if "." in raw and (repeating := _REPEATING.match(self.text, self.place)):
            self.place = repeating.end()
            period = repeating[1]
            value += Fraction(int(period), (10 ** len(period) - 1) * 10 ** len(raw.partition(".")[2]))
        elif exponent := _EXPONENT.match(self.text, self.place):
            power = int(exponent[1])
            if abs(power) > MAX_DIGITS:
                raise Unreadable(f"a number of the order 10^{power}")
            self.place = exponent.end()
            value *= Fraction(10) ** power
            raw = ""
        self.add("number", value, raw)

    def read_operator(self, name: str) -> None:
        self.operator({"**": "^", "==": "="}.get(name, name))

    def read_other(self, text: str) -> None:
        self.add("word", text)

    def read_letters(self, word: str) -> None:
        if word in FUNCTIONS:
            self.add("function", word)
        elif word == "pi":
            self.add("symbol", "pi")
        elif word in ("infinity", "infty", "inf", "oo", "Infinity"):
            self.operator("∞")
        elif word in ("and", "or"):
            self.operator(",")
        elif word in ("degrees", "degree"):
            self.add("operator", "°")
        elif word == "U" and self.tokens and self.tokens[-1].value in (")", "]"):
            self.operator("∪")
        elif len(word) == 1:
            self.add("symbol", word)
        elif len(word) > 3 or word in _UNITS:
            self.add("word", word)
        else:
            for letter in word:
                self.add("symbol", letter)

    def read_command(self, command: str) -> None:
        name = command[1:]
        if name.isspace() or name in _SPACES:
            self.spaced = True
        elif name in _OPERATORS:
            self.operator(_OPERATORS[name])
        elif name in FUNCTIONS and name != "sqrt":
            self.add("function", name)
        elif name == "pi" or name in GREEK:
            self.add("symbol", name)
        elif name == "emptyset" or name == "varnothing":
            self.add("symbol", "emptyset")
        elif name in ("begin", "end"):
            self.add("command", name, self.group().strip().rstrip("*"))
            if name == "begin" and self.tokens[-1].raw == "array":
                self.group()
        elif name in _COMMANDS:
            self.add(
                "command",
                {"dfrac": "frac", "tfrac": "frac", "cfrac": "frac"}.get(name, "binom" if "binom" in name else name),
            )
        elif name in _TEXT:
            self.read_text(self.group())
        elif name == "phantom":
            if re.match(r"\s*\{", self.text[self.place :]):
                self.group()
            else:
                self.place += len(re.match(r"\s*.?", self.text[self.place :], re.DOTALL)[0])
        elif name not in _TRANSPARENT:
            raise Unreadable(f"unknown command {command}")

    def read_text(self, content: str) -> None:
        """``\\text{...}``: numbers and lists of letters are mathematics, "and" separates, all else is a text."""
        content = content.replace("~", " ").strip()
        if re.fullmatch(r"[\s,]*(?:and|or)[\s,]*|,", content):
            self.operator(",")
        elif content and (_PLAIN_CONTENT.fullmatch(content) or _LETTER_LIST.fullmatch(content)):
            for token in _Reader(content.replace("&", ","), self.commas_group).read()[:-1]:
                self.add(*token[:3])
        elif content in FUNCTIONS:
            self.add("function", content)
        elif re.match(r"-?[0-9]", content):  # \text{18 dollars}
            for token in _Reader(content, self.commas_group).read()[:-1]:
                self.add(*token[:3])
        elif content:
            self.add("text", content)


def tokenize(text: str, commas_group: bool = True) -> list[Token]:
    """Tokens of an answer, the last of kind ``end``.

    Args:
      commas_group: outside brackets ``1,234`` is one number; otherwise a list of two.

    Raises:
      Unreadable: a character or command that has no place in an answer, or more of them than an answer has.
    """
    if len(text) > MAX_CHARACTERS:
        raise Unreadable(f"{len(text)} characters are no final answer")
    text = plain_unicode(text).replace("\\$", " ").replace("$", " ").strip()
    while text.endswith((".", ",", ";", ":")) and not text.endswith("\\,"):
        text = text[:-1].rstrip()
    return _Reader(text, commas_group).read()
