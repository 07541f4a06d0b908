r"""From the text of an answer to tokens: plain text, LaTeX and Unicode mathematics in one strict grammar."""

from __future__ import annotations

import re
import unicodedata
from fractions import Fraction
from typing import NamedTuple

from r1jax.rewards.expressions.reading import units

MAX_CHARACTERS = 4_000
MAX_TOKENS = 1_000
MAX_DIGITS = 1_000


class Unreadable(ValueError):
    """The text is not an expression of this grammar, or longer or deeper than any sensible answer."""


class Token(NamedTuple):
    """``kind``: number, symbol, function, operator, word (of a unit or a text), currency, command or end.

    ``value``: a ``Fraction`` for numbers, else the name. ``raw``: digits as written. ``spaced``: white space came before.
    """

    kind: str
    value: str | Fraction
    raw: str = ""
    spaced: bool = False


FUNCTIONS = frozenset(
    "sin cos tan cot sec csc arcsin arccos arctan arccot arcsec arccsc sinh cosh tanh coth sech csch arcsinh arccosh arctanh "
    "log ln lg exp abs floor ceil sqrt cbrt min max gcd lcm".split()
)
_ALIASES = {
    **{f"a{name}": f"arc{name}" for name in "sin cos tan cot sec csc sinh cosh tanh".split()},
    **{f"ar{name}": f"arc{name}" for name in ("sinh", "cosh", "tanh")},
    **{"tg": "tan", "ctg": "cot", "arctg": "arctan", "sh": "sinh", "ch": "cosh"},
}
GREEK = frozenset(
    "alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta iota kappa lambda mu nu xi rho sigma tau upsilon "
    "phi varphi chi psi omega Gamma Delta Theta Lambda Xi Pi Sigma Upsilon Phi Psi Omega ell".split()
)
# Words of a unit that are too short to tell from a product of letters otherwise.
_SHORT_WORDS = frozenset("per deg rad pm am PM AM th st nd rd sq cu".split())
# Short words that are no product of letters.
_ENGLISH = frozenset(
    "yes no not the and all any both one two six ten odd dne are was has but you its how who why mon tue wed thu fri sat sun jan "
    "feb mar apr may jun jul aug sep oct nov dec red boy cat dog of it we he so".split()
)
_SPACES = frozenset(
    ", ; : ! > quad qquad left right middle displaystyle textstyle limits nolimits rm bf it hfill newline noindent "
    "tiny small normalsize large Large LARGE huge Huge bfseries itshape boldmath "
    "big Big bigg Bigg bigl bigr Bigl Bigr biggl biggr Biggl Biggr bigm Bigm".split()
    + [" ", "\n", "\t"]
)
_TEXT = frozenset("text mbox textnormal textbf textit textrm texttt textsf textup mathrm hbox operatorname".split())
_TRANSPARENT = frozenset(
    "mathbf boldsymbol mathit mathcal mathsf mathfrak bm vec hat bar overline underline ensuremath angle measuredangle triangle "
    "overrightarrow widehat tilde boxed underline fbox mathop mathord displaylines".split()
)
_NUMBER_SETS = frozenset("RNZQC")
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
    **dict.fromkeys(["equiv", "cong", "triangleq", "coloneqq"], "="),
    **dict.fromkeys(["approx", "simeq", "sim", "thickapprox", "doteq"], "≈"),
    **dict.fromkeys(["ldots", "dots", "cdots", "dotsc", "dotsb"], "..."),
    **dict.fromkeys(["lor", "vee"], "or"),
    **dict.fromkeys(["land", "wedge"], "and"),
    **dict.fromkeys(["to", "rightarrow", "longrightarrow"], "→"),
    **{"over": "over", "choose": "choose", "colon": ":", "bmod": "mod", "mod": "mod", "pmod": "mod", "mid": "∣"},
    **{
        "in": "in",
        "cup": "∪",
        "cap": "∩",
        "setminus": "∖",
        "backslash": "∖",
        "smallsetminus": "∖",
        "infty": "∞",
        "%": "%",
        "circ": "°",
        "degree": "°",
        "&": "&",
        "\\": "row",
    },
    **{"{": "\\{", "}": "\\}", "lbrace": "\\{", "rbrace": "\\}", "langle": "(", "rangle": ")", "lbrack": "[", "rbrack": "]"},
    **dict.fromkeys(["lvert", "rvert", "vert", "|"], "|"),
    **{"lfloor": "⌊", "rfloor": "⌋", "lceil": "⌈", "rceil": "⌉"},
}
_COMMANDS = frozenset("frac dfrac tfrac cfrac sqrt binom dbinom tbinom begin end int sum prod lim".split())

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
        **{"￥": "¥", "∅": "\\emptyset ", "⌊": "\\lfloor ", "⌋": "\\rfloor ", "≡": "\\equiv ", "∨": "\\lor ", "∧": "\\land "},
        **{"⌈": "\\lceil ", "⌉": "\\rceil ", "∖": "\\setminus ", "∠": "\\angle ", "∑": "\\sum ", "∏": "\\prod "},
        **{"∫": "\\int ", "→": "\\to ", "∣": "\\mid ", "⩽": "\\le ", "⩾": "\\ge ", "…": "...", "〈": "(", "〉": ")"},
        **{c: f"\\mathbb{{{n}}}" for c, n in zip("ℝℕℤℚℂ", "RNZQC")},
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
    r"|(?P<number>(?:[0-9]+(?:(?:,\\!\s{0,3}|\{,\}|\\,|\\!)[0-9]{3}(?![0-9]))*)(?:\.(?!\.\.)[0-9]*)?|\.[0-9]+)"
    r"|(?P<command>\\(?:[A-Za-z]+|.))"
    r"|(?P<letters>[A-Za-z]+)"
    r"|(?P<other>[^\x00-\x7f]+)"
    r"|(?P<operator>\.\.\.|\*\*|<=|>=|!=|==|[-+*/^_=<>()\[\]{}|,;:!%&'])",
    re.DOTALL,
)
_COMMAS = re.compile(r"(?<![0-9,.])[0-9]{1,3}(?:,[0-9]{3})+(?![0-9]|,[0-9])")
_BLANKS = re.compile(r"(?<![0-9,.])[0-9]{1,3}(?:[ ~][0-9]{3})+(?![0-9])")
_POINT = re.compile(r"\.(?!\.\.)[0-9]*")
_EXPONENT = re.compile(r"[eE]([+-]?[0-9]{1,4})(?![0-9A-Za-z])")
_REPEATING = re.compile(r"\\(?:overline|dot|bar)\{([0-9]{1,50})\}")
_ELLIPSIS = re.compile(r"\s?(?:\.\.\.|\\l?dots\b|\\cdots\b)")
_PERIOD = re.compile(r"[0-9]*?([0-9]{1,20}?)\1+\Z")
_UNIT_FRACTION = re.compile(
    r"\s*\{\s*\\(?:text|mathrm|mbox)\s*\{([^{}]*)\}(\^?\{?[0-9]?\}?)\s*\}"
    r"\s*\{\s*\\(?:text|mathrm|mbox)\s*\{([^{}]*)\}(\^?\{?[0-9]?\}?)\s*\}"
)
_PLAIN_CONTENT = re.compile(r"[\s0-9+\-*/.,=()]*")
_LETTER_LIST = re.compile(r"\s*[A-Z](?:\s*(?:,|;|and|&)\s*[A-Z])*\s*")
_CONNECTIVE = re.compile(r"[\s,;]*\b(and|or)\b[\s,;]*|[\s,;]+|、")
_BOUND = re.compile(r"(?:is )?(?:less|fewer|smaller|more|greater|larger) than")
_ROUGHLY = re.compile(r"[\s,]*(?:or )?(?:approximately|about|roughly|around)")
_BRACKETED = re.compile(r"([\[\]])([^\[\]()]{1,200}[,;][^\[\]()]{1,200})([\[\]])")
_DECLARED = re.compile(r"\(\s*([a-z]\s*\\in\s*(?:\\math(?:bb|bf|rm)\s*\{?Z\}?|Z))\s*\)\s*\Z")
_ONE_LETTER = re.compile(r"\s*\{?\s*([RNZQC])\s*\}?")
_TIMES = re.compile(r"(?<=[0-9])\s?[xX]\s?(?=10\s?(?:\^|\*\*))")
_OPENING, _CLOSING = frozenset(["(", "[", "\\{"]), frozenset([")", "]", "\\}"])
CURRENCIES = "$€£¥"


