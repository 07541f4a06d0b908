"""The page's colours: enough contrast in light and dark (WCAG 2.2: 4.5 for text, 3 for graphics), apart also for the
colour-blind."""

import importlib.resources
import itertools
import re

import pytest

CSS = (importlib.resources.files("r1jax.reporting") / "page/report.css").read_text("utf-8")
BLOCKS = dict(zip(("light", "dark"), re.findall(r":root[^{]*\{(.*?)\}", CSS, re.S)))
THEMES = {name: dict(re.findall(r"--([\w]+): ([^;]+);", block)) for name, block in BLOCKS.items()}


def rgb(text):
    if text.startswith("#"):
        return tuple(int(text[i : i + 2], 16) for i in (1, 3, 5))
    return tuple(int(part) for part in text.split(","))


def linear(colour):
    return [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (v / 255 for v in colour)]


def contrast(one, other):
    light, dark = sorted(
        (sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear(x))) for x in (one, other)), reverse=True
    )
    return (light + 0.05) / (dark + 0.05)


def over(colour, alpha, ground):
    return tuple(alpha * c + (1 - alpha) * g for c, g in zip(colour, ground))


# Machado, Oliveira and Fernandes (2009), severity 1, on linear RGB
BLIND = {
    "protanopia": ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998)),
    "deuteranopia": ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.011820, 0.042940, 0.968881)),
}


def seen(colour, matrix):
    return [sum(m * c for m, c in zip(row, linear(colour))) for row in matrix]


@pytest.mark.parametrize("theme", THEMES)
def test_text_can_be_read(theme):
    colours = {name: rgb(value) for name, value in THEMES[theme].items() if value.startswith("#")}
    for text, ground in itertools.product(
        ("ink", "muted", "accent", "right", "wrong", "warn", "fault"), ("page", "card", "shade")
    ):
        assert contrast(colours[text], colours[ground]) >= 4.5, (text, ground)
    assert contrast(colours["ink"], colours["mark"]) >= 4.5


@pytest.mark.parametrize("theme", THEMES)
def test_curves_can_be_seen(theme):
    for number in range(1, 9):
        assert contrast(rgb(THEMES[theme][f"c{number}"]), rgb(THEMES[theme]["card"])) >= 3, number


@pytest.mark.parametrize("theme", THEMES)
def test_tokens_can_be_read_on_their_colours(theme):
    card, ink = rgb(THEMES[theme]["card"]), rgb(THEMES[theme]["ink"])
    tints = re.findall(r"\.([pns]\d) \{ background: rgba\(var\(--(\w+)\), ([.\d]+)\); \}", CSS)
    assert len(tints) == 12
    for name, role, alpha in tints:
        assert contrast(ink, over(rgb(THEMES[theme][role]), float(alpha), card)) >= 4.5, name


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("kind", BLIND)
def test_what_is_told_apart_by_colour_is_told_apart_by_the_colour_blind(theme, kind):
    colours = THEMES[theme]
    for one, other in (("c1", "c2"), ("plus", "minus")):  # verdicts have signs, ✓ and ✗
        a, b = (seen(rgb(colours[name]), BLIND[kind]) for name in (one, other))
        assert max(abs(x - y) for x, y in zip(a, b)) > 0.12, (one, other)
