"""Work directories of runs that never were, in the layout of ``r1jax/pipeline/records.py``."""

import json
import math
import os
import random

import pytest

WORDS = "wait check 7*3=21 等等 so but 8-7=1 then".split()


def write(path, value):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:
        file.write(value if isinstance(value, str) else json.dumps(value))


def commit(folder):
    write(f"{folder}/commit.json", {"files": {}, "content": {}})


def write_update(stage, step, total, rng):
    done = step / total
    metrics = {
        "step": step,
        "rollout": step,
        "loss": rng.gauss(0, 0.01),
        "reward_mean": 0.3 + 1.5 * done + rng.gauss(0, 0.05),
        "reward_accuracy": 0.14 + 0.77 * done + rng.gauss(0, 0.03),
        "reward_format": min(1, 0.5 + done) + rng.gauss(0, 0.01),
        "reward_language": 0.9 + 0.1 * done,
        "accuracy": min(1, 0.14 + 0.77 * done),
        "response_length_mean": 13 + 22 * done + rng.gauss(0, 0.8),
        "response_length_max": 64,
        "reflection": 0.24 + 0.6 * done,
        "entropy": 1.2 - 0.9 * done + rng.gauss(0, 0.02),
        "kl_ref": 0.2 * done,
        "ratio_mean": 1.0,
        "ratio_max": 1 + abs(rng.gauss(0, 0.1)),
        "clip_low": 0.001,
        "clip_high": 0.002 * done,
        "sampler_trainer_mean": 3e-7,
        "sampler_trainer_max": 2e-6 + 1e-6 * rng.random(),
        "grad_norm": 0.3 + rng.random() * 0.1,
        "lr": 5e-4,
        "truncated": 0.02,
        "ungraded": 0.0,
        "zero_advantage_groups": 0.2 + 0.5 * done,
        "my_own_metric": math.sin(done * 9),
        "clamped": 0.0,
    }
    folder = f"{stage}/updates/{step:06d}"
    write(f"{folder}/metrics.json", metrics)
    commit(folder)


def write_samples(path, prompts, samples, done, rng, completion=None):
    lines = []
    for prompt_id in range(prompts):
        for sample in range(samples):
            right = rng.random() < 0.14 + 0.77 * done
            thinking = " ".join(rng.choice(WORDS) for _ in range(int(4 + 20 * done)))
            text = completion or f"<think>{thinking}</think><answer>{'7*3' if right else '8'}</answer>"
            lines.append(
                {
                    "prompt_id": prompt_id,
                    "sample": sample,
                    "row": {"problem": f"Problem {prompt_id}: reach 21 with 3, 7, 8."},
                    "completion": text,
                    "tokens": len(text.split()),
                    "finish_reason": "stop" if right else "length",
                    "parts": {"accuracy": float(right), "format": 1.0, "language": None},
                    "verdict": "right" if right else "wrong",
                    "reason": "7*3 is 21" if right else "8 has no operator",
                }
            )
    write(path, "".join(json.dumps(line) + "\n" for line in lines))


def write_view(stage, rollout, step, done, rng, texts=None):
    groups = []
    for prompt_id in range(2):
        samples = []
        for sample in range(4):
            right = rng.random() < 0.14 + 0.77 * done
            words = texts or [f"{rng.choice(WORDS)} " for _ in range(int(4 + 20 * done))] + [
                "</think>",
                "<answer>",
                "7*3",
                "</answer>",
            ]
            samples.append(
                {
                    "sample": sample,
                    "tokens": len(words),
                    "finish_reason": "stop",
                    "reward": 1.0 + right,
                    "advantage": 0.9 if right else -0.4,
                    "in_loss": True,
                    "parts": {"accuracy": float(right), "format": 1.0},
                    "verdict": "right" if right else "wrong",
                    "reason": "it reaches 21" if right else "8 has no operator",
                    "texts": words,
                    "logprobs": [round(-rng.random() * 3, 3) for _ in words],
                    "left_out": None,
                }
            )
        prompt = f"Problem {prompt_id}: reach 21 with 3, 7, 8."
        groups.append({"prompt_id": prompt_id, "prompt": prompt, "answer": "21", "group": 4, "samples": samples})
    write(f"{stage}/views/{rollout:05d}.json", {"rollout": rollout, "step": step, "groups": groups})


