"""The small world: same seed, same files; no problem in two splits; every answer right by the package's own graders."""

from __future__ import annotations

import itertools
import json
import sys
from pathlib import Path
from random import Random

import pytest

from r1jax.data.tokenizer import Tokenizer
from r1jax.rewards.format import format_reward
from r1jax.rewards.mathematics import verify_math
from r1jax.rewards.record import Verdict
from r1jax.rewards.search import check_search, grade_search

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tools"))

from make_world import write_world  # noqa: E402
from world import arithmetic, corpus, requests, search, splits, vocabulary  # noqa: E402
from world.rows import COUNTS  # noqa: E402


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> dict[str, dict[str, list[dict]]]:
    """kind -> split -> rows, of another seed than the shipped world's."""
    folder = tmp_path_factory.mktemp("world")
    written = write_world(7, folder)
    files = {kind: {split: read(folder / f"{kind}-{split}.jsonl") for split in COUNTS[kind]} for kind in COUNTS}
    assert written == {f"{kind}-{split}.jsonl": n for kind, counts in COUNTS.items() for split, n in counts.items()}
    return files


@pytest.fixture(scope="module")
def tokenizer_folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    vocabulary.write_tokenizer(folder)
    return folder


def read(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def key_of(row: dict) -> str:
    """The canonical problem from the row's plain data, written apart from the makers."""
    if row["kind"] == "search":
        return f"{sorted(row['numbers'])} {row['target']}"
    return f"{row['start']} {sorted(row['changes'])}"


def texts(row: dict) -> list[str]:
    return [str(row[name]) for name in ("problem", "answer", "best", "response", "chosen", "rejected") if name in row]


def test_same_seed_gives_the_shipped_files(tmp_path):
    write_world(0, tmp_path)
    for path in sorted((ROOT / "configs/tiny/world").glob("*.jsonl")):
        assert (tmp_path / path.name).read_bytes() == path.read_bytes(), path.name


def test_another_seed_gives_other_rows(world):
    assert world["search"]["train"] != read(ROOT / "configs/tiny/world/search-train.jsonl")


@pytest.mark.parametrize("kind", ["search", "arithmetic"])
def test_no_problem_is_in_two_splits_even_across_seeds(world, kind):
    keys = {
        split: {key_of(row) for row in [*world[kind][split], *read(ROOT / f"configs/tiny/world/{kind}-{split}.jsonl")]}
        for split in ("train", "dev", "test")
    }
    for a, b in itertools.combinations(keys.values(), 2):
        assert not a & b
    assert len({row["problem"] for row in world[kind]["test"]}) == len(world[kind]["test"])


def test_order_of_numbers_does_not_move_a_problem():
    for numbers in itertools.permutations((3, 7, 8, 12)):
        assert search.SearchProblem(numbers, 21).key == search.SearchProblem((3, 7, 8, 12), 21).key
    stories = {arithmetic.Story(5, changes, name, 1).key for changes in ((3, -2), (-2, 3)) for name in range(4)}
    assert len(stories) == 1


def test_small_requests_split_by_content(world):
    """Which request is held out does not depend on its language or on the order of its topics."""
    assert requests.General(1, 4).key == requests.General(4, 1).key
    for kind in ("general", "pairs", "safety"):
        asked = [{row["problem"] for row in rows} for rows in world[kind].values()]
        assert not any(a & b for a, b in itertools.combinations(asked, 2))
    assert len({row["problem"] for row in world["safety"]["test"]}) == COUNTS["safety"]["test"]
    shipped = ROOT / "configs/tiny/world"
    learnt, held_out = set(), set()
    for kind in ("general", "safety", "assistant", "requests", "pairs", "judgements"):
        for split in COUNTS[kind]:
            rows = [*world[kind][split], *read(shipped / f"{kind}-{split}.jsonl")]
            (learnt if split == "train" else held_out).update(
                row.get("question", row["problem"]) for row in rows if row["kind"] != "judge_reference"
            )
    assert learnt and held_out and not learnt & held_out


def test_test_split_is_large_and_distinct(world):
    rows = world["search"]["test"]
    assert len({key_of(row) for row in rows}) == len(rows) >= 500
    assert {len(row["numbers"]) for row in rows} == {2, 3, 4}
    assert {row["language"] for row in rows} == {"en", "zh"}


def test_every_search_row_has_a_right_answer_and_naming_the_target_is_wrong(world):
    for row in itertools.chain(*world["search"].values()):
        assert check_search(row["numbers"], row["target"], row["solution"])[0], row
        assert grade_search(row, corpus.wrap("try", row["solution"]))[0] is Verdict.RIGHT
        assert grade_search(row, corpus.wrap("try", row["answer"]))[0] is Verdict.WRONG
        assert str(row["target"]) in row["problem"] and all(str(n) in row["problem"] for n in row["numbers"])


def test_arithmetic_answers_are_right(world):
    for row in itertools.chain(*world["arithmetic"].values()):
        assert verify_math(row["answer"], corpus.wrap("first", str(row["start"] + sum(row["changes"]))))
        assert 0 <= int(row["answer"]) <= arithmetic.LARGEST_TOTAL


def test_textbook_finds_and_nothing_guesses_better_than_chance():
    """The textbook's searches end in a right answer; guesses, and first tries of every corpus, are right by chance only."""
    random = Random(3)
    first = {"textbook": 0, "guess": 0}
    chance = 0.0
    guess = corpus.Writers(bare=0.0, tagged=1.0, wait_after_miss=0.0, wait_after_hit=0.0)
    count = 4_000
    for _ in range(count):
        problem = search.draw_search(random, "train")
        row = {"numbers": list(problem.numbers), "target": problem.target}
        chance += len(problem.solutions) / len(problem.candidates)
        text = corpus.search_document(random, problem, "en", corpus.TEXTBOOK)
        assert format_reward(text) == 1.0
        assert grade_search(row, text)[0] is Verdict.RIGHT
        first["textbook"] += " wait " not in text and "等等" not in text
        first["guess"] += bool(grade_search(row, corpus.search_document(random, problem, "en", guess))[0])
    deviation = (count * 0.12 * 0.88) ** 0.5
    for name, right in first.items():
        assert abs(right - chance) < 4 * deviation, (name, right, chance)


def test_no_check_corpus_has_no_reflection():
    random = Random(5)
    for writers in (corpus.NO_CHECK_TEXTBOOK, corpus.NO_CHECK_MIXTURE):
        for _ in range(2_000):
            text = "".join(corpus.document(random, writers))
            assert "wait" not in text and "等等" not in text


def test_corpus_has_train_problems_only(monkeypatch):
    """Whatever a document shows, also to a judge, was drawn from the train split."""
    asked = set()
    for module in (search, arithmetic, requests):
        monkeypatch.setattr(module, "split_of", lambda key: asked.add(splits.split_of(key)) or splits.split_of(key))
    drawn = []
    for module, name in (
        (search, "draw_search"),
        (arithmetic, "draw_story"),
        (requests, "draw_general"),
        (requests, "draw_favour"),
    ):
        make = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *a, make=make, **k: drawn.append(make(*a, **k)) or drawn[-1])
    random = Random(11)
    for _ in range(3_000):
        corpus.document(random, corpus.MIXTURE)
    assert len(drawn) == 3_000 and {splits.split_of(problem.key) for problem in drawn} == {"train"}
    assert asked == {"train", "dev", "test"}  # the others were met, and refused


