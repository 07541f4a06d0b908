"""The language of words and texts: by script, and where languages share one, by their function words and letters.

Languages that share a script (Latin, Cyrillic, Arabic, Devanagari) are told apart by sentences, never by single words: a
foreign word in an English sentence is English. A sentence goes with the document's language of its script unless it shows
clearly more of another one.
"""

from __future__ import annotations

import functools
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping

from r1jax.rewards.language.function_words import FUNCTION_WORDS, LETTERS
from r1jax.rewards.language.scripts import Word, prose, split_words

# code -> (English name, script). A script of one language alone decides it.
LANGUAGES = {
    "en": ("english", "Latn"),
    "zh": ("chinese", "Hani"),
    "ja": ("japanese", "Kana"),
    "ko": ("korean", "Hang"),
    **{
        code: (name, "Latn")
        for code, name in {
            "de": "german", "fr": "french", "es": "spanish", "pt": "portuguese", "it": "italian", "nl": "dutch",
            "sv": "swedish", "da": "danish", "no": "norwegian", "fi": "finnish", "pl": "polish", "cs": "czech",
            "hu": "hungarian", "ro": "romanian", "tr": "turkish", "vi": "vietnamese", "id": "indonesian", "sw": "swahili",
            "ca": "catalan", "hr": "croatian", "tl": "tagalog",
        }.items()
    },
    "ru": ("russian", "Cyrl"),
    "uk": ("ukrainian", "Cyrl"),
    "bg": ("bulgarian", "Cyrl"),
    "sr": ("serbian", "Cyrl"),
    "ar": ("arabic", "Arab"),
    "fa": ("persian", "Arab"),
    "ur": ("urdu", "Arab"),
    "hi": ("hindi", "Deva"),
    "mr": ("marathi", "Deva"),
    "ne": ("nepali", "Deva"),
    "el": ("greek", "Grek"),
    "he": ("hebrew", "Hebr"),
    "hy": ("armenian", "Armn"),
    "bn": ("bengali", "Beng"),
    "pa": ("punjabi", "Guru"),
    "gu": ("gujarati", "Gujr"),
    "or": ("odia", "Orya"),
    "ta": ("tamil", "Taml"),
    "te": ("telugu", "Telu"),
    "kn": ("kannada", "Knda"),
    "ml": ("malayalam", "Mlym"),
    "si": ("sinhala", "Sinh"),
    "th": ("thai", "Thai"),
    "lo": ("lao", "Laoo"),
    "bo": ("tibetan", "Tibt"),
    "my": ("burmese", "Mymr"),
    "ka": ("georgian", "Geor"),
    "am": ("amharic", "Ethi"),
    "km": ("khmer", "Khmr"),
    "mn": ("mongolian", "Mong"),
}  # fmt: skip
SCRIPT_OF = {code: script for code, (_, script) in LANGUAGES.items()}
_BY_NAME = {name: code for code, (name, _) in LANGUAGES.items()} | {"nb": "no", "iw": "he", "中文": "zh", "汉语": "zh"}
_SHARED = {script for script, number in Counter(SCRIPT_OF.values()).items() if number > 1}
_ONLY = {script: code for code, script in SCRIPT_OF.items() if script not in _SHARED}
_ENOUGH = 1.0  # one word alone may be a name: Ali is Croatian for but
_CLEARLY = 1.0  # by so much more evidence a sentence must speak for a language that is not its document's


def language_code(language: str) -> str:
    """The ISO 639-1 code of a language given as code (regions are ignored) or English name.

    Raises:
      ValueError: it is none of ``LANGUAGES``.
    """
    name = str(language).strip().lower()
    for known in (name, name.replace("_", "-").partition("-")[0]):
        if known in LANGUAGES:
            return known
        if known in _BY_NAME:
            return _BY_NAME[known]
    raise ValueError(f"unknown language {language!r}; known: {', '.join(sorted(LANGUAGES))}")


