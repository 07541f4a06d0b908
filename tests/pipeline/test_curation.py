"""The parts of the data-making stages, each by itself: filters, duplicates, selection, rewriting, the files."""

import json
from random import Random

import numpy as np
import pytest
from etils import epath

from r1jax import config
from r1jax.config import DataSource, FilterSettings, RecipeError, SelectionSettings
from r1jax.data import DataError
from r1jax.data.writing import jsonl_text, parquet_bytes, uniform
from r1jax.evaluation.contamination import Contamination
from r1jax.pipeline.curation.card import Tally
from r1jax.pipeline.curation.checks import check_settings
from r1jax.pipeline.curation.dataset import Example, read_general
from r1jax.pipeline.curation.deduplication import equal_to, jaccard, near_across, near_in_group, shingles
from r1jax.pipeline.curation.filters import first_reason, make_filters, split_thought
from r1jax.pipeline.curation.refining import drop_duplicates, mix_general
from r1jax.pipeline.curation.rewriting import few_shot, in_r1_format, rewrite_by_template, rewritten_part
from r1jax.pipeline.curation.selection import balanced, best_of_prompt, check_selection, general_count
from r1jax.pipeline.runner import workdir

NAMES = ("truncated", "format", "language", "paragraphs", "code", "repetition")
GOOD = "<think>\nI want the sum of the two numbers.\n\nThat is 4.\n</think>\n\nThe answer is 4."


def reason(text, form="think", names=NAMES, row=None, **settings):
    filters = make_filters(names, form, FilterSettings(**settings), "stages.s")
    return first_reason(filters, text, {"problem": "What is the sum of 2 and 2?", "finish_reason": "stop", **(row or {})})


# ---------------------------------------------------------------------------------------------- filters
def test_a_good_text_passes_every_filter():
    assert reason(GOOD) is None
    assert reason("<think>I want the sum.</think> <answer>4</answer>", form="zero") is None


@pytest.mark.parametrize(
    "text, wanted",
    [
        ("I think it is 4.", "format"),
        ("well <think>I add them</think>It is 4.", "format"),
        ("<think>I add them</think>4</think>It is 4.", "format"),
        ("<think> . </think>It is 4.", "format"),
        ("<think>I add them</think>\n\n .", "no summary"),
        (GOOD.replace("That is", "也就是说它等于这个数字那么"), "mixed languages"),
        (GOOD.replace("That is 4.", "That is the sum of it. " * 120), "long paragraph"),
        (GOOD.replace("That is 4.", "So:\n```python\nprint(4)\n```\n"), "code block"),
        (GOOD.replace("That is 4.", "And so we add them once more.\n\n" * 9), "repetition"),
    ],
)
def test_each_filter_names_its_reason(text, wanted):
    assert reason(text) == wanted


def test_what_the_cap_ended_is_truncated_whatever_it_holds():
    assert reason(GOOD, row={"finish_reason": "length"}) == "truncated"


def test_code_is_welcome_in_the_summary():
    assert reason(GOOD + "\n```python\nprint(4)\n```") is None


def test_the_problem_or_the_row_says_which_language_is_meant():
    chinese = "<think>我想知道这两个数字的和是多少。</think>答案是四。"
    assert reason(chinese) == "mixed languages"
    assert reason(chinese, row={"problem": "两个数字的和是多少？"}) is None
    assert reason(chinese, row={"language": "zh"}) is None


def test_formulas_alone_are_of_no_wrong_language():
    assert reason("<think>2+2=4</think>4") is None


def test_bounds_are_settings():
    long = GOOD.replace("That is 4.", "That is the sum of it. " * 120)
    assert reason(long, longest_paragraph=10_000, most_repetition=1.0) is None
    assert reason(GOOD, longest_paragraph=5) == "long paragraph"