def write_evaluation(stage, benchmark, step, when, done, rng, completion=None):
    share = 0.14 + 0.77 * done
    folder = f"{stage}/evaluations/{benchmark}-{when or f'{step:06d}'}"
    figures = {
        "benchmark": benchmark,
        **({"when": when} if when else {"step": step}),
        "problems": 512,
        "samples": 4,
        "pass@1": share,
        "pass@1_interval": [share - 0.03, share + 0.03],
        "cons@k": min(1, share + 0.05),
        "cons@k_interval": [min(1, share + 0.05) - 0.03, min(1, share + 0.05) + 0.02],
        "mean_tokens": 12.6 + 22 * done,
        "reflection": 0.24 + 0.64 * done,
        "wait_after_miss": 0.54 + 0.44 * done,
        "wait_after_hit": 0.21 - 0.19 * done,
        "truncated": 0.01,
        "ungraded": 0.0,
    }
    write(f"{folder}/figures.json", figures)
    write_samples(f"{folder}/samples.jsonl", 6, 4, done, rng, completion)
    commit(folder)
    return figures


@pytest.fixture
def make_run(tmp_path):
    """``make_run(steps, planned=100, evaluations=11, complete=True, completion=None, stages=("r1_zero",), views=0) -> path``."""

    def make(steps, planned=100, evaluations=11, complete=True, completion=None, stages=("r1_zero",), views=0):
        rng = random.Random(0)
        workdir = str(tmp_path / "work")
        keys = [
            {"name": name, "kind": "grpo", "model": "base", "steps": planned, "optimizer": {"lr": 5e-4}} for name in stages
        ]
        write(f"{workdir}/recipe.yaml", json.dumps({"name": "tiny r1-zero", "stages": keys}))  # JSON is YAML
        results = []
        for name in stages:
            stage = f"{workdir}/stages/{name}"
            for step in range(steps):
                write_update(stage, step, planned, rng)
            marks = sorted({round(i * steps / max(1, evaluations - 1)) for i in range(evaluations)})
            names = {0: "before", steps: "after"} if complete else {0: "before"}
            figures = [write_evaluation(stage, "held_out", at, names.get(at), at / planned, rng, completion) for at in marks]
            for rollout in sorted({0, steps // 2, max(0, steps - 1)} if steps else ()):
                folder = f"{stage}/waves/{rollout:05d}-00"
                write_samples(f"{folder}/rollouts.jsonl", 3, 8, rollout / planned, rng, completion)
                commit(folder)
            for rollout in range(views):
                write_view(stage, rollout, rollout, rollout / planned, rng, completion and [completion, " and <b>more"])
            for rollout in range(min(steps, 2000)):
                timing = {
                    "rollout": rollout,
                    "steps": [rollout],
                    "sample_s": 0.7 + 0.1 * rng.random(),
                    "reward_s": 0.05,
                    "score_s": 0.1,
                    "update_s": 0.5,
                    "checkpoint_s": 0.3 if rollout % 20 == 19 else 0.0,
                    "tokens": 7000,
                    "compiles": 12 if rollout == 0 else int(rollout == 40),
                }
                write(f"{workdir}/timing/{name}/{rollout:05d}.json", timing)
            if complete:
                commit(stage)
                before, after = {"held_out": figures[0]}, {"held_out": figures[-1]}
                results.append(
                    {"name": name, "kind": "grpo", "before": before, "after": after, "steps": steps, "seconds": 126.0}
                )
        if complete:
            write(f"{workdir}/results.json", results)
        return workdir

    return make