@functools.cache
def _hints() -> tuple[Mapping[str, list[tuple[str, float]]], Mapping[str, list[tuple[str, float]]]]:
    """(function word -> languages with weights, letter -> the same): what many languages share says less."""
    tables = []
    for lists in (FUNCTION_WORDS, LETTERS):
        owners: dict[str, list[str]] = defaultdict(list)
        for code, items in lists.items():
            for item in dict.fromkeys(items.split() if lists is FUNCTION_WORDS else items):
                owners[item].append(code)
        tables.append({item: [(code, 1 / len(codes)) for code in codes] for item, codes in owners.items()})
    return tables[0], tables[1]


@functools.lru_cache(maxsize=1 << 14)
def _word_evidence(word: str) -> tuple[tuple[str, float], ...]:
    words, letters = _hints()
    # Composed here, word by word: normalising a long text takes quadratic time where marks pile up.
    word = unicodedata.normalize("NFKC", word).replace("’", "'")
    found = list(words.get(word, ()))
    if not found and "'" in word:  # l'eau, c'è, don't
        head, _, tail = word.partition("'")
        found = [*words.get(head + "'", ()), *words.get("'" + tail, ())]
    for letter in set(word):
        found += letters.get(letter, ())
    return tuple(found)


def _evidence(words: Iterable[str], script: str) -> Counter[str]:
    """Distinct words count, so that a name told again and again is no language."""
    total: Counter[str] = Counter()
    for word in {word.lower() for word in words}:
        for code, weight in _word_evidence(word[:40]):
            if SCRIPT_OF[code] == script:
                total[code] += weight
    return total


def _best(evidence: Mapping[str, float]) -> str | None:
    """The language with the most evidence; None without enough, or where two have equally much."""
    ranked = sorted(evidence.items(), key=lambda item: -item[1])[:2]
    if not ranked or ranked[0][1] <= _ENOUGH or (len(ranked) == 2 and ranked[1][1] > 0.999 * ranked[0][1]):
        return None
    return ranked[0][0]


def _shared_languages(words: list[Word], script: str) -> Counter[str]:
    """Words by language for one of the shared scripts; under the script's name where nothing decides."""
    sentences: dict[int, list[Word]] = defaultdict(list)
    for word in words:
        sentences[word.sentence].append(word)
    evidence = {number: _evidence((w.text for w in sentence), script) for number, sentence in sentences.items()}
    general = _best(_evidence((w.text for w in words), script))
    counts: Counter[str] = Counter()
    for number, sentence in sentences.items():
        own, found = _best(evidence[number]), evidence[number]
        clear = own is not None and (general is None or found[own] >= found[general] + _CLEARLY)
        counts[(own if clear else general) or script] += sum(w.count for w in sentence)
    return counts


def word_languages(text: str) -> Counter[str]:
    """How many words of each language a text has: ISO 639-1 codes, and the script's name (ISO 15924) where words of a
    shared script show no language. Code, formulas and numbers are no words (``scripts.prose``).

    Han is Japanese in a sentence that has kana, else Chinese.
    """
    words = split_words(prose(text))
    by_script: dict[str, list[Word]] = defaultdict(list)
    for word in words:
        by_script[word.script].append(word)
    japanese = {word.sentence for word in by_script.get("Kana", ())}
    counts: Counter[str] = Counter()
    for script, members in by_script.items():
        if script in _SHARED:
            counts.update(_shared_languages(members, script))
        elif script == "Hani":
            for word in members:
                counts["ja" if word.sentence in japanese else "zh"] += word.count
        else:
            counts[_ONLY.get(script, script)] += sum(word.count for word in members)
    return counts


def detect_language(text: str) -> str | None:
    """The language of most words; None where there are none or nothing decides between languages of one script."""
    counts = word_languages(text)
    best = max(counts, key=lambda code: counts[code], default=None)
    return best if best in LANGUAGES else None