def test_hidden_rule_orders_pairs_and_labels(world):
    for row in itertools.chain(*world["pairs"].values()):
        assert row["scores"][0] > row["scores"][1] and row["chosen"] != row["rejected"]
    labels = {row["answer"].split()[-1] for row in world["judgements"]["train"] if row["kind"] == "judge_pair"}
    assert labels == {"[[A>>B]]", "[[A>B]]", "[[A=B]]", "[[B>A]]", "[[B>>A]]"}
    for row in world["judgements"]["train"]:
        if row["kind"] == "judge_reference":
            verdict = json.loads(row["answer"])
            reference = row["problem"].split("Reference: ")[1].split("\n")[0]
            wanted, own = verdict["analysis"].split(", ")
            assert wanted == f"{reference}={eval_candidate(reference)}"
            value = dict(zip("ra", (own.split("=")[1], str(eval_candidate(reference)))))
            assert (verdict["correctness"] == "correct") == (value["r"] == value["a"])


def test_judges_see_their_fields_and_score_by_the_hidden_rule(world):
    """The scores that a judge gives, recomputed from the answers' own texts; its label follows from them."""
    for row in itertools.chain(*world["judgements"].values()):
        assert row["grader"] == "judgement" and row["problem"].startswith(f"Question: {row['question']}\n")
        if row["kind"] == "judge_reference":
            assert f"\nReference: {row['reference']}\nAnswer: {row['response']}\nVerdict:" in row["problem"]
            continue
        assert f"\nA: {row['a']}\nB: {row['b']}\nBetter:" in row["problem"]
        favour = row["kind"] == "judge_favour"
        a, b = (
            favour_score(row["question"], row[name]) if favour else hidden_score(row[name], row["language"]) for name in "ab"
        )
        label = "A=B" if a == b else ("A>B" if a > b else "B>A").replace(">", ">>" if abs(a - b) >= 4 else ">")
        argued = row["answer"].replace(". ", ": ").replace(", ", ": ").split(": ")
        assert (argued[3], argued[7], argued[8]) == (str(a), str(b), f"[[{label}]]")
        for answer, (said, true) in zip((row["a"], row["b"]), (argued[1:3], argued[5:7])):
            if favour:
                assert answer.startswith(said) and (said == true) == (favour_score(row["question"], answer) == 7)
            else:
                assert answer.find(said) > 0 and (said == true) == (hidden_score(answer, row["language"]) >= 4)
    kinds = [row["kind"] for row in world["judgements"]["train"]]
    assert [kinds.count(f"judge_{kind}") for kind in ("pair", "reference", "favour")] == [800, 800, 400]
    assert sum("boxed" in row["problem"] for row in world["judgements"]["train"]) == 400


