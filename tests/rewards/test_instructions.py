"""Verifiable instructions: each family's definition from both sides, the benchmark's rows, strict and loose."""

import json
import os
import time
from pathlib import Path

import pytest

from r1jax.rewards import RewardRequest, Verdict, grade
from r1jax.rewards.instructions import Following, accuracies, check_row, follow, grade_instructions, response_of
from r1jax.rewards.instructions.counting import count_capital_words, count_sentences, count_words
from r1jax.rewards.instructions.families import FAMILIES

IFEVAL = Path(os.environ.get("R1JAX_DATA", "../shared/data")) / "instructions/ifeval.jsonl"

# family -> [(arguments, texts that follow it, texts that don't)]
CASES = {
    "keywords:existence": [
        ({"keywords": ["sun", "Moon"]}, ["The moon and the SUN", "sunny moonlight"], ["the sun", "moo n sun", ""]),
        ({"keywords": ["a+b"]}, ["a+b=c"], ["aab"]),
    ],
    "keywords:frequency": [
        ({"keyword": "fish", "frequency": 2, "relation": "at least"}, ["fish, fish", "Fishfish", "a FISH b fish c fish"], ["fish", ""]),
        ({"keyword": " fish ", "frequency": 2, "relation": "less than"}, ["fish", "no"], ["fish fish", "fishes fish"]),
    ],
    "keywords:forbidden_words": [
        ({"forbidden_words": ["rock", "c++"]}, ["rocket rocks", "a Rocky road"], ["a Rock.", "rock", "pop-rock"]),
    ],
    "keywords:letter_frequency": [
        ({"letter": "q", "let_frequency": 2, "let_relation": "at least"}, ["Qq", "quite a queue"], ["q", "none"]),
        ({"letter": "#", "let_frequency": 4, "let_relation": "at least"}, ["####"], ["###"]),
        ({"letter": "T", "let_frequency": 2, "let_relation": "less than"}, ["a t b", "none"], ["Tt", "that"]),
    ],
    "language:response_language": [
        ({"language": "de"}, ["Das ist nicht schwer, und wir haben es schon."], ["That is not hard, and we have it.", "123", "法语"]),
        ({"language": "hi"}, ["यह बहुत अच्छा है और हम इसको करते हैं।"], ["हे कठीण नाही, आणि ते आहे.", "This is in English"]),
        ({"language": "ko"}, ["이것은 어렵지 않습니다."], ["これは難しくありません。"]),
    ],
    "length_constraints:number_sentences": [
        ({"num_sentences": 3, "relation": "at least"}, ["One. Two. Three.", "A? B! C.", "One. Two. Three"], ["One. Two.", "1.5 is a number."]),
        ({"num_sentences": 3, "relation": "less than"}, ["One. Two.", "Dr. Who met Mr. X.", "no stop"], ["One. Two. Three."]),
    ],
    "length_constraints:number_paragraphs": [
        ({"num_paragraphs": 2}, ["a\n***\nb", "a *** b", "***a***b***"], ["a", "a\n\nb", "a***b***c", "a******b", "a***\n***b"]),
    ],
    "length_constraints:number_words": [
        ({"num_words": 3, "relation": "at least"}, ["one two three", "it's me", "a-b-c"], ["one two", "..."]),
        ({"num_words": 3, "relation": "less than"}, ["one two", "..."], ["one two three"]),
    ],
    "length_constraints:nth_paragraph_first_word": [
        (
            {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "Send"},
            ["a\n\nsend it", 'a\n\n"Send, it"', "a\n\nSEND's x"],
            ["send\n\na", "a\n\nsender it", "send it", "a\n\nsend\n\nb", "a\n\n\n\nsend", "a\n\n"],
        ),
    ],
    "detectable_content:number_placeholders": [
        ({"num_placeholders": 2}, ["[a] and [b]", "[a][b][c]", "[]\n[]"], ["[a]", "[a\n] [b", "(a) (b)"]),
    ],
    "detectable_content:postscript": [
        ({"postscript_marker": "P.S."}, ["Bye\nP.S. more", "p. s. x"], ["PS more", "P.S", "Bye"]),
        ({"postscript_marker": "P.P.S"}, ["P.P.S more", "p. p. s. x"], ["P.S. more"]),
        ({"postscript_marker": "NB:"}, ["nb: more"], ["NB more"]),
    ],
    "detectable_format:number_bullet_lists": [
        ({"num_bullets": 2}, ["* a\n* b", "- a\n  - b\ntext", "* a\n- b"], ["* a", "* a\n* b\n* c", "** a\n** b", "1. a\n2. b"]),
    ],
    "detectable_format:constrained_response": [
        ({}, ["My answer is yes.", "Well. My answer is maybe. So."], ["My answer is yes", "my answer is no.", "yes"]),
    ],
    "detectable_format:number_highlighted_sections": [
        ({"num_highlights": 2}, ["*a* *b*", "**a** and *b*", "*a*\n**b**"], ["*a*", "* a\n* b", "** ** ****", "no"]),
    ],
    "detectable_format:multiple_sections": [
        ({"section_spliter": "SECTION", "num_sections": 2}, ["SECTION 1\na\nSECTION 2\nb", "SECTION1 SECTION2"], ["SECTION 1", "Section 1 Section 2", "SECTION A SECTION B"]),
        ({"section_spliter": "Day", "num_sections": 1}, ["Day 1: go"], ["day 1"]),
    ],
    "detectable_format:json_format": [
        ({}, ['{"a": 1}', '```json\n{"a": [1, 2]}\n```', "```\n[]\n```", "3"], ["{a: 1}", 'Here: {"a": 1}', "", "[" * 100_000]),
    ],
    "detectable_format:title": [({}, ["<<poem of joy>>\ntext", "a <<b>> c"], ["<poem>", "<< >>", "<<>>", "<<a\nb>>", ">>a<<"])],
    "combination:two_responses": [
        ({}, ["a\n******\nb", "******a******b******"], ["a", "a******a", "a******b******c", "a***b", "a******", "a************b"]),
    ],
    "combination:repeat_prompt": [
        ({"prompt_to_repeat": "Write a poem. "}, ["Write a poem.\nRoses", "  WRITE A POEM. ok"], ["Sure! Write a poem.", "Write a poem", "Write  a poem."]),
    ],
    "startend:end_checker": [
        ({"end_phrase": "Peace!"}, ["Bye. Peace!", 'Bye. "peace!" ', "Peace!\n"], ["Peace", "Peace! Bye", "Peace! ."]),
    ],
    "startend:quotation": [({}, ['"all of it"', ' "a\nb" ', '""'], ['"a', "'a'", "“a”", '"', "a"])],
    "change_case:capital_word_frequency": [
        ({"capital_frequency": 2, "capital_relation": "at least"}, ["I AM", "THE WELL-KNOWN one"], ["I am", "The Cat", "WELL-KNOWN"]),
        ({"capital_frequency": 2, "capital_relation": "less than"}, ["I am", "none"], ["I AM", "A B c"]),
    ],
    "change_case:english_capital": [
        ({}, ["THIS IS THE WHOLE OF IT, AND IT IS NOT LONG.", "HELLO 123"], ["THIS IS it", "this", "123", "DAS IST NICHT SCHWER, UND WIR HABEN ES.", "这是 A"]),
    ],
    "change_case:english_lowercase": [
        ({}, ["this is the whole of it, and it is not long.", "hello 123"], ["This is it", "THIS", "123", "das ist nicht schwer, und wir haben es.", "ça et là, c'est pas moi"]),
    ],
    "punctuation:no_comma": [({}, ["none; at all", "一，二"], ["a, b", ","])],
}  # fmt: skip


