"""comparisons.json, from the samples of evaluations on disk."""

import json

import pytest
from etils import epath

from r1jax import config
from r1jax.pipeline.benchmarks import write_evaluation
from r1jax.pipeline.records import evaluation_folder
from r1jax.pipeline.runner.comparing import write_comparisons


def recipe(*comparisons):
    stage = {"kind": "grpo", "model": "base", "data": "d"}
    return config.read_recipe(
        {
            "name": "r",
            "models": {"base": {"path": "m"}},
            "data": {"d": {"path": "d"}},
            "benchmarks": {"test": {"path": "t"}, "zero_test": {"path": "t"}},
            "stages": [
                {"name": "zero", **stage, "benchmarks": ["zero_test"]},
                {"name": "dev", **stage, "benchmarks": ["test", "zero_test"]},
            ],
            "comparisons": list(comparisons),
        }
    )


def leave(workdir, stage, benchmark, when, rights):
    samples = [
        {
            "id": i,
            "problem": str(i),
            "right": right,
            "tokens": 3,
            "finish_reason": "stop",
            "completion": "",
            "parts": {},
        }
        for i, right in enumerate(rights)
    ]
    write_evaluation(evaluation_folder(workdir, stage, benchmark, when), {"pass@1": 0.0}, samples)


def test_the_recipes_comparisons_then_each_stages_change(tmp_path):
    workdir = epath.Path(tmp_path)
    across = {"what": "RL", "of": "dev", "against": "zero", "benchmark": "test", "against_benchmark": "zero_test"}
    waiting = {"what": "waits", "of": "dev", "against": "zero:before", "benchmark": "zero_test"}
    leave(workdir, "zero", "zero_test", "after", [True, False, False, False])
    leave(workdir, "dev", "test", "before", [False, False, False, False])
    leave(workdir, "dev", "test", "after", [True, True, True, False])
    found = write_comparisons(recipe(across, waiting), workdir)
    assert json.loads((tmp_path / "comparisons.json").read_text()) == found
    assert [(c["what"], c["of"], c["against"], c["benchmark"], c["against_benchmark"]) for c in found] == [
        ("RL", "dev", "zero", "test", "zero_test"),
        ("", "dev", "dev:before", "test", "test"),
    ]
    assert [c["figures"]["pass@1"]["difference"] for c in found] == [0.5, 0.75]
    (workdir / "stages/dev/evaluations/test-before/samples.jsonl").unlink()  # what stands is not computed again
    assert write_comparisons(recipe(across | {"what": "renamed"}), workdir) == [found[0] | {"what": "renamed"}, found[1]]
    leave(workdir, "dev", "test", "before", [False, False, False, False])
    (tmp_path / "comparisons.json").write_text("{broken")
    assert write_comparisons(recipe(across), workdir) == found
    (workdir / "stages/zero/evaluations/zero_test-after/commit.json").unlink()  # what has no record did not happen
    assert [c["what"] for c in write_comparisons(recipe(across), workdir)] == [""]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"of": "deev"}, r"comparisons\[0\].of: no stage 'deev'; did you mean 'dev'"),
        ({"against": "zero:before", "benchmark": "test"}, "'zero' is not measured on benchmark 'test'"),
        ({"against_benchmark": "zero_tests"}, "'zero' is not measured on benchmark 'zero_tests', only on zero_test"),
        ({"whom": "x"}, "whom"),
    ],
)
def test_what_is_not_measured_is_refused(change, told):
    with pytest.raises(config.RecipeError, match=told):
        recipe({"what": "w", "of": "dev", "against": "zero", "benchmark": "zero_test"} | change)
