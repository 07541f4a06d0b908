"""The report: of whole, half-finished and empty runs; of hostile text; small however long the run."""

import html.parser
import json
import os
import re
import resource
import subprocess
import sys
import time

import pytest

from r1jax.reporting import NoRun, results_table, write_report
from r1jax.reporting.collect import collect, columns
from r1jax.reporting.plots import sections
from r1jax.reporting.traces import MOST_POINTS, thin


class Page(html.parser.HTMLParser):
    """What a browser would see: elements, the text outside scripts, and the figures' data."""

    def __init__(self, path):
        super().__init__()
        self.tags, self.words, self.scripts, self.attributes = [], [], [], []
        with open(path, encoding="utf-8") as file:
            self.source = file.read()
        self.feed(self.source)
        self.text = "".join(self.words)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attributes]

    def handle_data(self, data):
        if self.lasttag == "script":
            self.scripts.append(data)
        elif self.lasttag != "style":
            self.words.append(data)

    def handle_endtag(self, tag):
        self.lasttag = ""

    @property
    def figures(self):
        return json.loads(self.scripts[1])

    @property
    def samples(self):
        return json.loads(self.scripts[2])


def titles(run):
    return [figure["title"] for stage in run.stages for _, _, figures in sections(stage) for figure in figures]


def test_a_whole_run(make_run):
    workdir = make_run(100)
    page = Page(write_report(workdir))
    assert os.path.getsize(f"{workdir}/report.html") < 10e6
    assert "tiny r1-zero" in page.text and "Complete." in page.text
    assert "14.0% [11.0, 17.0]" in page.text and "91.0% [88.0, 94.0]" in page.text and "+77.0 pts" in page.text
    assert len(page.figures) == page.tags.count("figure") == len(titles(collect(workdir)))
    for title in (
        "Accuracy on held_out",
        "Response length",
        "Reflection",
        "When it says “wait”",
        "Reward",
        "KL divergence",
        "Entropy",
        "Probability ratio",
        "Clipped and masked tokens",
        "Language consistency",
        "Sampler against trainer",
        "Time by phase",
        "Programs compiled",
        "My own metric",
    ):
        assert title in page.text, title
    assert "Zero in every update: clamped." in page.text
    assert [bytes(v, "utf-8") for _, n, v in page.attributes if n == "aria-label" and v.startswith("Entropy")]
    (viewer,) = page.samples
    assert (viewer["compared"], len(viewer["benchmarks"]), len(viewer["rollouts"])) == ("held_out", 6, 3)
    accuracy = page.figures[0]["data"]
    line = next(trace for trace in accuracy if trace.get("name") == "pass@1")
    assert line["x"] == list(range(0, 101, 10)) and line["y"][0] == 0.14 and line["y"][-1] == 0.91
    assert [t["y"][0] for t in accuracy[:2]] == [0.11, 0.17]  # the band: the interval's two ends


def test_nothing_is_fetched_and_only_the_own_scripts_may_run(make_run):
    page = Page(write_report(make_run(3)))
    outside = [v for _, n, v in page.attributes if n in ("src", "href", "action", "data") and not v.startswith("#")]
    assert outside == ["data:,"]  # an empty icon, so that none is asked for
    policy = next(v for t, n, v in page.attributes if t == "meta" and n == "content" and "default-src" in v)
    assert "default-src 'none'" in policy and len(re.findall("'sha256-", policy)) == 4
    assert "unsafe-inline" not in policy.partition("script-src")[2].partition(";")[0]


HOSTILE = (
    "<script>alert(1)</script></pre></script><img src=x onerror=alert(2)> {{ 7*7 }} {% raw %} &amp; \u2028 </think>"
    "<answer>\"'><svg onload=alert(3)></answer>\x00\ud800"
)


def test_text_of_a_model_is_text(make_run):
    plain = Page(write_report(make_run(4, completion="fine")))
    page = Page(write_report(make_run(4, completion=HOSTILE)))
    assert page.tags == plain.tags  # not one element more
    data = page.scripts[2]
    assert not {"<", "\u2028", "\u2029"} & set(data)  # nothing that could end the element, or a line of JavaScript
    shown = page.samples[0]["benchmarks"][0]["samples"][0]["text"]
    assert shown == HOSTILE.replace("\ud800", "?")


