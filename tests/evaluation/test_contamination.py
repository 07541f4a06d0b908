"""N-grams of words and the contamination that they find."""

import numpy as np
import pytest

from r1jax.data import PromptRow
from r1jax.evaluation.contamination import Contamination, Overlap
from r1jax.evaluation.ngrams import is_short, ngrams, whole_hash, words

TEN = "one two three four five six seven eight nine ten"
HAN = "小明有七个苹果又得到三个梨他还想要"  # seventeen characters: ten words at 3/5 each


def row(problem, answer="", index=0):
    return PromptRow(index, problem, answer, "none", "verify_math", {})


def brute(text, size):
    """Whose n-grams there are, token by token: the slow way to the same windows."""
    weights = [0.6 if "\u3400" <= token <= "\u9fff" else 1.0 for token in words(text)]
    tokens, found = [token.casefold() for token in words(text)], []
    for i in range(len(tokens)):
        for j in range(i + 1, len(tokens) + 1):
            if sum(weights[i:j]) >= size - 1e-9:
                found.append(tuple(tokens[i:j]))
                break
    return found


def test_n_grams_are_those_of_the_slow_way():
    texts = [f"{TEN} eleven, twelve", "", "too short", f"a {HAN}x b c d e f g h i j k", TEN]
    hashes, owner = ngrams(texts, 10)
    slow = [(gram, i) for i, text in enumerate(texts) for gram in brute(text, 10)]
    assert len(hashes) == len(slow) and owner.tolist() == [i for _, i in slow]
    by_gram = {}
    for (gram, _), value in zip(slow, hashes.tolist()):
        assert by_gram.setdefault(gram, value) == value
    assert len(set(by_gram.values())) == len(by_gram)


def test_equal_passages_have_equal_n_grams_wherever_they_stand():
    passage = "Eve has 6 apples, gets 2 and then loses 3 of them"
    alone = set(ngrams([passage], 10)[0].tolist())
    random = np.random.default_rng(0)
    for length in (0, 1, 7, 300):
        before = " ".join(f"w{random.integers(1000)}" for _ in range(length))
        hashes, owner = ngrams(["x " * 50, f"{before} {passage} after"], 10)
        assert alone and alone <= set(hashes[owner == 1].tolist())


def test_case_width_punctuation_and_blanks_make_no_difference():
    known = Contamination({"bench": [row(f"First: {TEN}!")]})
    assert known.passages([f"FIRST\n{TEN.upper().replace(' ', ' - ')}"]) == [Overlap("bench", 0)]
    assert known.passages(["Ｆirst " + TEN]) == [Overlap("bench", 0)]
    assert known.passages([TEN.replace("five", "fife")]) == [None]


def test_nine_words_are_not_enough_and_ten_are():
    known = Contamination({"bench": [row(f"{TEN} eleven")]})
    assert known.passages([TEN.rpartition(" ")[0], f"zero {TEN}", TEN]) == [None, Overlap("bench", 0), Overlap("bench", 0)]


def test_seventeen_chinese_characters_are_ten_words():
    known = Contamination({"bench": [row(f"问{HAN}多少")]})
    assert len(HAN) == 17
    assert known.passages([f"甲{HAN}乙", f"甲{HAN[:16]}乙"]) == [Overlap("bench", 0), None]


def test_reference_solutions_count_too_and_the_row_is_named():
    known = Contamination({"a": [row("1 + 1")], "b": [row("2 + 2", index=0), row("3 + 3", f"Well: {TEN}.", 1)]})
    assert known.passages([f"I think {TEN}"]) == [Overlap("b", 1)]
    assert known.passages(["1 + 1"]) == [None]


def test_short_problems_are_met_as_a_whole_only():
    known = Contamination({"bench": [row("From 3, 7, 8 make 21.")]})
    assert is_short("From 3, 7, 8 make 21.", 10)
    texts = ["from 3 7 8 make 21", "From 3, 7, 8 make 22.", "From 3, 7, 8 make 21. Show the way that leads there in words."]
    assert known.problems(texts) == [Overlap("bench", 0), None, None]


def test_without_benchmarks_nothing_is_contaminated():
    known = Contamination({})
    assert len(known) == 0 and known.problems([TEN, ""]) == [None, None]


def test_zero_words_are_refused():
    with pytest.raises(ValueError, match="at least 1 word, not 0"):
        Contamination({"bench": [row(TEN)]}, words=0)


def test_signs_tell_sums_from_products():
    assert whole_hash("3*7") == whole_hash("3+7") and whole_hash("3*7", signs=True) != whole_hash("3+7", signs=True)
    assert not np.array_equal(ngrams(["3*7"], 3, signs=True)[0], ngrams(["3+7"], 3, signs=True)[0])
    # with signs a Chinese character counts as one token
    assert len(ngrams([HAN], 5, signs=True)[0]) == 13


def test_marks_are_parts_of_their_words():
    assert words("हिन्दी में cafe\u0301s") == ["हिन्दी", "में", "cafe\u0301s"]
    assert whole_hash("caf\u00e9") == whole_hash("cafe\u0301")


def test_marks_that_pile_up_take_no_quadratic_time():
    import time

    started = time.monotonic()
    ngrams(["a" + "\u0301\u0323" * 50_000], 10)
    assert time.monotonic() - started < 2