def number(raw: str) -> Fraction:
    """The exact value of digits with an optional point.

    Raises:
      Unreadable: there are more than ``MAX_DIGITS`` of them.
    """
    if len(raw) > MAX_DIGITS:
        raise Unreadable(f"a number of {len(raw)} digits")
    whole, _, part = raw.partition(".")
    return Fraction(int((whole + part) or "0"), 10 ** len(part))


def _repeated(raw: str, period: str) -> Fraction:
    """The value of a decimal number that goes on with ``period`` for ever."""
    return number(raw) + Fraction(int(period), (10 ** len(period) - 1) * 10 ** len(raw.partition(".")[2]))


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

    def operator(self, name: str, raw: str = "") -> None:
        self.depth += (name in _OPENING) - (name in _CLOSING)
        self.add("operator", name, raw)

    def connective(self, word: str) -> None:
        self.operator(",", "or" if word == "or" else "and")

    @property
    def after_number(self) -> bool:
        return bool(self.tokens) and (self.tokens[-1].kind == "number" or self.tokens[-1].value in (")", "}", "]", "°"))

    @property
    def after_quantity(self) -> bool:
        """Whether a unit may stand here: after a number, or after a part of a unit."""
        before = [token for token in self.tokens[-2:] if token.value not in ("/", "*")]
        return self.after_number or bool(before and before[-1].kind == "word")

    @property
    def after_in(self) -> bool:
        return bool(self.tokens) and self.tokens[-1][:2] == ("operator", "in")

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

    def grouped(self) -> bool:
        """Reads a number in groups of three digits, if one stands here."""
        if not self.commas_group:
            return False
        match = (self.depth <= 0 and _COMMAS.match(self.text, self.place)) or _BLANKS.match(self.text, self.place)
        if not match:
            return False
        point = _POINT.match(self.text, match.end())
        end = point.end() if point else match.end()
        raw = re.sub("[ ,~]", "", self.text[self.place : end])
        self.place = end
        self.add("number", number(raw), raw)
        return True

    def read(self) -> list[Token]:
        while self.place < len(self.text):
            if self.text[self.place].isdigit() and self.grouped():
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
            value, raw = _repeated(raw, repeating[1]), ""
        elif "." in raw and (ellipsis := _ELLIPSIS.match(self.text, self.place)):
            period = _PERIOD.match(raw.partition(".")[2])
            if period is None or len(period[0]) - period.start(1) < 3:
                raise Unreadable("a decimal number that breaks off")
            self.place = ellipsis.end()
            value, raw = _repeated(raw, period[1]), ""
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
        for piece in re.findall(f"[{CURRENCIES}]|[^{CURRENCIES}]+", text):
            multiple = next((m for m in ("百万", "千万", "万", "亿") if piece.startswith(m)), "")
            if piece in CURRENCIES:
                self.add("currency", piece)
                continue
            if piece in ("度", "度角"):
                self.operator("°")
                continue
            if multiple:
                self.add("word", multiple)
            if piece[len(multiple) :]:
                self.add("word", piece[len(multiple) :])

    def read_letters(self, word: str) -> None:
        name = _ALIASES.get(word, word)
        if name in FUNCTIONS and not (word in ("min", "sec", "ch", "sh") and self.after_number):
            self.add("function", name)
        elif word == "pi" or word in GREEK and len(word) > 2:
            self.add("symbol", word)
        elif word in ("infinity", "infty", "inf", "oo", "Infinity"):
            self.operator("∞")
        elif word in ("and", "or"):
            self.connective(word)
        elif word in ("degrees", "degree", "deg"):
            self.operator("°")
        elif word in ("percent", "percents"):
            self.operator("%")
        elif word == "to" and self.after_number:
            self.operator(":")
        elif word == "in" and self.tokens and self.tokens[-1].kind == "symbol":
            self.operator("in")
        elif word == "is":
            raise Unreadable("a sentence")
        elif word == "U" and self.tokens and self.tokens[-1].value in (")", "]"):
            self.operator("∪")
        elif len(word) == 1:
            self.add("symbol", f"mathbb {word}" if word in _NUMBER_SETS and self.after_in else word)
        elif (
            len(word) > 3
            or word in _SHORT_WORDS
            or word.lower() in _ENGLISH
            or (units.known(word) and self.after_quantity)
            or word in units.MULTIPLES
        ):
            self.add("word", word)
        else:
            for letter in word:
                self.add("symbol", letter)

    def read_command(self, command: str) -> None:
        name = command[1:]
        if name in ("left", "right") and self.text.startswith(".", self.place):
            self.place += 1
        elif name in _SPACES:
            self.spaced = True
        elif name in ("$", "textdollar"):
            self.add("currency", "$")
        elif name in _OPERATORS:
            operator = _OPERATORS[name]
            self.connective(operator) if operator in ("and", "or") else self.operator(operator)
        elif _ALIASES.get(name, name) in FUNCTIONS and name != "sqrt":
            self.add("function", _ALIASES.get(name, name))
        elif name == "Omega" and self.after_number:
            self.add("word", "ohm")
        elif name == "pi" or name in GREEK:
            self.add("symbol", name)
        elif name == "emptyset" or name == "varnothing":
            self.add("symbol", "emptyset")
        elif name == "mathbb":
            letter = self.group().strip() if re.match(r"\s*\{", self.text[self.place : self.place + 9]) else self.letter()
            self.add("symbol", f"mathbb {letter}" if letter in _NUMBER_SETS else letter)
        elif (
            name in ("mathbf", "mathrm", "bf", "Bbb")
            and self.after_in
            and (match := _ONE_LETTER.match(self.text, self.place))
        ):
            self.place = match.end()
            self.read_letters(match[1])
        elif name in ("begin", "end"):
            self.add("command", name, self.group().strip().rstrip("*"))
            if name == "begin" and self.tokens[-1].raw == "array":
                self.group()
        elif name.endswith("frac") and (match := _UNIT_FRACTION.match(self.text, self.place)):
            self.place = match.end()
            for word in (*units.words_of(f"{match[1]}{match[2]}"), "/", *units.words_of(f"{match[3]}{match[4]}")):
                self.unit_word(word)
        elif name in _COMMANDS:
            self.add(
                "command",
                {"dfrac": "frac", "tfrac": "frac", "cfrac": "frac"}.get(name, "binom" if "binom" in name else name),
            )
        elif name in _TEXT:
            self.read_text(self.group(), name)
        elif name == "phantom":
            if re.match(r"\s*\{", self.text[self.place :]):
                self.group()
            else:
                self.letter()
        elif name in (
            "hspace",
            "vspace",
            "color",
            "textcolor",
            "colorbox",
            "tag",
            "label",
        ):  # of which the first group is no part
            self.group()
            self.spaced = True
        elif name == "top":
            self.add("symbol", "T")
        elif name not in _TRANSPARENT:
            raise Unreadable(f"unknown command {command}")

    def letter(self) -> str:
        """The next character that is no white space."""
        match = re.compile(r"\s*(.?)", re.DOTALL).match(self.text, self.place)
        self.place = match.end()
        return match[1]

    def again(self, content: str) -> None:
        """Reads the content of a text as mathematics."""
        for token in _Reader(content, self.commas_group).read()[:-1]:
            self.add(*token[:3])

    def read_text(self, content: str, command: str) -> None:
        r"""``\text{...}``: numbers and lists of letters are mathematics, "and" separates, all else are words."""
        content = content.replace("~", " ").replace("\\ ", " ").strip()
        if content.removeprefix("\\") in CURRENCIES and content:
            self.add("currency", content[-1])
            return
        if _BOUND.fullmatch(content):
            raise Unreadable("a bound in words")
        if _ROUGHLY.fullmatch(content):
            self.operator("≈")
        elif connective := _CONNECTIVE.fullmatch(content):
            self.connective(connective[1]) if connective[1] else self.operator(",")
        elif _PLAIN_CONTENT.fullmatch(content) or (_LETTER_LIST.fullmatch(content) and not self.after_number):
            self.again(content.replace("&", ","))
        elif content in FUNCTIONS and not (content in ("min", "sec") and self.after_number):
            self.add("function", content)
        elif content in ("i", "e", "d") or (
            content.isalpha() and content.isupper() and len(content) < 4 and not self.after_number
        ):
            for letter in content:
                self.add("symbol", letter)
        elif re.match(r"-?[0-9]", content) or content in ("percent", "degrees", "degree", "to", "infinity"):  # 18 dollars
            self.again(content) if content != "to" else self.read_letters("to")
        elif self.after_number and content == "in":
            self.add("word", "in")
        else:
            for word in units.words_of(content):
                self.unit_word(word)

    def unit_word(self, word: str) -> None:
        if word in ("%", "°", "*", "/", "-", "^"):
            self.operator(word)
        elif word.isdigit():
            self.add("number", number(word), word)
        else:
            self.add("word", word)