def test_hostile_names_are_text_too(make_run, tmp_path):
    workdir = make_run(4)
    figures = f"{workdir}/stages/r1_zero/evaluations/held_out-before/figures.json"
    value = json.load(open(figures)) | {"benchmark": "</script><b>x"}
    json.dump(value, open(figures, "w"))
    json.dump(
        [{"title": "<i>note", "text": "</section>", "columns": ["<b>"], "rows": [["<script>"], "not a row"]}],
        open(f"{workdir}/notes.json", "w"),
    )
    page = Page(write_report(workdir))
    plain = Page(write_report(make_run(4)))
    assert page.tags.count("i") == plain.tags.count("i") and page.tags.count("script") == plain.tags.count("script")
    assert "Accuracy on </script><b>x" in page.text and "<i>note" in page.text
    assert "<b>x" not in json.dumps(page.figures)  # escaped for plotly, which reads HTML


def test_a_run_that_is_going_on(make_run):
    workdir = make_run(37, evaluations=4, complete=False)
    # a wave, an update and an evaluation without a record did not happen
    for name in ("updates/000037", "waves/00037-00", "evaluations/held_out-000038"):
        os.makedirs(f"{workdir}/stages/r1_zero/{name}")
    json.dump({"step": 37, "loss": 1e9}, open(f"{workdir}/stages/r1_zero/updates/000037/metrics.json", "w"))
    page = Page(write_report(workdir))
    assert "Not finished." in page.text and "begun · 37 of 100 steps" in page.text
    assert max(collect(workdir).stages[0].updates["loss"]) < 1
    assert "Before and after each stage" in page.text  # from the evaluations so far


def test_a_run_that_failed_says_where_why_and_what_next(make_run):
    workdir = make_run(1, evaluations=1, complete=False)
    with open(f"{workdir}/timing/status.json", "w") as file:
        json.dump({"state": "failed", "reason": "RuntimeError: <b>81% of rollout 2", "process": 1}, file)
    page = Page(write_report(workdir))
    assert (
        "Stopped by an error in r1_zero; once its cause is mended, the same command goes on; verdicts that stand are kept."
        in page.text
    )
    assert "RuntimeError: <b>81% of rollout 2" in page.text and "failed · 1 of 100 steps" in page.text
    # One step: no axis shows a half one, or one before the first; and no column is empty.
    curves = [f["layout"]["xaxis"] for f in page.figures if f["layout"]["xaxis"]["title"]["text"] == "step"]
    assert curves and all(axis["dtick"] == 1 for axis in curves)
    assert any(axis.get("range") == [-0.9, 0.9] for axis in curves)
    assert "beforeafter" not in "".join(page.words).replace("\n", "").replace(" ", "")


def test_few_times_are_bars_and_many_are_areas(make_run):
    def phases(steps):
        figures = [f for stage in collect(make_run(steps)).stages for _, _, fs in sections(stage) for f in fs]
        return {trace["type"] for f in figures if f["key"] == "phases" for trace in f["data"]}

    assert phases(3) == {"bar"} and phases(40) == {"scatter"}


def test_a_run_that_has_only_begun(make_run):
    workdir = make_run(0, evaluations=0, complete=False)
    page = Page(write_report(workdir))
    assert "Nothing has happened yet" in page.text and page.figures == []
    assert results_table(workdir)[1] == []
    assert open(f"{workdir}/metrics.jsonl").read() == ""


def tree(workdir):
    return {os.path.join(f, n): os.path.getmtime(os.path.join(f, n)) for f, _, names in os.walk(workdir) for n in names}


def test_a_report_elsewhere_leaves_the_work_directory_as_it_is(make_run, tmp_path):
    workdir = make_run(120)
    before = tree(workdir)
    assert write_report(workdir, tmp_path / "elsewhere.html") == str(tmp_path / "elsewhere.html")
    assert tree(workdir) == before and "tiny r1-zero" in Page(tmp_path / "elsewhere.html").text


def test_a_full_disk_leaves_the_old_report_and_no_rest(make_run, monkeypatch, capsys):
    from r1jax import cli

    workdir = make_run(3)
    write_report(workdir)
    before, names = open(f"{workdir}/report.html").read(), sorted(os.listdir(workdir))

    def full(source, target):
        raise OSError(28, "No space left on device", target)

    monkeypatch.setattr(os, "replace", full)
    assert cli.main(["report", workdir]) == 1
    assert capsys.readouterr().err.count("\n") == 1
    assert open(f"{workdir}/report.html").read() == before and sorted(os.listdir(workdir)) == names


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(NoRun, match="holds no run"):
        write_report(tmp_path)
    with pytest.raises(NoRun, match="is no folder"):
        write_report(tmp_path / "missing")


