"""TRL's own numbers on the same arrays, where TRL is installed: its GRPOTrainer computes, on a stub in place of the trainer.

TRL is no requirement of r1jax's tests. To run these: ``pip install trl`` beside r1jax (tried with 1.16.0), or put it in a folder
of its own and give that as ``PYTHONPATH``.
"""

import collections
import functools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from losskit import checks
from losskit.batches import by_sequence, lay_out, one_per_row, random_sequences, weigh

# Its first import takes half a minute.
pytestmark = pytest.mark.slow
LENGTH = 8  # the constant of Dr.GRPO
PLAIN = {"kl": "none"}
KL = {"kl": "k3", "kl_coefficient": 0.3}
CLIP = {"clip_low": 0.13, "clip_high": 0.31}

# name -> (TRL's settings, our composition, our aggregation)
CASES = {
    "grpo": (dict(loss_type="grpo"), {**PLAIN, **CLIP}, "sequence_mean"),
    "grpo with k3": (dict(loss_type="grpo", beta=0.3), {**KL, **CLIP}, "sequence_mean"),
    "bnpo": (dict(loss_type="bnpo"), {**PLAIN, **CLIP}, "token_mean"),
    "dr_grpo": (dict(loss_type="dr_grpo"), {**PLAIN, **CLIP}, "constant_length"),
    "dapo": (dict(loss_type="dapo"), {**PLAIN, **CLIP}, "token_mean"),
    "cispo": (
        dict(loss_type="cispo", epsilon_high=1.31),
        {**PLAIN, "surrogate": "cispo", "clip_low": 1.0, "clip_high": 0.31},
        "token_mean",
    ),
    "sapo": (
        dict(loss_type="sapo", sapo_temperature_pos=0.75, sapo_temperature_neg=1.25),
        {**PLAIN, "surrogate": "sapo", "tau_positive": 0.75, "tau_negative": 1.25},
        "sequence_mean",
    ),
    "gspo": (
        dict(loss_type="grpo", importance_sampling_level="sequence"),
        {**PLAIN, **CLIP, "ratio": "sequence"},
        "sequence_mean",
    ),
    "delta": (
        dict(loss_type="grpo", delta=1.6),
        {**PLAIN, **CLIP, "surrogate": "dual_clip", "dual_clip": 1.6},
        "sequence_mean",
    ),
    "unbiased KL": (
        dict(loss_type="grpo", beta=0.3, use_bias_correction_kl=True),
        {**KL, **CLIP, "kl": "k3_unbiased"},
        "sequence_mean",
    ),
    "off-policy mask": (
        dict(loss_type="dapo", beta=0.3, off_policy_mask_threshold=0.15),
        {**KL, **CLIP, "off_policy_delta": 0.15},
        "token_mean",
    ),
    "entropy bonus": (dict(loss_type="bnpo", entropy_coef=0.1), {**PLAIN, **CLIP, "entropy_coefficient": 0.1}, "token_mean"),
} | {
    f"{mode} by {level}": (
        dict(loss_type="grpo", beta=0.3, correction=(mode, level)),
        {**KL, **CLIP, "correction": mode, "correction_level": level, "correction_low": 0.7, "correction_high": 1.4},
        "sequence_mean",
    )
    for mode in ("truncate", "mask")
    for level in ("token", "sequence")
}  # fmt: skip


def trl():
    pytest.importorskip("trl", reason="TRL is not installed")
    try:
        from trl.experimental.gmpo import GMPOTrainer
        from trl.trainer.grpo_trainer import GRPOTrainer
    except (ImportError, RuntimeError) as error:  # TRL imports its trainers when they are asked for
        pytest.skip(f"this TRL can't be imported here: {error}")
    return GRPOTrainer, GMPOTrainer


def correction_of(torch, mode, level, old, sampler, mask):
    """``GRPOTrainer._generate_and_score_completions`` has this amid its sampling: its words, our arrays."""
    difference = (old - sampler) * mask
    ratio = torch.exp(difference.sum(-1, keepdim=True) if level == "sequence" else difference)
    if mode == "truncate":
        return torch.clamp(ratio, max=1.4)
    return ratio.masked_fill((ratio < 0.7) | (ratio > 1.4), 0.0)