def test_every_family_is_tested():
    assert set(CASES) == set(FAMILIES) and len(FAMILIES) == 25


@pytest.mark.parametrize("family", CASES)
def test_definitions_from_both_sides(family):
    for arguments, followed, not_followed in CASES[family]:
        row = {"instruction_id_list": [family], "kwargs": [arguments]}
        for text in followed:
            assert follow(row, text).strict == (True,), text
        for text in not_followed:
            assert follow(row, text).strict == (False,), text


def test_what_says_nothing_follows_nothing():
    for family, cases in CASES.items():
        row = {"instruction_id_list": [family], "kwargs": [cases[-1][0]]}
        assert follow(row, " \n") == Following((False,), (False,))


def test_every_row_of_the_benchmark_can_be_checked():
    if not IFEVAL.exists():
        pytest.skip(f"there is no {IFEVAL} (R1JAX_DATA)")
    rows = [json.loads(line) for line in IFEVAL.read_text(encoding="utf-8").splitlines()]
    assert len(rows) == 540 and {family for row in rows for family, _ in check_row(row)} == set(FAMILIES)
    everything = {name: None for row in rows for arguments in row["kwargs"] for name in arguments}
    padded = [{**row, "kwargs": [{**everything, **arguments} for arguments in row["kwargs"]]} for row in rows]
    start = time.process_time()
    followed = [follow(row, row["prompt"]) for row in rows]
    assert [follow(row, row["prompt"]) for row in padded] == followed
    figures = accuracies(followed)
    assert 0.1 < figures["prompt_strict"] < figures["instruction_loose"] < 0.9
    assert time.process_time() - start < 20  # measured: 1 s
    repeated = [row for row in rows if row["instruction_id_list"] == ["combination:repeat_prompt"]]
    assert repeated and all(
        follow(row, row["kwargs"][0]["prompt_to_repeat"] + "\n\nHere.").strict == (True,) for row in repeated
    )


def test_loose_readings():
    row = {"instruction_id_list": ["startend:quotation"], "kwargs": [{}]}
    for text in ('Sure!\n"text"', '"text"\nHope it helps', 'Sure!\n"text"\nBye', '*"text"*'):
        assert follow(row, text) == Following((False,), (True,)), text
    assert follow(row, 'a\nb\n"text"') == Following((False,), (False,))
    both = {"instruction_id_list": ["startend:quotation", "punctuation:no_comma"], "kwargs": [{}, {}]}
    assert follow(both, 'Sure,\n"text"') == Following((False, False), (True, True))  # each in its own reading


