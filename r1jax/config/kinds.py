"""The kinds of stages: their settings, and the classes that run them."""

from __future__ import annotations

from dataclasses import dataclass, field

from r1jax.config.curation import ColdStartSettings, RejectionSamplingSettings
from r1jax.config.judging import JudgeSettings
from r1jax.config.parts import (
    AdvantageSettings,
    HackingSettings,
    LossSettings,
    OptimizerSettings,
    RewardSettings,
    RouterSettings,
    SamplerSettings,
    WorkerSettings,
)
from r1jax.config.reward_models import PreferencePairsSettings, RewardModelSettings


@dataclass(frozen=True)
class GRPOSettings:
    """Reasoning RL. The defaults are the paper's (R1-Zero; Nature 645:633): 512 prompts x 16 samples a rollout, 16 random
    minibatches, one epoch, lr 3e-6, KL 0.001, temperature 1, reference <- policy every 400 steps, 10,400 steps.

    ``prompts_per_wave``: a rollout is sampled and recorded in waves of so many prompts (0: in one), and a crash loses at most
    the unfinished wave; what is sampled does not depend on it. Each wave ends with few sequences, so small ones are slower.
    ``rewards``: part -> weight; a part is a built-in name or ``package.module:function``. ``rewards_by_type``: in its place,
    prompt type -> part -> weight (``rewards.mixing.mix_by_type``; equations 8 to 10). ``helpfulness`` and ``safety`` are
    parts that the inputs of these names give, reward models; ``judge`` (1 where the input ``judge`` finds the answer to agree with
    its row's reference) and ``judge_preference`` (from -1 to 1, how much better it finds it than the reference) come from a model
    that is asked as ``judging`` says. ``general_from``, ``general_share``: from that step on so large a part of
    each rollout's prompts is of the input ``general`` (the paper: the last 400 of 1,700 steps; the share is not published).
    ``hacking``: when a rising model reward is distrusted. ``reward_settings``: what parts can be told.
    ``max_tokens``: the length cap; ``max_tokens_at``: ``{step: cap}``, raised from that step's rollout on.
    ``aggregation``: ``losses.token_weights``. ``row_tokens``: length of a packed row (0: the longest prompt and the cap).
    ``overlong_filtering``: sequences cut off at the cap take no part in the loss (DAPO); in the group's mean and std they do.
    ``rows_per_microbatch``: packed rows per micro-step; a multiple of the mesh's batch shards.
    ``dynamic_sampling``: most times that groups which are all right or all wrong are replaced by new ones (0: off).
    ``reference_every`` 0: never refreshed. ``checkpoint_every``, ``evaluate_every``: in optimizer steps; 0: at the end
    only. ``track``: benchmarks evaluated every ``evaluate_every``. ``mtp_coefficient``: above 0 the modules of multi-token
    prediction learn from the rollouts to look ahead of the new policy, which itself takes nothing from it. ``compute_dtype``: empty means bfloat16 on
    accelerators, float32 on CPU. ``remat``: ``models.REMAT_POLICIES``.
    """

    steps: int = 10_400
    prompts_per_rollout: int = 512
    samples_per_prompt: int = 16
    prompts_per_wave: int = 0
    minibatches: int = 16
    epochs: int = 1
    temperature: float = 1.0
    max_tokens: int = 32_768
    max_tokens_at: dict[int, int] = field(default_factory=dict)
    max_prompt_tokens: int = 2_048
    rewards: dict[str, float] = field(default_factory=lambda: {"accuracy": 1.0, "format": 1.0})
    rewards_by_type: dict[str, dict[str, float]] = field(default_factory=dict)
    reward_settings: RewardSettings = RewardSettings()
    general_from: int = 0
    general_share: float = 0.5
    hacking: HackingSettings = HackingSettings()
    judging: JudgeSettings = JudgeSettings()
    aggregation: str = "sequence_mean"
    overlong_filtering: bool = False
    reference_every: int = 400
    dynamic_sampling: int = 0
    row_tokens: int = 0
    rows_per_microbatch: int = 8
    checkpoint_every: int = 50
    evaluate_every: int = 0
    track: tuple[str, ...] = ()
    compute_dtype: str = ""
    remat: str = "nothing"
    advantages: AdvantageSettings = AdvantageSettings()
    loss: LossSettings = LossSettings()
    optimizer: OptimizerSettings = OptimizerSettings()
    router: RouterSettings = RouterSettings()
    mtp_coefficient: float = 0.0
    sampler: SamplerSettings = SamplerSettings()
    workers: WorkerSettings = WorkerSettings()


