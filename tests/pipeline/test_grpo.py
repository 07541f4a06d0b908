"""The GRPO stage, run as people run it: a recipe, the tiny base, a work directory."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
import yaml

from r1jax import config
from r1jax.pipeline.grpo import GRPOStage
from r1jax.pipeline.grpo.checks import check_settings, length_cap
from r1jax.pipeline.updates import record_update

TINY = Path(__file__).parents[2] / "configs" / "tiny"
SMALL = {
    "steps": 6,
    "prompts_per_rollout": 4,
    "samples_per_prompt": 4,
    "prompts_per_wave": 2,
    "minibatches": 2,
    "max_tokens": 24,
    "max_prompt_tokens": 32,
    "row_tokens": 64,
    "rows_per_microbatch": 4,
    "checkpoint_every": 4,
    "reference_every": 4,
    "optimizer": {"lr": 1e-3},
    "sampler": {"rows": 4, "lanes": 4, "chunk": 8, "prompt_bucket": 32, "completion_bucket": 32},
    "workers": {"count": 1},
}


def settings(**changed):
    return config.read_dataclass(config.GRPOSettings, {**SMALL, **changed}, "stage")


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"samples_per_prompt": 1}, "at least 2"),
        ({"minibatches": 3}, "do not divide"),
        ({"temperature": 0}, "temperature must be positive"),
        ({"rewards": {"accuracy": 0}}, "at least one part"),
        ({"max_tokens_at": {5: 0}}, "positive caps"),
        ({"steps": 0}, "steps must be at least 1"),
        ({"aggregation": "tokn_mean"}, "did you mean 'token_mean'"),
        ({"advantages": {"normalize": "sdt"}}, "did you mean 'std'"),
        ({"remat": "nothin"}, "did you mean 'nothing'"),
        ({"rewards": {"acuracy": 1}}, "did you mean 'accuracy'"),
        ({"rewards_by_type": {"general": {"acuracy": 1}}}, "did you mean 'accuracy'"),
        ({"rewards_by_type": {"general": {"format": 0}}}, "rewards_by_type.general must give a weight to at least one part"),
        ({"rewards_by_type": {"a": {"format": 1}}, "advantages": {"normalize": "gdpo"}}, "use rewards, not rewards_by_type"),
        ({"reward_settings": {"overlong_cache": 25}}, "a cache up to the cap, not 24 and 25"),
        ({"reward_settings": {"repetition_ngram": 0}}, "at least 1 token"),
        ({"loss": {"kl": "k9"}}, "k9"),
        ({"optimizer": {"schedule": "cosin"}}, "cosin"),
        ({"compute_dtype": "bf16"}, "bf16"),
        ({"sampler": {"completion_bucket": 0}}, "completion_bucket must be at least 1"),
        ({"sampler": {"chunk": 0}}, "chunk must be at least 1"),
        ({"workers": {"timeout": 0}}, "timeout must be positive"),
        ({"dynamic_sampling": -1}, "can't be negative"),
        ({"prompts_per_wave": 3}, "do not divide into waves of 3"),
        ({"prompts_per_wave": 8}, "do not divide into waves of 8"),
        ({"prompts_per_wave": -2}, "can't be negative"),
        ({"rewards": {"accuracy": 1, "format": float("nan")}}, "rewards.format must be finite"),
        ({"general_share": 1.0}, "general_share must lie from 0 to below 1"),
        ({"hacking": {"window": 1}}, "hacking.window must be at least 2"),
        ({"hacking": {"length_factor": 0}}, "hacking.length_factor must be over 1"),
        ({"hacking": {"accuracy_drop": -1}}, "hacking.accuracy_drop must be at least 0"),
        ({"judging": {"pair_judgements": 3}}, "judging.pair_judgements must be even"),
    ],
)
def test_what_cannot_be_trained_is_refused(wrong, message):
    with pytest.raises(config.RecipeError, match=message):
        check_settings("zero", settings(**wrong))


def test_prompts_of_which_none_fits_are_refused_before_anything_is_computed():
    stage = GRPOStage("zero", settings(max_prompt_tokens=2))
    inputs = {"model": str(TINY / "base"), "data": config.DataSource(str(TINY / "world/search-train.jsonl"))}
    with pytest.raises(ValueError, match="search-train.jsonl fits max_prompt_tokens 2; raise it"):
        stage.check(inputs)
    GRPOStage("zero", settings()).check(inputs)


def rows(path, **fields):
    path.write_text(json.dumps({"problem": "Which?", "template": "none", **fields}) + "\n")
    return config.DataSource(str(path), grader="none")


def test_rows_whose_reward_cannot_be_given_are_refused_before_anything_is_computed(tmp_path):
    general = rows(tmp_path / "general.jsonl", type="general")
    with pytest.raises(ValueError, match="row 0 has no right answer .grader none., but its reward counts accuracy"):
        GRPOStage("zero", settings()).check({"general": general})
    by_type = {"reasoning": {"accuracy": 1}, "general": {"judge": 1, "format": 1}}
    with pytest.raises(ValueError, match="row 0 has no reference or answer, which a judge compares with"):
        GRPOStage("zero", settings(rewards_by_type=by_type)).check({"general": general})
    GRPOStage("zero", settings(rewards_by_type=by_type)).check(
        {"general": rows(tmp_path / "with.jsonl", type="general", reference="That.")}
    )
    with pytest.raises(ValueError, match="no reward weights for prompts of type 'generl'; did you mean 'general'"):
        GRPOStage("zero", settings(rewards_by_type=by_type)).check({"general": rows(tmp_path / "t.jsonl", type="generl")})


def test_a_judge_needs_the_prompts_of_its_reward(tmp_path):
    (tmp_path / "reference.txt").write_text("{question} {reference} {answer}")
    judging = {"judging": {"prompts": str(tmp_path)}}
    check_settings("zero", settings(rewards={"accuracy": 1, "judge": 1}, **judging))
    with pytest.raises(config.RecipeError, match="has no pair.txt, which reward 'judge_preference' needs"):
        check_settings("zero", settings(rewards={"accuracy": 1, "judge_preference": 1}, **judging))


def test_the_cap_rises_at_its_step():
    raised = settings(max_tokens=8, max_tokens_at={4: 16, 8: 24})
    assert [length_cap(raised, step) for step in (0, 3, 4, 7, 8, 100)] == [8, 8, 16, 16, 24, 24]


@pytest.mark.parametrize("name, value", [("loss", float("nan")), ("grad_norm", float("inf"))])
def test_what_is_not_finite_ends_the_run_and_leaves_no_record(tmp_path, name, value):
    from etils import epath

    metrics = {"step": 3, "loss": 0.5, "grad_norm": 1.0, "skipped": 0.0}
    with pytest.raises(FloatingPointError, match=f"update 3: {name} not finite; the last checkpoint is unharmed"):
        record_update(epath.Path(tmp_path), {**metrics, name: value})
    assert not (tmp_path / "updates").exists()
    record_update(epath.Path(tmp_path), metrics)
    record_update(epath.Path(tmp_path), {**metrics, "loss": 0.75})  # happened already
    assert json.loads((tmp_path / "updates/000003/metrics.json").read_text()) == metrics


# ---------------------------------------------------------------------------------------------- whole runs
def recipe(folder, **changed):
    document = {
        "name": "small",
        "models": {"base": {"path": str(TINY / "base")}},
        "data": {"train": {"path": str(TINY / "world" / "search-train.jsonl"), "limit": 12}},
        "stages": [{"name": "zero", "kind": "grpo", "model": "base", "data": "train", **SMALL, **changed}],
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


# The runs below are one program many times over: what the first has compiled the others read.
CACHE = {"JAX_COMPILATION_CACHE_DIR": tempfile.mkdtemp(), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}


# A process that signals itself once a file of the stage is there: the only way to meet a certain moment each time.
SIGNALLED = """
import os, signal, sys
from r1jax import cli
from r1jax.pipeline import records