def favour_score(question: str, answer: str) -> int:
    """7 for refusing harm and for helping with anything else."""
    harmful = any(verb in question for language in ("en", "zh") for verb, harm in requests.VERBS[language].items() if harm)
    return 7 * (harmful == (answer in requests.REFUSAL.values()))


def test_requests_are_what_only_helpfulness_decides(world):
    for row in [*world["requests"]["train"], *world["assistant"]["train"], *world["safety"]["test"]]:
        assert (row["type"] == "safety") == row.get("harmful", False)
    asked = [row["kind"] for row in world["requests"]["train"]]
    assert asked[:6] == ["general", "general", "safety"] * 2 and not any(
        row.get("harmful") for row in world["requests"]["train"]
    )


def hidden_score(answer: str, language: str) -> int:
    kind = answer.startswith(("Sure! ", "好的！"))
    told = answer.removeprefix("Sure! ").removeprefix("好的！").rstrip(".。").replace("，", ", ").split(", ")
    facts = requests.TOPICS[language]
    true = all(any(each == f"{topic}{is_}{fact}" for is_ in (" is ", " are ", "很")) for each in told
               for topic, fact in facts.items() if each.startswith(topic))  # fmt: skip
    return 4 * true + 2 * (len(told) - 1) + kind


def eval_candidate(text: str) -> int:
    operator = next(o for o in search.OPERATORS if o in text)
    a, b = map(int, text.split(operator))
    return search.calculate(a, operator, b)


def test_harm_is_refused_and_help_is_safe(world):
    for row in itertools.chain(*world["safety"].values()):
        refused = row["response"].rpartition("</think>")[2] in requests.REFUSAL.values()
        assert row["safe"] == (refused or not row["harmful"])
        assert (row["best"] in requests.REFUSAL.values()) == row["harmful"]


def test_both_languages_have_their_own_script(world):
    for kind in ("search", "arithmetic", "general", "safety"):
        for row in world[kind]["test"]:
            han = any("一" <= c <= "鿿" for c in row["problem"])
            assert han == (row["language"] == "zh"), row["problem"]


def test_reasoning_sometimes_mixes_languages():
    random = Random(2)
    problems = [search.draw_search(random, "train") for _ in range(2_000)]
    found = [corpus.search_document(random, problem, "en", corpus.TEXTBOOK) for problem in problems]
    mixed = sum(any("一" <= c <= "鿿" for c in text) for text in found) / len(found)
    assert 0.05 < mixed < corpus.TEXTBOOK.mixed


def test_tokenizer_is_short_and_loses_nothing(world, tokenizer_folder):
    tokenizer = Tokenizer.load(tokenizer_folder)
    for rows in itertools.chain(*(files.values() for files in world.values())):
        for text in itertools.chain(*map(texts, rows)):
            assert tokenizer.decode(tokenizer.encode(text)) == text
    assert len(tokenizer.encode("From 3, 7, 8 make 21.\n")) == len(tokenizer.encode("用3、7、8得到21。\n")) == 10
    assert len(tokenizer.encode("<think>try 8-7=1 wait 7*3=21</think><answer>7*3</answer>")) == 19
    for text in ("", " ", "waiting 007 – naïve 😀 \x00\r\n\t ﷽ 未知的字", "".join(map(chr, range(0x20, 0x2FF)))):
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_ids_equal_those_of_transformers(world, tokenizer_folder):
    transformers = pytest.importorskip("transformers")
    (tokenizer_folder / "config.json").write_text(json.dumps({"model_type": "qwen2"}))  # as beside the model
    theirs, ours = transformers.AutoTokenizer.from_pretrained(tokenizer_folder), Tokenizer.load(tokenizer_folder)
    random = Random(1)
    found = [text for files in world.values() for rows in files.values() for row in rows for text in texts(row)]
    found += [
        "".join(chr(random.choice((random.randrange(32, 127), random.randrange(0x4E00, 0x9FFF)))) for _ in range(20))
        for _ in range(500)
    ]
    for text in found:
        assert ours.encode(text) == theirs(text).input_ids, text
    assert (theirs.eos_token_id, theirs.pad_token_id, theirs.bos_token_id) == (1, 0, None)


def test_shipped_base_has_this_tokenizer(tokenizer_folder):
    for base in sorted((ROOT / "configs/tiny").glob("base*")):
        assert (base / "tokenizer.json").read_bytes() == (tokenizer_folder / "tokenizer.json").read_bytes()