@dataclass(frozen=True)
class SFTSettings:
    """Supervised fine-tuning: cold start, the SFT of R1, distillation by a teacher's text. The defaults are the paper's
    (arXiv 2501.12948, B.4.2): 2 epochs, 128 sequences an update, cosine from 5e-5 to 5e-6, 32,768 tokens of context.

    An input ``held_out``, a set of examples like ``data``, is never learnt: its cross-entropy (mean per completion token) is measured
    before the first update, every ``evaluate_every``, and at the end.
    ``steps``: optimizer updates; 0: as many as ``epochs`` of the data take. ``batch_sequences``: examples of an update.
    ``max_tokens``: longer examples, prompt and completion together, are left out. ``row_tokens``: length of a packed row
    (0: the longest example). ``router.replay`` is not read: there is no rollout. ``mtp_coefficient``: of the loss of
    multi-token prediction, which here, as in pre-training, moves the whole model. The other keys: see ``GRPOSettings``.
    """

    epochs: int = 2
    steps: int = 0
    batch_sequences: int = 128
    max_tokens: int = 32_768
    aggregation: str = "token_mean"
    row_tokens: int = 0
    rows_per_microbatch: int = 8
    checkpoint_every: int = 50
    evaluate_every: int = 0
    track: tuple[str, ...] = ()
    compute_dtype: str = ""
    remat: str = "nothing"
    optimizer: OptimizerSettings = OptimizerSettings(lr=5e-5, schedule="cosine", final_lr_ratio=0.1)
    router: RouterSettings = RouterSettings()
    mtp_coefficient: float = 0.0


@dataclass(frozen=True)
class OnPolicyDistillationSettings:
    """The student samples, and a teacher of the same tokenizer scores each token: the policy gradient of
    ``log p_teacher - log p_student`` lowers their reverse KL divergence (GKD, arXiv 2306.13649). Not of the paper, whose students
    learn its text alone; numbers by our choice. Each rollout is one update. Nothing is rewarded: what a grader says is a curve.

    ``temperature``: of the student's samples, and of both models' scores. The other keys: see ``GRPOSettings``.
    """

    steps: int = 200
    prompts_per_rollout: int = 64
    samples_per_prompt: int = 4
    prompts_per_wave: int = 0
    temperature: float = 1.0
    max_tokens: int = 32_768
    max_prompt_tokens: int = 2_048
    aggregation: str = "token_mean"
    row_tokens: int = 0
    rows_per_microbatch: int = 8
    checkpoint_every: int = 50
    evaluate_every: int = 0
    track: tuple[str, ...] = ()
    compute_dtype: str = ""
    remat: str = "nothing"
    optimizer: OptimizerSettings = OptimizerSettings(lr=1e-5)
    router: RouterSettings = RouterSettings()
    sampler: SamplerSettings = SamplerSettings()
    workers: WorkerSettings = WorkerSettings()


# Keys of a stage's settings that may change when a run is resumed: they change what is shown or how fast, not what happens.
# Bounds on grading are among them: else a run that one overloaded moment has stopped could never go on.
SAFE_TO_CHANGE = frozenset(
    {"checkpoint_every", *(f"workers.{key}" for key in ("count", "timeout", "warn_ungraded", "stop_ungraded"))}
)

# kind -> (settings, class). A user's kind is "package.module:Class", whose ``settings`` is its dataclass.
BUILT_IN_KINDS: dict[str, tuple[type, str]] = {
    "grpo": (GRPOSettings, "r1jax.pipeline.grpo:GRPOStage"),
    "sft": (SFTSettings, "r1jax.pipeline.sft:SFTStage"),
    "on_policy_distillation": (OnPolicyDistillationSettings, "r1jax.pipeline.distillation:OnPolicyDistillationStage"),
    "reward_model": (RewardModelSettings, "r1jax.pipeline.reward_model:RewardModelStage"),
    "preference_pairs": (PreferencePairsSettings, "r1jax.pipeline.preferences:PreferencePairsStage"),
    "cold_start": (ColdStartSettings, "r1jax.pipeline.curation:ColdStartStage"),
    "rejection_sampling": (RejectionSamplingSettings, "r1jax.pipeline.curation:RejectionSamplingStage"),
}
# What a built-in kind makes, for the check of the graph.
MAKES = {
    "grpo": "language models",
    "sft": "language models",
    "on_policy_distillation": "language models",
    "reward_model": "reward models",
    "preference_pairs": "pairs",
    "cold_start": "examples",
    "rejection_sampling": "examples",
}
REQUIRED_INPUTS = {kind: ("model", "data") for kind in BUILT_IN_KINDS}
REQUIRED_INPUTS["on_policy_distillation"] = ("model", "teacher", "data")
REQUIRED_INPUTS["preference_pairs"] = ("model", "judge", "data")
# Parts of a reward that a model gives -> the input that is that model.
MODEL_REWARDS = {"helpfulness": "helpfulness", "safety": "safety", "judge": "judge", "judge_preference": "judge"}
OPTIONAL_INPUTS = {
    "grpo": ("reference", "general", *dict.fromkeys(MODEL_REWARDS.values())),
    "sft": ("held_out",),
    "reward_model": ("held_out",),
    "cold_start": ("rewriter",),
    "rejection_sampling": ("general", "judge"),
}