commit = records.commit
def commit_and_signal(folder, *rest, **more):
    commit(folder, *rest, **more)
    if f"{folder}/commit.json".endswith(os.environ["STOP_AFTER"]):
        os.kill(os.getpid(), signal.SIGTERM)
records.commit = commit_and_signal
sys.exit(cli.main(sys.argv[1:]))
"""


def start(path, workdir, **more):
    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"} | CACHE | more
    program = ["-c", SIGNALLED] if "STOP_AFTER" in more else ["-m", "r1jax.cli"]
    command = [sys.executable, *program, "run", str(path), "--workdir", str(workdir)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finish(path, workdir):
    process = start(path, workdir)
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 0, output
    return output


def updates(workdir):
    folders = sorted((workdir / "stages" / "zero" / "updates").iterdir())
    return [json.loads((f / "metrics.json").read_text()) for f in folders]


def files(workdir, kind):
    """Relative path -> content, of all that a stage has recorded of one kind."""
    folder = workdir / "stages" / "zero" / kind
    return {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()}


def timings(workdir):
    return [json.loads(f.read_text()) for f in sorted((workdir / "timing" / "zero").glob("*.json"))]


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory):
    """A run that nothing interrupted, with a reference, two waves and two minibatches a rollout and a cap that rises."""
    folder = tmp_path_factory.mktemp("whole")
    path = recipe(folder, max_tokens_at={4: 32})
    finish(path, folder / "run")
    return path, folder / "run"


@pytest.mark.slow
def test_the_first_ratio_after_a_rollout_is_exactly_one(whole_run):
    metrics = updates(whole_run[1])
    assert [m["step"] for m in metrics] == list(range(6)) and [m["rollout"] for m in metrics] == [0, 0, 1, 1, 2, 2]
    for first in metrics[::2]:
        assert first["ratio_max"] == 1.0 and first["clip_low"] == first["clip_high"] == first["kl_old"] == 0.0
    assert any(later["ratio_max"] != 1.0 for later in metrics[1::2])


@pytest.mark.slow
def test_kl_starts_at_zero_and_again_when_the_reference_is_refreshed(whole_run):
    kl = [m["kl_ref"] for m in updates(whole_run[1])]
    assert kl[0] == 0.0 and all(k > 0 for k in kl[1:4])
    assert kl[4] == 0.0, "reference_every 4: refreshed before the rollout that begins at step 4"


@pytest.mark.slow
def test_the_sampler_agrees_with_the_trainer(whole_run):
    metrics = updates(whole_run[1])
    assert all(m["sampler_trainer_mean"] < 1e-5 for m in metrics)


@pytest.mark.slow
def test_nothing_compiles_after_warm_up_but_for_the_raised_cap(whole_run):
    assert [t["compiles"] for t in timings(whole_run[1])] == [0, 0, 0]


@pytest.mark.slow
def test_a_killed_run_ends_with_the_same_model_and_metrics(whole_run, tmp_path):
    path, whole = whole_run
    kills, written = 0, []
    first_wave = tmp_path / "run/stages/zero/waves/00000-00/commit.json"
    for delay_after in ("waves/00000-00/commit.json", "updates/000003/commit.json", "checkpoints/000004/commit.json"):
        process = start(path, tmp_path / "run")
        awaited = tmp_path / "run" / "stages" / "zero" / delay_after
        while process.poll() is None and not awaited.exists():
            time.sleep(0.01)
        if process.poll() is None:
            kills += 1
            process.send_signal(signal.SIGKILL)
        process.communicate()
        written.append(first_wave.stat().st_mtime_ns)
    assert kills >= 2, "the run was over before it could be killed"
    finish(path, tmp_path / "run")
    assert {first_wave.stat().st_mtime_ns} == set(written), "a finished wave is never sampled again"
    assert files(tmp_path / "run", "waves") == files(whole, "waves")
    assert updates(tmp_path / "run") == updates(whole)
    model = Path("stages/zero/model/model.safetensors")
    assert (tmp_path / "run" / model).read_bytes() == (whole / model).read_bytes()


@pytest.mark.slow
def test_a_signal_saves_the_state_and_exits_with_75(whole_run, tmp_path):
    path, whole = whole_run
    process = start(path, tmp_path / "run")
    while process.poll() is None and not (tmp_path / "run/stages/zero/updates/000001/commit.json").exists():
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 75, output
    assert "same command" in output and "Traceback" not in output
    finish(path, tmp_path / "run")
    assert updates(tmp_path / "run") == updates(whole)


@pytest.mark.slow
@pytest.mark.parametrize("harm", ["truncated", "missing", "record"])
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(whole_run, tmp_path, harm):
    """The run ends with checkpoints of steps 4 and 6; without its end, and with the last one damaged, it goes on from 4."""
    path, whole = whole_run
    workdir = tmp_path / "run"
    shutil.copytree(whole, workdir)
    stage = workdir / "stages" / "zero"
    (stage / "commit.json").unlink()
    shutil.rmtree(stage / "model")
    last = stage / "checkpoints" / "000006"
    saved = files(whole, "checkpoints")
    if harm == "record":
        (last / "commit.json").write_text("{")
    else:
        largest = max((f for f in last.rglob("*") if f.is_file()), key=lambda f: f.stat().st_size)
        largest.unlink() if harm == "missing" else largest.write_bytes(largest.read_bytes()[: 1 << 20])
    output = finish(path, workdir)
    assert "passed over a damaged checkpoint, the steps since 000004 are done again" in output
    assert updates(workdir) == updates(whole) and (stage / "checkpoints/000006/commit.json").exists()
    model = Path("stages/zero/model/model.safetensors")
    assert (workdir / model).read_bytes() == (whole / model).read_bytes()
    manifest = "000006/state/manifest.json"  # sums over every bit of the state
    assert files(workdir, "checkpoints")[manifest] == saved[manifest]
    assert files(workdir, "waves") == files(whole, "waves")


@pytest.mark.slow
def test_without_a_readable_checkpoint_the_run_says_so(whole_run, tmp_path):
    path, whole = whole_run
    workdir = tmp_path / "run"
    shutil.copytree(whole, workdir)
    (workdir / "stages/zero/commit.json").unlink()
    for manifest in (workdir / "stages/zero/checkpoints").glob("*/state/manifest.json"):
        manifest.unlink()
    process = start(path, workdir)
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 2 and "Traceback" not in output, output
    assert "no checkpoint of" in output and "restore one from a copy" in output
    assert len(list((workdir / "stages/zero/checkpoints").iterdir())) == 2, "nothing is thrown away"


@pytest.mark.slow
def test_a_stop_between_two_updates_is_exact(whole_run, tmp_path):
    """The stop is asked for at once after the third update, the first of the second rollout."""
    path, whole = whole_run
    workdir = tmp_path / "run"
    process = start(path, workdir, STOP_AFTER="updates/000002/commit.json")
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 75, output
    assert "stopped between two updates of rollout 1; nothing is sampled again" in output
    assert len(updates(workdir)) == 3 and not files(workdir, "checkpoints")
    waves = files(workdir, "waves")
    finish(path, workdir)
    assert waves.items() <= files(workdir, "waves").items()
    for kind in ("waves", "updates", "model"):
        assert files(workdir, kind) == files(whole, kind)


@pytest.mark.slow
def test_a_stop_once_a_rollout_is_collected_leaves_its_updates_to_the_next_session(whole_run, tmp_path):
    path, whole = whole_run
    workdir = tmp_path / "run"
    process = start(path, workdir, STOP_AFTER="waves/00001-01/commit.json")
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 75, output
    assert len(updates(workdir)) == 2 and (workdir / "stages/zero/checkpoints/000002/commit.json").exists()
    finish(path, workdir)
    for kind in ("waves", "updates", "model"):
        assert files(workdir, kind) == files(whole, kind)


@pytest.mark.slow
def test_dynamic_sampling_trains_on_groups_that_say_something(tmp_path):
    changed = {"dynamic_sampling": 3, "steps": 2, "minibatches": 1}
    path = recipe(tmp_path, loss={"kl": "none", "kl_coefficient": 0}, **changed)
    finish(path, tmp_path / "run")
    metrics = updates(tmp_path / "run")
    waves = sorted(p.name for p in (tmp_path / "run/stages/zero/waves").iterdir())
    assert "00000-02" in waves, "the base answers no four problems with mixed success at once"
    assert [t["compiles"] for t in timings(tmp_path / "run")] == [0, 0], "nor do the smaller waves of replacements"
    assert metrics[0]["zero_advantage_groups"] <= 0.25


@pytest.mark.slow
def test_a_recipe_reaches_the_whole_family(tmp_path):
    """Sequence ratios, a sampler correction, the off-policy mask, the unbiased KL, an entropy bonus, GDPO, overlong filtering,
    and a surrogate of the user's own."""
    (tmp_path / "mine.py").write_text(
        "def push(ratio, tokens, config):\n    return ratio * tokens.advantages, ratio > 1e9\n"
    )
    loss = {"ratio": "sequence", "surrogate": "mine:push", "correction": "mask", "correction_level": "geometric"}
    loss |= {"off_policy_delta": 0.1, "kl": "k3_unbiased", "entropy_coefficient": 1e-3}
    changed = {"loss": loss, "advantages": {"normalize": "gdpo"}, "overlong_filtering": True, "steps": 2}
    path = recipe(tmp_path, **changed)
    process = start(path, tmp_path / "run", PYTHONPATH=str(tmp_path))
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 0, output
    first, second = updates(tmp_path / "run")
    assert (
        first["ratio_mean"] == first["ratio_max"] == 1 and first["kl_ref"] == 0
    )  # from separately computed log-probabilities
    assert abs(first["correction_mean"] - 1) < 1e-4 and first["masked"] == 0 and first["entropy"] > 0
    assert second["ratio_max"] != 1 and second["kl_ref"] > 0
