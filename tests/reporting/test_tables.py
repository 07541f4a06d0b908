"""The tables of a run with several stages: reward parts beside accuracy, the paper's table of stages."""

import json
from types import SimpleNamespace

from r1jax.reporting import compared_table, results_table, stages_by_side, write_report
from r1jax.reporting.tables import compared_rows, comparisons, stage_tables, tiles


def figures(accuracy, **parts):
    return {
        "problems": 100,
        "samples": 4,
        "pass@1": accuracy,
        "pass@1_interval": [accuracy - 0.02, accuracy + 0.02],
        "cons@k": accuracy + 0.05,
        "mean_tokens": 40.0,
        "parts": parts,
        "parts_interval": {name: [value - 0.01, value + 0.01] for name, value in parts.items()},
    }


def stages():
    return [
        {
            "name": "zero",
            "before": {"test": figures(0.17)},
            "after": {"test": figures(0.93, language=0.85), "dev": figures(0.9)},
        },
        {"name": "data", "before": {}, "after": {}},
        {
            "name": "dev1",
            "before": {"test": figures(0.17)},
            "after": {"test": figures(0.6, language=0.99, think_format=0.97)},
        },
    ]


def test_stages_stand_side_by_side():
    (table,) = stage_tables(SimpleNamespace(results=stages(), recipe={}))  # dev was measured on one stage only
    assert table["benchmark"] == "test" and table["columns"] == ["before zero", "zero", "dev1"]
    rows = {label: cells for label, *cells in table["rows"]}
    assert rows["pass@1"] == [("17.0%", " [15.0, 19.0]"), ("93.0%", " [91.0, 95.0]"), ("60.0%", " [58.0, 62.0]")]
    assert rows["language"] == [("–", ""), ("85.0%", " [84.0, 86.0]"), ("99.0%", " [98.0, 100.0]")]
    assert rows["think_format"][0] == rows["think_format"][1] == ("–", "")


def test_another_form_of_a_benchmark_stands_in_its_table():
    first, *others = stages()
    zero = {"name": "zero", **{when: {"zero_test": first[when]["test"]} for when in ("before", "after")}}
    recipe = {"benchmarks": {"test": {}, "zero_test": {"same_as": "test"}, "dev": {"same_as": ""}}}
    (table,) = stage_tables(SimpleNamespace(results=[zero, *others], recipe=recipe))
    assert table["benchmark"] == "test" and table["columns"] == ["before zero", "zero", "dev1"]
    assert [value for value, _ in dict((label, cells) for label, *cells in table["rows"])["pass@1"]] == [
        "17.0%",
        "93.0%",
        "60.0%",
    ]
    both = {"name": "dev2", "before": {}, "after": {"zero_test": figures(0.1), "test": figures(0.2)}}
    (table,) = stage_tables(SimpleNamespace(results=[zero, *others, both], recipe=recipe))
    assert table["rows"][0][-1][0] == "20.0%"


def test_one_stage_needs_no_such_table():
    assert not list(stage_tables(SimpleNamespace(results=stages()[:2], recipe={})))


def test_parts_stand_among_the_figures_before_and_after():
    compared = list(comparisons(SimpleNamespace(results=stages()[:1], compared=())))[0]
    assert compared["columns"] == ["before", "after"]
    (row,) = [row for row in compared["rows"] if row[0] == "language"]
    assert row == ["language", ("–", ""), ("85.0%", " [84.0, 86.0]"), ("", "")]


def test_a_stage_that_is_not_done_has_no_empty_column_and_gives_no_tile():
    begun = {"name": "dev2", "before": {"easy": figures(0.99), "test": figures(0.6)}, "after": {}}
    run = SimpleNamespace(results=[*stages(), begun], compared=())
    assert [c["columns"] for c in comparisons(run)][-1] == ["before", ""]
    assert {tile["hint"] for tile in tiles(run)} == {"test, dev1"} and tiles(run)[0]["before"] == "17.0%"
    alone = tiles(SimpleNamespace(results=[begun]))
    assert alone[0] == {"label": "Accuracy (pass@1)", "before": None, "after": "99.0%", "hint": "easy, dev2"}


def paired(difference, low, high):
    return {"problems": 90, "of": 0.9, "against": 0.9 - difference, "difference": difference, "interval": [low, high]}


def test_the_change_of_a_stage_has_its_paired_interval():
    change = {"what": "", "of": "zero", "against": "zero:before", "benchmark": "test", "against_benchmark": "test"}
    change["figures"] = {"pass@1": paired(0.76, 0.74, 0.785)}
    compared = list(comparisons(SimpleNamespace(results=stages()[:1], compared=(change,))))[0]
    rows = {label: cells for label, *cells in compared["rows"]}
    assert rows["pass@1"][2] == ("+76.0 pts", " [+74.0, +78.5]")
    assert rows["majority"][2] == ("+76.0 pts", "")  # not measured by problem: no interval


def test_the_recipes_comparisons(make_run):
    one = {"what": "students: data against <i>RL</i>", "of": "student", "against": "rl:before", "benchmark": "test"}
    one |= {
        "against_benchmark": "zero_test",
        "figures": {"pass@1": paired(-0.1, -0.125, -0.08), "part language": {"of": None}},
    }
    nothing = one | {"what": "nothing", "against_benchmark": "test", "figures": {}}
    entry, empty = compared_rows(SimpleNamespace(compared=(one, nothing)))
    assert entry["sides"] == ["student on test", "rl:before on zero_test"] and entry["problems"] == 90
    assert entry["rows"] == [["pass@1", "90.0%", "100.0%", ("−10.0 pts", " [−12.5, −8.0]")]]
    assert empty["sides"] == ["student", "rl:before"] and not empty["rows"]
    workdir = make_run(5)
    with open(f"{workdir}/comparisons.json", "w", encoding="utf-8") as file:
        json.dump([one, nothing, "broken", {"what": "broken too"}], file)
    with open(write_report(workdir), encoding="utf-8") as file:
        page = file.read()
    assert "What each stage is for" in page and "&lt;i&gt;RL" in page and "<i>RL" not in page
    assert "−10.0 pts<i> [−12.5, −8.0]</i>" in page and "no problem in common" in page
    columns, rows = compared_table(workdir)
    assert rows == [
        ["students: data against <i>RL</i>: student on test − rl:before on zero_test", "pass@1", "−10.0 pts [−12.5, −8.0]"]
    ]


def test_in_the_report_and_the_terminal(make_run):
    workdir = make_run(5)
    with open(f"{workdir}/results.json", encoding="utf-8") as file:
        first = json.load(file)[0]["name"]
    entries = stages()
    entries[0]["name"] = first
    with open(f"{workdir}/results.json", "w", encoding="utf-8") as file:
        json.dump(entries, file)
    with open(write_report(workdir), encoding="utf-8") as file:
        page = file.read()
    assert "Stage by stage" in page and ">dev1</th>" in page
    ((title, columns, rows),) = stages_by_side(workdir)
    assert title == "Stages on test" and columns == ["figure", f"before {first}", first, "dev1"]
    assert ["language", "–", "85.0%", "99.0%"] in rows


def test_a_stage_of_ones_own_shows_its_figures(tmp_path):
    for name, content in (("recipe.yaml", "name: mine\n"), ("results.json", json.dumps([OWN]))):
        (tmp_path / name).write_text(content)
    assert results_table(tmp_path)[1] == [["mine", "–", "scale", "–", "3"], ["", "–", "made of", "–", "rules"]]


OWN = {"name": "mine", "before": {}, "after": {}, "figures": {"scale": 3.0, "made of": "rules", "more": [1, 2]}}