def test_a_damaged_file_costs_itself_only(make_run):
    workdir = make_run(5)
    with open(f"{workdir}/stages/r1_zero/updates/000003/metrics.json", "wb") as file:
        file.write(b'{"step": 3, "lo')
    with open(f"{workdir}/stages/r1_zero/waves/00000-00/rollouts.jsonl", "wb") as file:
        file.write(b"\xff\xfe not json\n[1]\n")
    os.remove(f"{workdir}/stages/r1_zero/updates/000004/metrics.json")
    page = Page(write_report(workdir))
    assert "2 files of this run could not be read" in page.text and "updates/000003/metrics.json" in page.text
    assert collect(workdir).stages[0].updates["step"] == [0, 1, 2]


def test_values_that_are_no_numbers_are_gaps(make_run):
    workdir = make_run(5)
    path = f"{workdir}/stages/r1_zero/updates/000002/metrics.json"
    with open(path, "w") as file:
        file.write('{"step": 2, "kl_ref": NaN, "entropy": Infinity, "loss": null}')
    page = Page(write_report(workdir))  # JSON with NaN in it would not be read by a browser
    kl = next(t for figure in page.figures for t in figure["data"] if t.get("name") == "from the reference")
    assert kl["y"][2] is None and kl["y"][1] == 0.002


def test_metrics_jsonl_holds_every_update_of_every_stage(make_run):
    workdir = make_run(7, stages=("zero", "reasoning"))
    write_report(workdir)
    rows = [json.loads(line) for line in open(f"{workdir}/metrics.jsonl")]
    assert [(r["stage"], r["step"]) for r in rows] == [(s, i) for s in ("zero", "reasoning") for i in range(7)]
    assert rows[0]["lr"] == 5e-4


def test_stages_stand_in_the_recipes_order(make_run):
    workdir = make_run(2, stages=("zebra", "aardvark"))
    assert [stage.name for stage in collect(workdir).stages] == ["zebra", "aardvark"]
    table = results_table(workdir)
    assert table[0] == ["stage", "benchmark", "figure", "before", "after"]
    assert [row[0] for row in table[1] if row[0]] == ["zebra", "aardvark"]


def test_waves_stand_in_the_order_of_their_numbers(make_run):
    workdir = make_run(2)
    waves = f"{workdir}/stages/r1_zero/waves"
    for number in (9, 10, 99, 100):
        os.makedirs(f"{waves}/00000-{number:02d}")
        open(f"{waves}/00000-{number:02d}/commit.json", "w").close()
    names = [os.path.basename(wave) for wave in collect(workdir).stages[0].waves]
    assert [n for n in names if n.startswith("00000")] == [f"00000-{i}" for i in ("00", "09", "10", "99", "100")]


def test_curves_say_which_sequences_they_cover(make_run):
    shown = {
        figure["title"]: note
        for stage in collect(make_run(3)).stages
        for _, note, some in sections(stage)
        for figure in some
    }
    for title in ("KL divergence", "Entropy", "Probability ratio", "Clipped and masked tokens", "Sampler against trainer"):
        assert "those of advantage 0" in shown[title]
    assert not shown["Reward"] and not shown["Gradient norm"]


def test_legends_tell_where_each_curve_ended_as_its_axis_writes_it(make_run):
    stage = collect(make_run(100)).stages[0]
    legends = {f["title"]: {e["name"]: e["last"] for e in f["legend"]} for _, _, some in sections(stage) for f in some}
    assert legends["Accuracy on held_out"] == {"pass@1": "91.0%", "majority of 4": "96.0%"}
    assert legends["Clipped and masked tokens"] == {"lower bound": "0.10%", "upper bound": "0.20%"}
    assert legends["Sampler against trainer"]["mean"] == "3.0e-07"
    assert legends["Learning rate"] == {"learning rate": "0.0005"} and legends["Longest response"] == {"longest": "64"}


def test_columns_of_ragged_rows():
    assert columns([{"a": 1}, {"a": 2, "b": 3}, {"b": 4}]) == {"a": [1, 2, None], "b": [None, 3, 4]}