def theirs(trainer, settings, arrays):
    """TRL's loss, and its gradient by the log-probabilities and the entropies."""
    import torch

    settings = dict(settings)
    new, old, ref, sampler, entropy = (
        torch.tensor(np.nan_to_num(arrays[name]), dtype=torch.float64)
        for name in ("logprobs", "old_logprobs", "ref_logprobs", "sampler_logprobs", "entropy")
    )
    new.requires_grad_()
    entropy.requires_grad_()
    mask = torch.tensor(arrays["completion_mask"], dtype=torch.float64)
    advantages = torch.tensor(np.nanmax(np.where(arrays["completion_mask"] > 0, arrays["advantages"], -np.inf), axis=1))
    correction = settings.pop("correction", None)
    inputs = {
        "prompt_ids": torch.zeros((len(new), 1), dtype=torch.long),
        "prompt_mask": torch.ones((len(new), 1)),
        "completion_ids": torch.zeros(new.shape, dtype=torch.long),
        "completion_mask": mask,
        "advantages": advantages,
        "old_per_token_logps": old,
        "ref_per_token_logps": ref,
        "num_items_in_batch": mask.sum(),
    }
    if correction:
        inputs["importance_sampling_ratio"] = correction_of(torch, *correction, old, sampler, mask)
    coefficient = settings.pop("entropy_coef", 0.0)
    arguments = dict(delta=None, use_bias_correction_kl=False, steps_per_generation=1, sapo_temperature_pos=1.0)
    arguments |= {"sapo_temperature_neg": 1.05, **settings}
    stub = SimpleNamespace(
        args=SimpleNamespace(**arguments),
        _get_per_token_logps_and_entropies=lambda *_, **__: (new, entropy, None),
        get_off_policy_mask=getattr(trainer, "get_off_policy_mask", None),
        accelerator=SimpleNamespace(num_processes=1, gather=lambda x: x, reduce=lambda x, reduction: x, sync_gradients=True),
        model=SimpleNamespace(training=True),
        current_gradient_accumulation_steps=1,
        aux_loss_enabled=False,
        top_entropy_quantile=1.0,
        off_policy_mask_threshold=settings.get("off_policy_mask_threshold"),
        importance_sampling_level=settings.get("importance_sampling_level", "token"),
        beta=settings.get("beta", 0.0),
        loss_type=settings.get("loss_type"),
        epsilon_low=settings.get("epsilon", 0.13),
        epsilon_high=settings.get("epsilon_high", 0.31),
        use_vllm=bool(correction),
        vllm_importance_sampling_correction=bool(correction),
        max_completion_length=LENGTH,
        _entropy_bonus_enabled=bool(coefficient),
        use_adaptive_entropy=False,
        entropy_coef=coefficient,
        _metrics={"train": collections.defaultdict(list)},
    )
    loss = trainer._compute_loss(stub, None, inputs)
    loss.backward()
    figures = {name: values[-1] for name, values in stub._metrics["train"].items()}
    none = torch.zeros_like(new)
    return loss.item(), new.grad.numpy(), (none if entropy.grad is None else entropy.grad).numpy(), figures


def compare(losses, trainer, settings, composition, rule):
    for seed in range(4):
        sequences = random_sequences(seed, count=9)
        for s in sequences:
            s.prompt = 0
        weigh(sequences, rule, LENGTH)
        layout = one_per_row(sequences)
        arrays = lay_out(sequences, layout)
        weight = losses.token_weights(arrays["completion_mask"], arrays["sequence_index"], rule=rule, length=LENGTH)
        np.testing.assert_allclose(arrays["token_weight"], weight, rtol=1e-7)  # ours are float32; TRL's sums are not
        expected, gradient, entropy_gradient, figures = theirs(trainer, settings, arrays)
        found = checks.value_and_gradients(losses, arrays, losses.PolicyLoss(**composition))
        np.testing.assert_allclose(found[0], expected, rtol=1e-12)
        for one, other in ((found[1], gradient), (found[2], entropy_gradient)):
            one, other = (by_sequence(g, sequences, layout) for g in (one, other))
            assert np.linalg.norm(one - other) <= 1e-12 * np.linalg.norm(other), (one, other)
        if rule == "token_mean" and "clip_ratio/low_mean" in figures:
            np.testing.assert_allclose(found[3]["clip_low"], figures["clip_ratio/low_mean"], rtol=1e-12, atol=1e-15)
            np.testing.assert_allclose(found[3]["clip_high"], figures["clip_ratio/high_mean"], rtol=1e-12, atol=1e-15)
            np.testing.assert_allclose(found[3]["entropy"], figures["entropy"], rtol=1e-12)
        if rule == "token_mean" and composition["kl"] == "k3":
            np.testing.assert_allclose(found[3]["kl_ref"], figures["kl"], rtol=1e-6)


@pytest.mark.parametrize("case", CASES)
def test_grpo_trainer(losses, case):
    settings, composition, rule = CASES[case]
    compare(losses, trl()[0], settings, composition, rule)


@pytest.mark.parametrize("beta", [0.0, 0.3])
def test_gmpo_trainer(losses, beta):
    composition = {**CLIP, "ratio": "geometric", "surrogate": "none", "kl": "k3", "kl_coefficient": beta}
    compare(losses, trl()[1], {"beta": beta}, composition, "sequence_mean")


@pytest.mark.parametrize("beta", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_generalised_js_of_its_gkd_trainer(losses, beta):
    trl()
    torch = pytest.importorskip("torch")
    from trl.experimental.gkd import GKDTrainer

    rng = np.random.default_rng(0)
    student, teacher = rng.normal(0, 2, (2, 2, 3, 7))
    x = torch.tensor(student, requires_grad=True)
    loss = GKDTrainer.generalized_jsd_loss(x, torch.tensor(teacher), beta=beta, temperature=1.7, reduction="sum")
    loss.backward()
    own = {0.0: "forward", 1.0: "reverse"}.get(beta, functools.partial(losses.generalised_js, beta=beta))
    with jax.enable_x64(True):
        value, gradient = jax.value_and_grad(
            lambda z: losses.logit_distillation_loss(z, teacher, np.ones((2, 3)), divergence=own, temperature=1.7)[0]
        )(jnp.asarray(student))
        np.testing.assert_allclose(value, loss.item(), rtol=1e-12)
        np.testing.assert_allclose(gradient, x.grad.numpy(), rtol=1e-8, atol=1e-12)