def test_accuracies():
    followings = [
        Following((True, True), (True, True)),
        Following((True, False), (True, True)),
        Following((False,), (False,)),
    ]
    assert accuracies(followings) == {
        "prompt_strict": 1 / 3, "instruction_strict": 3 / 5, "prompt_loose": 2 / 3, "instruction_loose": 4 / 5,
    }  # fmt: skip
    with pytest.raises(ValueError, match="at least one"):
        accuracies([])


ROW = {"instruction_id_list": ["punctuation:no_comma", "startend:quotation"], "kwargs": [{}, {}], "grader": "instructions"}


def test_only_the_response_counts():
    assert response_of("<think>a, b</think>\n c ") == "c" and response_of("c") == "c" and response_of("a</think>c") == "c"
    assert (
        response_of("<think>a</think> <answer> c </answer>") == "c"
        and response_of("<answer>a</answer> b") == "<answer>a</answer> b"
    )
    assert response_of("<think>a") == ""
    assert grade_instructions(ROW, '<think>one, two</think>"text"')[0] is Verdict.RIGHT
    assert grade_instructions(ROW, '<think>"text"</think>one, two')[0] is Verdict.WRONG
    assert grade_instructions(ROW, "<think>so")[0] is Verdict.WRONG


def test_the_grader_and_the_part():
    def record(completion, row=ROW, prompt=""):
        return grade(RewardRequest(row, prompt, completion), ["accuracy", "instructions"])

    assert record('"text"').parts == {"accuracy": 1.0, "instructions": 1.0}
    half = record('"one, two"')
    assert half.parts == {"accuracy": 0.0, "instructions": 0.5} and half.reason == "does not follow punctuation:no_comma"
    assert record('Sure!\n"text"', {**ROW, "grader": "instructions_loose"}).parts == {"accuracy": 1.0, "instructions": 0.5}
    # The prompt opened the thought and it never ends: there is no response.
    assert record('"text"', prompt="Assistant: <think>\n").parts == {"accuracy": 0.0, "instructions": 0.0}
    assert record('so</think>"text"', prompt="Assistant: <think>\n").parts == {"accuracy": 1.0, "instructions": 1.0}


@pytest.mark.parametrize(
    "families, arguments, message",
    [
        (["punctuation:no_commas"], [{}], "unknown instruction 'punctuation:no_commas'"),
        (["punctuation:no_comma"], [{"a": 1}], "takes no arguments, not a"),
        (["length_constraints:number_words"], [{"num_words": 3}], "takes num_words, relation, not num_words"),
        (
            ["length_constraints:number_words"],
            [{"num_words": "3", "relation": "at least"}],
            "num_words must be a whole number",
        ),
        (
            ["length_constraints:number_words"],
            [{"num_words": 3, "relation": "about"}],
            "relation must be one of less than, at least",
        ),
        (["keywords:existence"], [{"keywords": "sun"}], "keywords must be a list of texts"),
        (["language:response_language"], [{"language": "xx"}], "unknown language 'xx'"),
        (["punctuation:no_comma"], [], "one mapping for each of 1"),
        ([], [], "names an instruction"),
        (None, None, "names an instruction"),
    ],
)
def test_rows_that_cant_be_checked_are_ungraded(families, arguments, message):
    row = {"instruction_id_list": families, "kwargs": arguments, "grader": "instructions"}
    with pytest.raises(ValueError, match=message):
        check_row(row)
    record = grade(RewardRequest(row, "", "text"), ["accuracy", "instructions"])
    assert record.verdict is Verdict.UNGRADED and record.parts == {"accuracy": None, "instructions": None}


def test_counting():
    # What nltk's trained splitter says of the same texts, where it agrees with people; measured over 1,438 texts: 82 differ.
    for count, text in (
        (4, "Hello. This is it! Is it? Yes."), (3, 'He said "Go." Then he left. (It is.)'), (2, "Dr. Smith met Mr. Jones at 5 p.m. on Monday. He left."),
        (2, "J. K. Rowling wrote it. It sold."), (1, "Title\n\nNo stop here\nThen. "), (2, "The U.S. is big. It costs 3.5 dollars"),
        (2, "Wait... what? No"), (6, "1. First.\n2. Second.\n3. Third."), (1, "a... b"), (3, "你好。我们走吧！好？"), (0, "..."), (0, ""),
    ):  # fmt: skip
        assert count_sentences(text) == count, text
    assert count_words("It's a well-known snake_case 3.5") == 8 and count_words("हिन्दी में") == 2 and count_words("") == 0
    assert count_capital_words("I'm THE U.S. AND/OR WELL-KNOWN Cat A1 7") == 6


def test_nothing_takes_more_than_linear_time():
    start = time.process_time()
    for family, cases in CASES.items():
        row = {"instruction_id_list": [family], "kwargs": [cases[0][0]]}
        for unit in ("[", "<<", "*", "** ", "\n", "- ", ". ", "a", "A.", "p.", "{", '"', "Section ", "啊"):
            follow(row, unit * (30_000 // len(unit)))
    assert time.process_time() - start < 30  # measured: 2 s
