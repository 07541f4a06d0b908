"""Recomputes updates of a finished run from what it recorded, by other hands than its own.

    python tests/pipeline/recorded_update.py WORKDIR [--stage zero]

Of each update whose policy is still on disk (the base for update 0; a checkpoint for the one after it) the recorded wave is
scored by ``transformers`` in float32, advantages and token weights are those of the plain-Python oracle
(``tests/losses/losskit``), and its loss and figures are held against the logged ones. Nothing of r1jax but the reading of a
checkpoint takes part.

For stages of one update per rollout (``minibatches`` and ``epochs`` 1), one type of prompt, without replaced groups or a refreshed
reference, of models that ``transformers`` loads.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import yaml

sys.path.insert(0, str(Path(__file__).parents[1] / "losses"))

from losskit import oracle_host, oracle_policy  # noqa: E402

# A log-probability in float32 by two programs: 1e-5 of a logit of order 10. The bound that r1jax keeps for its own two is 1e-4.
LOGPROB = 1e-4


def stage_settings(workdir: Path, name: str) -> SimpleNamespace:
    """The stage of the resolved recipe, and the path of its model.

    Raises:
      ValueError: a stage that is not of the kind above.
    """
    recipe = yaml.safe_load((workdir / "recipe.yaml").read_text())
    stages = {stage["name"]: stage for stage in recipe["stages"]}
    if name not in stages:
        raise ValueError(f"{workdir} has no stage {name!r}; there are {', '.join(stages)}")
    stage = stages[name]
    for key, value in {"minibatches": 1, "epochs": 1, "dynamic_sampling": 0, "overlong_filtering": False}.items():
        if stage[key] != value:
            raise ValueError(f"stages.{name}.{key} is {stage[key]}; only {value} can be recomputed from the records")
    return SimpleNamespace(**stage, path=recipe["models"][stage["model"]]["path"])


# ---------------------------------------------------------------------------------------------- what was recorded
def recorded_samples(folder: Path, rollout: int) -> list[SimpleNamespace]:
    """Every sample of a rollout by prompt, then by number: prompt and completion tokens, sampler's log-probabilities, parts."""
    samples = []
    for wave in sorted(folder.glob(f"waves/{rollout:05d}-*")):
        lines = [json.loads(line) for line in (wave / "rollouts.jsonl").read_text().rstrip("\n").split("\n")]
        with np.load(wave / "arrays.npz") as arrays:
            prompts = np.split(arrays["prompt_tokens"], np.cumsum(arrays["prompt_lengths"])[:-1])
            ends = np.cumsum(arrays["lengths"])[:-1]
            tokens, logprobs = np.split(arrays["tokens"], ends), np.split(arrays["logprobs"], ends)
        samples += [
            SimpleNamespace(**x | {"prompt": p, "tokens": t, "logprobs": q})
            for p, t, q, x in zip(prompts, tokens, logprobs, lines)
        ]
    return sorted(samples, key=lambda s: (s.prompt_id, s.sample))


def mixed_reward(parts: dict[str, float | None], weights: dict[str, float]) -> float | None:
    """The weighted sum; None where a part that has a weight could not be graded."""
    values = [(weight, parts[name]) for name, weight in weights.items() if weight]
    return None if any(value is None for _, value in values) else sum(weight * value for weight, value in values)


# ---------------------------------------------------------------------------------------------- the policies
def policies(workdir: Path, stage: SimpleNamespace, scratch: Path) -> Iterator[tuple[int, Path]]:
    """(step, Hugging Face directory of the policy before that step) of each that is on disk and has an update."""
    folder = workdir / "stages" / stage.name
    yield 0, Path(stage.path)
    for checkpoint in sorted(folder.glob("checkpoints/*/commit.json")):
        step = int(checkpoint.parent.name)
        if (folder / f"updates/{step:06d}").exists():
            yield step, export_policy(checkpoint.parent / "state", stage, scratch / str(step))


def export_policy(state: Path, stage: SimpleNamespace, out: Path) -> Path:
    """The parameters of a checkpoint as a Hugging Face directory."""
    from r1jax import checkpoint, config, sharding
    from r1jax.pipeline.grpo.learning import Learner

    settings = config.read_dataclass(config.GRPOSettings, settings_of(stage), "stage")
    layout = sharding.layout(sharding.make_mesh(), sharding.TRAIN_RULES)
    model = checkpoint.read_config(stage.path)
    restored = checkpoint.restore_state(state, Learner(model, layout, settings, np.float32).abstract_state())
    checkpoint.export_model(out, model, restored.params, stage.path, np.float32)
    return out


def settings_of(stage: SimpleNamespace) -> dict[str, Any]:
    """The recipe's keys that are settings."""
    others = ("name", "kind", "benchmarks", "model", "data", "reference", "path")
    return {key: value for key, value in vars(stage).items() if key not in others}


