"""Units of measure: their dimension and size, so that 5 cm is 50 mm, and neither 5 m nor 5 kg.

A word that is no unit of this table ("apples", "页") says nothing and is left out of a comparison.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from fractions import Fraction
from typing import NamedTuple


class Unit(NamedTuple):
    """``dimension``: sorted (base, power) pairs; ``size``: how many of the base units it is."""

    dimension: tuple[tuple[str, int], ...]
    size: Fraction


def _table() -> dict[str, tuple[str, Fraction, int]]:
    """Word to (base, size, power of the base)."""
    rows = """
    length 1: m meter meters metre metres 米
    length 1/10: dm decimeter decimeters 分米
    length 1/100: cm centimeter centimeters centimetre centimetres 厘米 公分
    length 1/1000: mm millimeter millimeters millimetre millimetres 毫米
    length 1/1000000000: nm nanometer nanometers
    length 1000: km kilometer kilometers kilometre kilometres 千米 公里
    length 254/10000: in inch inches
    length 3048/10000: ft foot feet
    length 9144/10000: yd yds yard yards
    length 1609344/1000: mi mile miles 英里
    length^2 40468564224/10000000: acre acres
    length^2 10000: ha hectare hectares 公顷
    length^3 1/1000: L l liter liters litre litres 升
    length^3 1/1000000: mL ml milliliter milliliters millilitre millilitres 毫升
    length^3 3785411784/1000000000000: gal gallon gallons
    length^3 946352946/1000000000000: qt quart quarts
    length^3 473176473/1000000000000: pt pint pints
    mass 1: kg kilogram kilograms 千克 公斤
    mass 1/1000: g gram grams 克
    mass 1/1000000: mg milligram milligrams 毫克
    mass 1000: tonne tonnes 吨
    mass 45359237/100000000: lb lbs pound pounds
    mass 45359237/1600000000: oz ounce ounces
    time 1: s sec secs second seconds 秒
    time 60: min mins minute minutes 分钟
    time 3600: h hr hrs hour hours 小时
    time 86400: day days 天
    time 604800: week weeks 周 星期
    months 1: month months 个月
    months 12: year years yr yrs 年
    dollar 1: dollar dollars usd USD $
    dollar 1/100: cent cents ¢
    euro 1: euro euros EUR €
    sterling 1: GBP £
    yuan 1: yuan 元 RMB CNY ¥
    yuan 1/10: 角
    yen 1: yen
    celsius 1: °C
    fahrenheit 1: °F
    kelvin 1: K kelvin kelvins
    force 1: N newton newtons
    energy 1: J joule joules
    energy 1000: kJ kilojoule kilojoules
    power 1: W watt watts
    power 1000: kW kilowatt kilowatts
    volt 1: V volt volts
    ampere 1: ampere amperes amp amps
    frequency 1: Hz hertz
    resistance 1: ohm ohms
    resistance 1000: kiloohm kiloohms
    """
    table = {}
    for line in rows.strip().splitlines():
        head, _, words = line.partition(":")
        base, size = head.split()
        base, _, power = base.partition("^")
        for word in words.split():
            table[word] = (base, Fraction(size), int(power or 1))
    return table


_UNITS = _table()
_SPEEDS = {"mph": ("mile", "hour"), "kph": ("km", "hour"), "kmh": ("km", "hour"), "rpm": ("rotation", "minute")}
_POWERS = {"square": 2, "sq": 2, "squared": 2, "平方": 2, "cubic": 3, "cu": 3, "cubed": 3, "立方": 3}
# One letter that is a unit only after a number, and a name everywhere else.
LETTERS = frozenset("mgshLlNJWVK")
_PIECES = re.compile(r"[^\W\d_]+|[¢$€£¥%°/*^]|[0-9]+|-")
MULTIPLES = {
    "hundred": 100,
    "thousand": 1_000,
    "million": 10**6,
    "millions": 10**6,
    "billion": 10**9,
    "billions": 10**9,
    "trillion": 10**12,
    "百": 100,
    "千": 1_000,
    "万": 10_000,
    "百万": 10**6,
    "千万": 10**7,
    "亿": 10**8,
}


def known(word: str) -> bool:
    """Whether a word is part of a unit's name."""
    return word in _UNITS or word in _SPEEDS or word in _POWERS or word.lower() in _UNITS


def words_of(text: str) -> list[str]:
    """The words and signs of a unit as written: ``m/s`` is ``["m", "/", "s"]``."""
    return _PIECES.findall(text)


def unit(words: Iterable[str]) -> Unit | None:
    """The unit that words name ("square", "inches"; "m", "/", "s", "^", "2"); None if one of them names none."""
    factors: list[tuple[str, Fraction, int, int]] = []  # base, size, power of the base, exponent
    sign, power = 1, 1
    words = [
        part for word in words for part in ((word[:2], word[2:]) if word[:2] in ("平方", "立方") and word[2:] else (word,))
    ]
    after_caret = minus = False
    for word in words:
        if after_caret and word == "-":
            minus = True
        elif after_caret:
            if not factors or not word.isdigit() or not 1 <= int(word) <= 9:
                return None
            *entry, exponent = factors.pop()
            factors.append((*entry, exponent * (-int(word) if minus else int(word))))
            after_caret = minus = False
        elif word == "^":
            after_caret = True
        elif word in ("/", "per", "每"):
            sign = -1
        elif word in ("squared", "cubed") and factors:
            *entry, exponent = factors.pop()
            factors.append((*entry, exponent * _POWERS[word]))
        elif word in _POWERS:
            power = _POWERS[word]
        elif word in _SPEEDS:
            way, time = (_UNITS.get(part, (part, Fraction(1), 1)) for part in _SPEEDS[word])
            factors += [(*way, sign), (*time, -sign)]
        elif word not in ("*", "-", "of"):
            found = _UNITS.get(word) or _UNITS.get(word.lower())
            if found is None:
                return None
            factors.append((*found, sign * power))
            power = 1
    if after_caret or not factors:
        return None
    dimension: dict[str, int] = {}
    size = Fraction(1)
    for base, one, degree, exponent in factors:
        dimension[base] = dimension.get(base, 0) + degree * exponent
        size *= one**exponent
    return Unit(tuple(sorted((base, exponent) for base, exponent in dimension.items() if exponent)), size)