def test_long_curves_are_thinned_with_their_range():
    y = [float(i % 10) for i in range(10_000)]
    x, mean, least, most = thin(range(10_000), y)
    assert len(x) <= MOST_POINTS and max(most) == 9 and min(least) == 0
    assert sum(mean) / len(mean) == pytest.approx(4.5, abs=0.01)
    y[5000] = 1e6  # a spike of one step is still seen
    assert max(thin(range(10_000), y)[3]) == 1e6
    assert thin([1, 2], [3.0, float("nan")]) == ([1, 2], [3.0, None], None, None)


def test_the_figures_are_valid_to_plotly(make_run):
    import plotly.graph_objects as go

    for figure in Page(write_report(make_run(70))).figures:
        text = re.sub(r"role:\d(-\w+)?", "#123456", json.dumps(figure))
        go.Figure(json.loads(text))  # raises on an unknown key or a value out of its range


def test_many_long_stages_share_the_page(make_run, monkeypatch):
    workdir = make_run(300, stages=("a", "b", "c"))
    write_report(workdir)
    whole = Page(f"{workdir}/report.html")
    monkeypatch.setattr("r1jax.reporting.report.FIGURES_BUDGET", len(whole.scripts[1]) // 3)
    page = Page(write_report(workdir))
    assert page.tags.count("figure") == whole.tags.count("figure")  # coarser, none left out
    assert len(page.scripts[1]) < 0.6 * len(whole.scripts[1])
    ends = [{trace["name"]: trace["x"][0] for trace in p.figures[0]["data"] if "name" in trace} for p in (page, whole)]
    assert ends[0] == ends[1]


@pytest.mark.slow
def test_ten_thousand_steps_and_no_jax(make_run):
    """Under 10 MB and five seconds of a processor, the first time (nothing is remembered) and later."""
    workdir = make_run(10_000, planned=10_000, evaluations=101, views=300)
    code = "import sys, r1jax.reporting as r; r.write_report(sys.argv[1]); assert 'jax' not in sys.modules and 'r1jax.config' not in sys.modules"
    for _ in range(2):
        start, used = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-c", code, workdir], check=True)
        spent = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds = spent.ru_utime + spent.ru_stime - used.ru_utime - used.ru_stime
        size = os.path.getsize(f"{workdir}/report.html")
        print(
            f"\nreport of 10,000 steps: {time.perf_counter() - start:.2f} s, {seconds:.2f} s of a processor, {size / 1e6:.2f} MB"
        )
        assert size < 10e6 and seconds < 5


def test_what_results_json_does_not_know_yet_comes_from_the_evaluations(make_run):
    workdir = make_run(40, evaluations=5, complete=False)
    known = [{"name": "r1_zero", "kind": "grpo", "before": {"held_out": {"pass@1": 0.125}}, "after": {}, "seconds": 7.0}]
    json.dump(known, open(f"{workdir}/results.json", "w"))
    (result,) = collect(workdir).results
    assert result["before"]["held_out"]["pass@1"] == 0.125 and result["seconds"] == 7.0
    assert result["after"]["held_out"]["pass@1"] == pytest.approx(0.14 + 0.77 * 0.4)


def test_monitors_of_hacking(make_run):
    workdir = make_run(12)
    folder = next(entry.path for entry in os.scandir(f"{workdir}/stages"))
    for step in range(12):
        path = f"{folder}/updates/{step:06d}/metrics.json"
        with open(path, encoding="utf-8") as file:
            metrics = json.load(file)
        metrics |= {"model_reward_helpfulness": 0.1 * step, "model_reward_helpfulness_length": 0.9, "scored_length": 20.0}
        metrics |= {"scored_format": 1.0, "hacking_alarms": float(step > 9)}
        with open(path, "w", encoding="utf-8") as file:
            json.dump(metrics, file)
    with open(f"{folder}/alarms.json", "w", encoding="utf-8") as file:
        json.dump({"10": ["the reward rises <b>while</b> accuracy fell"], "11": ["more", "than one"]}, file)
    with open(write_report(workdir), encoding="utf-8") as file:
        page = file.read()
    assert "Reward hacking" in page and "Rewards by models" in page and "Reward against length" in page
    assert "2 rollouts to distrust; the newest, 11: more; than one" in page
    assert "rises &lt;b&gt;while" in page and "<b>while" not in page