def _standard_intervals(text: str) -> str:
    """``]0, 1[`` as ``(0, 1)``; a text whose square brackets pair up as usual stays."""
    first = re.search(r"[\[\]]", text)
    if first is None or (first[0] == "[" and text.count("[") == text.count("]")):
        return text
    return _BRACKETED.sub(lambda m: f"{'[' if m[1] == '[' else '('}{m[2]}{']' if m[3] == ']' else ')'}", text)


def tokenize(text: str, commas_group: bool = True) -> list[Token]:
    """Tokens of an answer, the last of kind ``end``.

    Args:
      commas_group: outside brackets ``1,234`` is one number; otherwise a list of two.

    Raises:
      Unreadable: a character or command that has no place in an answer, or more of them than an answer has.
    """
    if len(text) > MAX_CHARACTERS:
        raise Unreadable(f"{len(text)} characters are no final answer")
    text = plain_unicode(text)
    if "$" in text:
        bare = text.replace("\\$", "")
        if bare.count("$") % 2:  # no pair of delimiters
            text = re.sub(r"(?<!\\)\$(?=\s?[0-9.])", r"\\$", text)
        text = re.sub(r"(?<!\\)\$", " ", text)
    text = _DECLARED.sub(r", \1", _standard_intervals(text.strip()))
    text = _TIMES.sub(r"\\cdot ", text)
    text = text.removesuffix("\\\\").rstrip()
    text = text.removesuffix("\\").rstrip()  # the command of a blank, whose blank is gone
    while text.endswith((".", ",", ";", ":")) and not text.endswith(("\\,", "...", "\\;", "\\:")):
        text = text[:-1].rstrip()
    return _Reader(text, commas_group).read()
