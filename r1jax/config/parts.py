"""Settings that stages share: the mesh, the sampler, the optimizer, the loss, rewards and their workers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class MeshSettings:
    """Sizes of the mesh axes; -1 (at most one) takes what is left of the devices."""

    data: int = 1
    fsdp: int = -1
    tensor: int = 1


@dataclass(frozen=True)
class SamplerSettings:
    """How the sampler is laid out: ``rows`` prompts at a time, ``lanes`` samples of each at a time.

    ``chunk``: most tokens between two looks of the host. ``prompt_bucket``, ``completion_bucket``: the lengths of the
    first buckets; larger ones double. ``rows`` 0 and ``lanes`` 0 choose from the wave.
    """

    rows: int = 0
    lanes: int = 0
    chunk: int = 64
    prompt_bucket: int = 64
    completion_bucket: int = 128


@dataclass(frozen=True)
class OptimizerSettings:
    """AdamW. Betas and clip are those of DeepSeek-V3's pre-training; R1's are not published, nor whether it had weight decay (0.1 in
    V3's) or a warm-up; here both are off.

    ``schedule``: constant, linear or cosine, from ``lr`` after ``warmup_steps`` to ``lr * final_lr_ratio`` at the end.
    """

    lr: float = 3e-6
    schedule: str = "constant"
    warmup_steps: int = 0
    final_lr_ratio: float = 0.1
    b1: float = 0.9
    b2: float = 0.95
    epsilon: float = 1e-8
    weight_decay: float = 0.0
    clip_norm: float = 1.0
    moments_dtype: str = "float32"


@dataclass(frozen=True)
class AdvantageSettings:
    """``losses.group_advantages``; ``normalize: gdpo`` is ``losses.gdpo_advantages`` of the reward's parts."""

    normalize: str = "std"
    ddof: int = 1
    epsilon: float = 1e-6


@dataclass(frozen=True)
class LossSettings:
    """``losses.PolicyLoss``, field by field; a test holds the two equal. ``losses/README.md`` has the published algorithms.

    ``ratio``, ``surrogate``, ``correction``, ``kl``: a built-in name or ``package.module:function``.
    """

    ratio: str = "token"
    surrogate: str = "clip"
    clip_low: float = 0.2
    clip_high: float = 0.2
    dual_clip: float = 3.0
    tau_positive: float = 1.0
    tau_negative: float = 1.05
    correction: str = "none"
    correction_level: str = "token"
    correction_low: float = 0.5
    correction_high: float = 2.0
    off_policy_delta: float = 0.0
    kl: str = "k3"
    kl_coefficient: float = 1e-3
    entropy_coefficient: float = 0.0


@dataclass(frozen=True)
class RouterSettings:
    """For models with experts.

    ``replay``: the trainer takes the experts that the sampler chose; otherwise it chooses again, and a metric counts how often
    otherwise. ``bias_rate``: the selection bias moves by so much against an expert's load after each update (DeepSeek-V3's
    pre-training: 1e-3; what R1's RL did is not published). ``balance``: coefficient of the sequence-wise balance loss (1e-4
    there).
    """

    replay: bool = True
    bias_rate: float = 0.0
    balance: float = 0.0


@dataclass(frozen=True)
class WorkerSettings:
    """The reward pool: ``count`` processes (0: one per core, at most 16); a request may take ``timeout`` seconds.

    A share of ungraded samples in a rollout above ``warn_ungraded`` warns; above ``stop_ungraded`` it stops the run.
    """

    count: int = 0
    timeout: float = 10.0
    warn_ungraded: float = 0.02
    stop_ungraded: float = 0.2


@dataclass(frozen=True)
class RewardSettings:
    """``rewards.parts.PartSettings``: what reward parts can be told.

    ``overlong_cache``: DAPO's ``L_cache`` in tokens (0: a fifth of the cap). ``repetition_ngram``: tokens that must come again
    in the same order to count as a repetition.
    """

    overlong_cache: int = 0
    repetition_ngram: int = 20


@dataclass(frozen=True)
class HackingSettings:
    """When a rising model reward is taken for hacking (arXiv 2501.12948, supplement, Figure 6): the reward gains on its first
    rollouts while another measure of the same samples gets worse. The paper publishes no bounds; these are our choice.

    ``window``: rollouts that are averaged, the first ones with general prompts and the last ones; the very first is a second beginning,
    for what happens within the first window and shows in the second. ``reward_gain``: what counts as a
    rise of a model's reward, beside twice its standard error. ``accuracy_drop``, ``format_drop``,
    ``language_drop``: of the rules' means. ``length_factor``: longer or shorter by so much. ``repetition_rise``: of the share that
    repeats. ``length_correlation``: of the model reward with the length, within groups. ``stop_after``: rollouts with an alarm, one after the other, after
    which the stage ends with the policy it has (0: never).
    """

    window: int = 5
    reward_gain: float = 0.05
    accuracy_drop: float = 0.05
    format_drop: float = 0.05
    language_drop: float = 0.05
    length_factor: float = 1.5
    repetition_rise: float = 0.1
    length_correlation: float = 0.8
    stop_after: int = 0