def test_the_users_filter_is_asked(tmp_path, monkeypatch):
    (tmp_path / "my_filters.py").write_text(
        "def polite(text, row):\n    return None if 'please' in text else 'rude'\n"
        "def broken(text, row):\n    return 7\n"
        "number = 7\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert reason(GOOD, names=("format", "my_filters:polite")) == "rude"
    assert reason(GOOD + " please", names=("format", "my_filters:polite")) is None
    with pytest.raises(ValueError, match="my_filters:broken must return a reason as text, or None, not 7"):
        reason(GOOD, names=("my_filters:broken",))
    with pytest.raises(RecipeError, match="my_filters:number is no function"):
        reason(GOOD, names=("my_filters:number",))


def test_unknown_filters_and_forms_are_refused():
    with pytest.raises(RecipeError, match="unknown filter 'languages'; did you mean 'language'"):
        reason(GOOD, names=("languages",))
    with pytest.raises(RecipeError, match="form 'thinking' is unknown; did you mean 'think'"):
        reason(GOOD, form="thinking")
    with pytest.raises(RecipeError, match="least_language_share can't be 2"):
        reason(GOOD, least_language_share=2.0)


def test_a_thought_is_split_from_its_summary():
    assert split_thought(" <think>\na\n</think>\n\nb ") == ("a", "b")
    assert split_thought("a</think>b") is None and split_thought("<think>a<think>b</think>c") is None


# ---------------------------------------------------------------------------------------------- duplicates
def sentences(random, count):
    return " ".join(f"w{random.randrange(200)}" for _ in range(count))


def test_equal_texts_are_found_in_order():
    assert equal_to([b"a", b"b", b"a", b"a", b"b"]) == [None, None, 0, 0, 1]


def test_near_duplicates_of_a_prompt_are_compared_with_those_that_stay():
    # b is like a, c is like b but not like a: a and c stay.
    a = " ".join(map(str, range(60)))
    b = " ".join(map(str, range(6, 66)))
    c = " ".join(map(str, range(12, 72)))
    near = jaccard(shingles(a, 5), shingles(b, 5))
    assert near == jaccard(shingles(b, 5), shingles(c, 5)) > jaccard(shingles(a, 5), shingles(c, 5))
    assert near_in_group([a, b, c], 5, near) == [None, 0, None]
    assert near_in_group([a, b, c], 5, near + 1e-6) == [None, None, None]


def test_jaccard_is_that_of_the_sets():
    random = Random(0)
    for _ in range(20):
        one, other = sentences(random, 30), sentences(random, 30)
        grams = [{tuple(t.split()[i : i + 2]) for i in range(29)} for t in (one, other)]
        exact = len(grams[0] & grams[1]) / len(grams[0] | grams[1])
        assert jaccard(shingles(one, 2), shingles(other, 2)) == pytest.approx(exact)


def test_near_duplicates_between_prompts_are_those_of_all_pairs():
    random = Random(1)
    texts, groups = [], []
    for _ in range(60):
        text = sentences(random, 120).split()
        for _ in range(random.randrange(1, 5)):
            copy = list(text)
            for place in random.sample(range(120), random.choice((0, 1, 2, 3, 6, 12))):
                copy[place] = f"new{random.randrange(10**6)}"
            texts.append(" ".join(copy))
            groups.append(random.randrange(20))
    kept, slow = [], []
    sets = [shingles(text, 5) for text in texts]
    for i in range(len(texts)):
        like = next((j for j in kept if groups[j] != groups[i] and jaccard(sets[i], sets[j]) >= 0.6), None)
        slow.append(like)
        if like is None:
            kept.append(i)
    found = near_across(texts, groups, 5, 0.6)
    assert found == slow and sum(like is not None for like in slow) > 20


def test_sums_and_products_are_no_duplicates():
    examples = [Example("From 3, 7 make 21.", f"try {sum_}", "d", 0, i) for i, sum_ in enumerate(("3*7", "3+7", "3*7 "))]
    tally = Tally()
    assert [e.sample for e in drop_duplicates(examples, config.DeduplicationSettings(near=0.0), tally)] == [0, 1]
    assert tally.rejected == {"d": {"duplicate": 1}}


def test_the_same_answer_to_two_problems_is_no_duplicate():
    examples = [Example(f"What is {i} times one?", "I do not know.", "d", i) for i in range(3)]
    assert len(drop_duplicates(examples, config.DeduplicationSettings(near=0.9), Tally())) == 3


def test_a_problem_that_stands_in_two_rows_is_one():
    examples = [Example("What is 2 + 2?", "It is 4.", "d", 0), Example("what  is 2 + 2?", "It is 4.", "d", 1)]
    assert drop_duplicates(examples, config.DeduplicationSettings(), Tally()) == examples[:1]


# ---------------------------------------------------------------------------------------------- selection
def pick(choose, count, texts=("aa bb cc dd", "x", "aa bb cc", "q r"), seed=0):
    lengths = [len(text.split()) for text in texts]
    return best_of_prompt(texts, lengths, count, choose, np.random.default_rng(seed), 1)


def test_the_best_of_a_prompt():
    assert pick("shortest", 2) == [1, 3] and pick("shortest", 0) == [0, 1, 2, 3] and pick("shortest", 9) == [0, 1, 2, 3]
    assert pick("random", 2) == pick("random", 2) and len({tuple(pick("random", 2, seed=s)) for s in range(20)}) > 3
    # the shortest, then what is least like it; of 0 and 2, which are alike, one only
    assert pick("diverse", 3) == [1, 2, 3]


def test_caps_and_weights_balance_domains():
    domains = ["math"] * 50 + ["code"] * 9 + ["logic"] * 30
    rng = lambda: np.random.default_rng(0)  # noqa: E731
    count = lambda chosen: {d: sum(domains[i] == d for i in chosen) for d in ("math", "code", "logic")}  # noqa: E731
    assert count(balanced(domains, {}, {}, rng())) == {"math": 50, "code": 9, "logic": 30}
    assert count(balanced(domains, {"math": 10, "logic": 0}, {}, rng())) == {"math": 10, "code": 9, "logic": 0}
    assert count(balanced(domains, {}, {"math": 4, "code": 1, "logic": 2}, rng())) == {"math": 36, "code": 9, "logic": 18}
    assert count(balanced(domains, {"code": 3}, {"math": 0.4, "code": 0.1}, rng())) == {"math": 12, "code": 3, "logic": 0}
    assert count(balanced(domains, {}, {"math": 1, "none": 5}, rng())) == {"math": 50, "code": 0, "logic": 0}
    assert balanced(domains, {"math": 10}, {}, rng()) == balanced(domains, {"math": 10}, {}, rng())


def test_the_papers_mix_is_three_to_one():
    assert general_count(600_000, 0.25) == 200_000 and general_count(100, 0.0) == 0 and general_count(10, 0.5) == 10


def test_general_data_is_mixed_without_repetitions_and_benchmarks():
    def general(i, problem):
        return Example(problem, "Sure.", "general", -1 - i)

    benchmark = [read(f"Tell me what {w} is" + " and why it is so in ten words" * 2) for w in ("snow", "rain")]
    rows = [general(i, f"Tell me about thing number {i // 2}.") for i in range(40)]
    rows.append(general(40, benchmark[0].problem))
    own = [Example("p", "t", "d", 0)] * 30
    taken, counts = mix_general(own, rows, 0.25, Contamination({"b": benchmark}), seed=5)
    assert counts == {"contaminated": 1, "duplicate": 20, "wanted": 10, "taken": 10} and len(taken) == 10
    again, other = (mix_general(own, rows, 0.25, Contamination({"b": benchmark}), seed)[0] for seed in (5, 6))
    assert len({e.problem for e in taken}) == 10 and taken == again and taken != other
    assert mix_general(own, rows, 0.6, Contamination({}), 5)[1]["taken"] == 21


def read(problem):
    from r1jax.data import PromptRow

    return PromptRow(0, problem, "", "none", "none", {})


def test_selection_settings_are_checked():
    for settings, message in (
        (SelectionSettings(choose="longest"), "choose 'longest' is unknown"),
        (SelectionSettings(per_prompt=-1), "per_prompt can't be negative"),
        (SelectionSettings(domain_caps={"math": -1}), "domain_caps.math can't be negative"),
        (SelectionSettings(domain_weights={"math": 0.0}), "domain_weights.math must be positive"),
    ):
        with pytest.raises(RecipeError, match=message):
            check_selection(settings, "stages.s.selection")


# ---------------------------------------------------------------------------------------------- rewriting
def zero(answer, problem="From 3, 7, 8 make 21.", **row):
    text = f"<think>try 3*7=21</think><answer>{answer}</answer>"
    return Example(problem, text, "search", 0, row={"grader": "search", **row})


def test_a_summary_is_put_after_the_reasoning():
    summaries = {"en": "It is {answer}.", "zh": "是{answer}。"}
    assert rewrite_by_template([zero("3*7")], summaries) == ["<think>\ntry 3*7=21\n</think>\n\nIt is 3*7."]
    assert rewrite_by_template([zero("3*7", "用3、7、8得到21。")], summaries)[0].endswith("\n\n是3*7。")
    assert rewrite_by_template([zero("3*7", language="fr")], summaries)[0].endswith("It is 3*7."), "English for all others"
    assert rewrite_by_template([zero("3*7", language="fr")], {"zh": "是{answer}"})[0].endswith("是3*7")
    assert rewrite_by_template([zero("so \\boxed{3*7}")], summaries)[0].endswith("It is 3*7.")
    assert rewrite_by_template([zero("")], summaries) == [None]


def test_a_program_is_its_own_summary():
    code = "```python\nprint('{answer}')\n```"
    assert rewrite_by_template([zero(code, grader="code")], {"en": "It is {answer}."})[0].endswith(f"\n\n{code}")


def test_braces_in_values_stand_for_themselves():
    assert in_r1_format("{summary}", "s") == "<think>\n{summary}\n</think>\n\ns"


def test_the_default_summaries_grade_right():
    from r1jax.rewards.search import grade_search

    row = {"numbers": [3, 7, 8], "target": 21}
    for problem in ("From 3, 7, 8 make 21.", "用3、7、8得到21。"):
        for answer, verdict in (("3*7", "right"), ("3*8", "wrong")):
            text = rewrite_by_template([zero(answer, problem)], config.ColdStartSettings().summaries)[0]
            assert grade_search(row, text)[0] == verdict


def test_a_rewrite_is_read_from_its_tags():
    assert rewritten_part("<rewritten> a\nb </rewritten> c") == "a\nb"
    assert rewritten_part("a</rewritten><rewritten>c") == "a", "after a prompt that ends with the opening tag"
    assert rewritten_part("<think><rewritten>x</rewritten></think><rewritten>a</rewritten>") == "a"
    assert rewritten_part("<rewritten>a") is None and rewritten_part("<rewritten> </rewritten>") is None


def test_the_prompts_have_places_for_what_is_told():
    for name, fields in (("reasoning", ["language", "problem", "reasoning"]), ("summary", ["answer", "problem"])):
        assert all(few_shot(name).count("{" + field + "}") == 1 for field in fields), name


# ---------------------------------------------------------------------------------------------- files
ROWS = [
    {"id": "a", "problem": "p\u2028q", "tokens": 3, "answer_value": 4, "numbers": [1, 2], "huge": 1, "note": None},
    {"id": "b", "problem": "r", "tokens": 4, "answer_value": "four", "numbers": [], "huge": 1 << 70, "extra": {"x": 1}},
]


def test_columns_have_one_type():
    rows = uniform(ROWS)
    assert [row["answer_value"] for row in rows] == ["4", '"four"'] and [row["huge"] for row in rows] == ["1", str(1 << 70)]
    assert rows[0]["numbers"] == [1, 2] and rows[1]["numbers"] == [] and rows[1]["extra"] == {"x": 1}
    assert "note" not in rows[0] and list(rows[0])[:2] == ["id", "problem"]


def test_parquet_and_jsonl_hold_the_same():
    pytest.importorskip("pyarrow")
    import io

    import pyarrow.parquet

    rows = uniform(ROWS)
    table = pyarrow.parquet.read_table(io.BytesIO(parquet_bytes(rows))).to_pylist()
    lines = [json.loads(line) for line in jsonl_text(rows).rstrip("\n").split("\n")]
    assert lines == rows == [{key: value for key, value in row.items() if value is not None} for row in table]


def test_without_pyarrow_there_is_no_parquet(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert parquet_bytes(ROWS) is None


def test_general_data_is_read_as_supervised_fine_tuning_reads_it(tmp_path):
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello!"}]
    rows = [
        {"problem": "Tell me about snow.", "best": "It is cold.", "domain": "facts"},
        {"messages": [*turns, turns[0], {**turns[1], "reasoning_content": "A greeting.", "name": "r1"}]},
    ]
    path = tmp_path / "general.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    fact, chat = read_general(DataSource(str(path), template="chat", completion_field="best"), "domain")
    assert (fact.problem, fact.text, fact.domain, fact.source) == ("Tell me about snow.", "It is cold.", "facts", "general")
    assert fact.to_row("")["template"] == "chat" and fact.to_row("boxed")["template"] == "boxed"
    assert (chat.problem, chat.domain) == ("Hi\nHello!\nHi", "general")
    written = chat.to_row("chat")
    assert written["messages"][-1] == {"role": "assistant", "content": "<think>\nA greeting.\n</think>\n\nHello!"}
    assert "problem" not in written and "completion" not in written
    path.write_text('{"problem": "Tell me."}\n')
    with pytest.raises(DataError, match="general.jsonl:1: neither completion nor messages"):
        read_general(DataSource(str(path)), "domain")


# ---------------------------------------------------------------------------------------------- settings
@pytest.mark.parametrize(
    "settings, message",
    [
        (config.RejectionSamplingSettings(samples_per_prompt=0), "samples_per_prompt must be at least 1"),
        (config.RejectionSamplingSettings(prompts=-1), "prompts can't be negative"),
        (config.RejectionSamplingSettings(top_p=0.0), "top_p must be over 0"),
        (config.RejectionSamplingSettings(temperature=-1.0), "temperature can't be negative"),
        (config.RejectionSamplingSettings(general_share=1.0), "general_share is a part of the set"),
        (config.RejectionSamplingSettings(template="chatt"), "template: unknown prompt template"),
        (
            config.RejectionSamplingSettings(judge_function="nowhere:judge"),
            "judge_function: 'nowhere:judge' can't be imported",
        ),
        (config.RejectionSamplingSettings(deduplication=config.DeduplicationSettings(near=8.0)), "near is a similarity"),
        (
            config.RejectionSamplingSettings(judging=config.JudgeSettings(max_tokens=0)),
            "stages.s.judging.max_tokens must be at least 1, not 0",
        ),
        (config.RejectionSamplingSettings(judging=config.JudgeSettings(prompts="chats")), "judging.prompts: .* 'chat'"),
        (config.ColdStartSettings(form="think"), "form must be zero"),
        (config.ColdStartSettings(summaries={"en": "Done."}), "summaries.en must contain {answer}"),
        (config.ColdStartSettings(summaries={}), "summaries must hold at least one"),
        (config.ColdStartSettings(rewriter_sampling=config.RewriterSettings(top_p=2.0)), "rewriter_sampling.top_p"),
    ],
)
def test_settings_that_can_not_be_worked_with_are_refused(settings, message):
    with pytest.raises(RecipeError, match=message):
        check_settings("s", settings)


def test_default_settings_are_good():
    check_settings("s", config.RejectionSamplingSettings())
    check_settings("s", config.ColdStartSettings())


def recipe(**stage):
    return {
        "name": "r",
        "models": {"m": {"path": "m"}},
        "data": {"d": {"path": "d"}, "g": {"path": "g"}},
        "benchmarks": {"b": {"path": "b"}},
        "stages": [{"name": "s", "kind": "rejection_sampling", "model": "m", "data": "d", **stage}],
    }


def test_the_graph_knows_the_inputs_of_each_kind():
    read = config.read_recipe(recipe(general="g", decontaminate=["b"]))
    assert read.stages[0].inputs == {"model": "m", "data": "d", "general": "g"}
    assert config.read_recipe(config.to_document(read)) == read
    config.read_recipe(recipe(kind="cold_start", rewriter="m"))
    for changed, message in (
        ({"general": "m"}, "stages.s.general: nothing named 'm'"),
        ({"rewriter": "m"}, "stages.s.rewriter: rejection_sampling takes no such input"),
        ({"kind": "cold_start", "general": "g"}, "stages.s.general: cold_start takes no such input"),
        ({"kind": "cold_start", "rewriter": "g"}, "stages.s.rewriter: nothing named 'g'"),
        ({"decontaminate": ["c"]}, "stages.s.decontaminate: no benchmark 'c'"),
        ({"judge": "n"}, "stages.s.judge: nothing named 'n'"),
        ({"judge": "my_own:judge"}, "stages.s.judge: .*'my_own:judge'; a function of your own is judge_function"),
        ({"judge": "m", "judge_function": "my_own:judge"}, "stages.s has both judge, a model, and judge_function"),
        ({"kind": "cold_start", "judge": "m"}, "stages.s.judge: cold_start takes no such input"),
    ):
        with pytest.raises(RecipeError, match=message):
            config.read_recipe(recipe(**changed))


def test_a_judge_is_a_model_and_a_function_is_none():
    read = config.read_recipe(recipe(judge="m", judging={"prompts": "plain", "reference_judgements": 3}))
    assert read.stages[0].inputs["judge"] == "m" and read.stages[0].settings.judging.reference_judgements == 3
    assert config.read_recipe(config.to_document(read)) == read
    read = config.read_recipe(recipe(judge="", judge_function="my_own:judge"))
    assert "judge" not in read.stages[0].inputs, "recipes of before had an empty setting of that name"
    assert read.stages[0].settings.judge_function == "my_own:judge"


def test_a_judges_prompts_lie_by_the_recipe(tmp_path):
    """A relative folder starts at the recipe's; what stands in it is held against what a run was begun with."""
    for folder in ("m", "mine"):
        (tmp_path / folder).mkdir()
    for file in ("d", "g", "b", "mine/reference.txt"):
        (tmp_path / file).write_text("{question} {reference} {answer}")
    mine = config.read_recipe(recipe(judge="m", judging={"prompts": "mine"}))
    resolved = workdir.resolve_paths(mine, str(tmp_path))
    assert resolved.stages[0].settings.judging.prompts == str(tmp_path / "mine")
    check_settings("s", resolved.stages[0].settings)
    begun = epath.Path(tmp_path) / "begun"
    begun.mkdir()
    workdir.begin(begun, resolved)
    (begun / "stages").mkdir()
    (begun / "stages" / "file").write_text("made")
    workdir.begin(begun, resolved)
    (tmp_path / "mine/reference.txt").write_text("{question} {reference} {answer}?")
    with pytest.raises(workdir.WorkdirError, match="the files of stages.s.judging.prompts changed"):
        workdir.begin(begun, resolved)
    (tmp_path / "mine/reference.txt").rename(tmp_path / "mine/pair.txt")
    with pytest.raises(RecipeError, match="pair.txt must contain {a}"):
        check_settings("s", resolved.stages[0].settings)
    (tmp_path / "mine/pair.txt").write_text("{question} {a} {b}")
    with pytest.raises(RecipeError, match="judging.prompts: .*mine has no reference.txt"):
        check_settings("s", resolved.stages[0].settings)
    plain = config.read_recipe(recipe(judging={"prompts": "plain"}))
    assert workdir.resolve_paths(plain, str(tmp_path)).stages[0].settings.judging.prompts == "plain"
    with pytest.raises(RecipeError, match="stages.s.judging.prompts: 'plan' is no folder .*did you mean 'plain'"):
        workdir.resolve_paths(config.read_recipe(recipe(judging={"prompts": "plan"})), str(tmp_path))