def score(directory: Path, samples: list[SimpleNamespace], temperature: float) -> list[tuple[np.ndarray, np.ndarray]]:
    """(log-probabilities, entropies) of each sample's completion tokens, by ``transformers`` in float32."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
    found = []
    for sample in samples:
        ids = torch.tensor(np.concatenate([sample.prompt, sample.tokens])[None].astype(np.int64))
        with torch.no_grad():
            logits = model(ids).logits[0, len(sample.prompt) - 1 : -1].double() / temperature
        logprobs = torch.log_softmax(logits, -1)
        entropy = -(logprobs.exp() * logprobs).sum(-1)
        found.append((logprobs.gather(1, ids[0, len(sample.prompt) :, None])[:, 0].numpy(), entropy.numpy()))
    return found


# ---------------------------------------------------------------------------------------------- the update
def recompute(
    stage: SimpleNamespace, samples: list[SimpleNamespace], policy: list, reference: list
) -> tuple[float, float, dict[str, float]]:
    """The oracle's loss, the sum of the tokens' absolute losses, and its metrics."""
    group, a = stage.samples_per_prompt, stage.advantages
    rewards = [mixed_reward(s.parts, stage.rewards) for s in samples]
    groups = [rewards[i : i + group] for i in range(0, len(rewards), group)]
    advantages = [x for row in oracle_host.advantages(groups, a["normalize"], a["ddof"], a["epsilon"]) for x in row]
    lengths = [len(s.tokens) if r is not None else None for s, r in zip(samples, rewards)]
    weights = oracle_host.weights(lengths, stage.aggregation, stage.max_tokens)
    loss = dict(stage.loss)
    needs_all = (loss["kl"] != "none" and loss["kl_coefficient"]) or loss["entropy_coefficient"]
    sequences = []
    for s, new, ref, advantage, weight in zip(samples, policy, reference, advantages, weights):
        if not needs_all and advantage == 0:
            weight = 0.0  # the run does not look at them, since they can't have a gradient
        sequence = SimpleNamespace(
            logprobs=new[0].tolist(),
            old_logprobs=new[0].tolist(),
            ref_logprobs=ref[0].tolist(),
            sampler_logprobs=s.logprobs.tolist(),
            entropy=new[1].tolist(),
            advantage=advantage,
            weight=[weight] * len(s.tokens),
        )
        sequences.append(Counted(sequence))
    total, scale, _, _, metrics = policy_loss(sequences, loss)
    return total, scale, metrics


class Counted(SimpleNamespace):
    """A sequence of the oracle's: ``len`` is its tokens."""

    def __init__(self, fields: SimpleNamespace):
        super().__init__(**vars(fields))

    def __len__(self) -> int:
        return len(self.logprobs)


def policy_loss(sequences: list[Counted], composition: dict) -> tuple:
    """The oracle's, without its gradients: their cost is quadratic in a sequence's length."""
    c = {**oracle_policy.DEFAULTS, **composition}
    loss, scale, figures = 0.0, 0.0, oracle_policy.Figures()
    for s in sequences:
        counted = [t for t in range(len(s)) if s.weight[t] != 0]
        if not counted:
            continue
        some = oracle_policy._only(s, counted)
        new, weights = some.logprobs, [s.weight[t] for t in counted]
        values, parts = oracle_policy.token_losses(some, new, new, list(new), c)
        loss += sum(w * oracle_policy.real(v) for w, v in zip(weights, values))
        scale += sum(abs(w * oracle_policy.real(v)) for w, v in zip(weights, values))
        figures.add(some, new, list(new), weights, parts, c)
    return loss, scale, None, None, figures.finish(loss, c)


def tolerance(name: str, value: float, scale: float, metrics: dict[str, float]) -> float:
    """What two float32 programs may differ by, from the bound on one log-probability."""
    if name == "loss":
        return 1e-5 * scale + LOGPROB * metrics["kl_ref"] ** 0.5
    if name in ("kl_ref", "kl_old"):  # d k3 = |ref - new| times the difference; |ref - new| is about sqrt(2 k3)
        return 2 * LOGPROB * (2 * abs(value)) ** 0.5 + LOGPROB**2
    if name == "entropy":
        return 10 * LOGPROB
    if name.startswith("sampler_trainer"):  # a difference of nearly equal numbers: the bound is all that can be said
        return LOGPROB if name.endswith("mean") else 10 * LOGPROB
    return 1e-5 * max(1.0, abs(value))


def check(workdir: Path, name: str = "zero") -> list[dict[str, Any]]:
    """One row per figure and update: ``step, figure, logged, recomputed, allowed, equal``."""
    stage = stage_settings(workdir, name)
    folder = workdir / "stages" / name
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        for step, directory in policies(workdir, stage, Path(scratch)):
            if stage.reference_every and step >= stage.reference_every:
                break
            logged = json.loads((folder / f"updates/{step:06d}/metrics.json").read_text())
            samples = recorded_samples(folder, logged["rollout"])
            policy = score(directory, samples, stage.temperature)
            reference = policy if step == 0 else score(Path(stage.path), samples, stage.temperature)
            _, scale, metrics = recompute(stage, samples, policy, reference)
            for figure, value in metrics.items():
                if figure not in logged:
                    continue
                allowed = tolerance(figure, value, scale, metrics)
                rows.append(
                    {
                        "step": step,
                        "figure": figure,
                        "logged": logged[figure],
                        "recomputed": float(value),
                        "allowed": allowed,
                        "equal": bool(abs(logged[figure] - value) <= allowed),
                    }
                )
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("workdir", type=Path)
    parser.add_argument("--stage", default="zero")
    arguments = parser.parse_args()
    rows = check(arguments.workdir, arguments.stage)
    for row in rows:
        verdict = "equal" if row["equal"] else "DIFFERS"
        print(
            f"update {row['step']:4d}  {row['figure']:22} logged {row['logged']: .9e}  recomputed {row['recomputed']: .9e}  "
            f"allowed {row['allowed']:.1e}  {verdict}"
        )
    return 0 if rows and all(row["equal"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
