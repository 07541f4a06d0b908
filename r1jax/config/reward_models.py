"""Settings of the stages that make reward models."""

from __future__ import annotations

from dataclasses import dataclass

from r1jax.config.judging import JudgeSettings
from r1jax.config.parts import OptimizerSettings, RouterSettings, SamplerSettings


@dataclass(frozen=True)
class RewardModelSettings:
    """``kind: reward_model``. The defaults are the paper's (Nature 645:633), of both its reward models: 1 epoch, 256 pairs or
    responses an update, lr 6e-6, 8,192 tokens; its helpfulness has 66,000 pairs, its safety 106,000 labelled responses.

    ``objective``: ``pairwise`` (Bradley-Terry; data are pairs) or ``pointwise`` (binary cross-entropy; data are labelled
    responses). ``reads``: ``final_summary`` or ``whole_response``; empty: the paper's, the summary where pairs are learnt and the
    whole where labels are. ``batch_examples``: pairs, or responses, of an update. ``max_tokens``: rows with a longer sequence,
    prompt and response together, are left out. ``row_tokens``: length of a packed row (0: the longest pair, or response); a pair
    lies in one. ``evaluate_every``: updates between two measurements on the input ``held_out`` (0: before and after only).
    ``router.replay`` is not read. The other keys: see ``GRPOSettings``.
    """

    objective: str = "pairwise"
    reads: str = ""
    epochs: int = 1
    steps: int = 0
    batch_examples: int = 256
    max_tokens: int = 8_192
    row_tokens: int = 0
    rows_per_microbatch: int = 8
    checkpoint_every: int = 50
    evaluate_every: int = 0
    compute_dtype: str = ""
    remat: str = "nothing"
    optimizer: OptimizerSettings = OptimizerSettings(lr=6e-6)
    router: RouterSettings = RouterSettings()


@dataclass(frozen=True)
class PreferencePairsSettings:
    """``kind: preference_pairs``. The paper's numbers (Nature 645:633): 4 judgements a pair, half of them in either order, kept where
    their mean differs by more than 1; chosen and rejected responses of comparable lengths. Its numbers of answers and of pairs
    for each prompt are not published.

    ``prompts``: so many of the data set's, chosen by the run's seed (0: all). ``pairs_per_prompt``: most pairs of a prompt's answers
    that are judged (0: all). ``prompts_per_wave``: what is recorded at a time. ``template``: of the rows made (empty: their
    prompt's own). ``least_difference``: on the judge's scale from -2 to 2. ``balance_lengths``: pairs are left out until the chosen
    answer is as often the longer one as the shorter one (``pipeline.preferences.pairing``). ``decontamination_words``: prompts that
    share so many words in a row with a benchmark of the recipe's are left out (0: off). ``judging``: how the judge is asked.
    """

    prompts: int = 0
    samples_per_prompt: int = 4
    pairs_per_prompt: int = 2
    prompts_per_wave: int = 512
    temperature: float = 1.0
    top_p: float = 1.0
    max_tokens: int = 8_192
    max_prompt_tokens: int = 2_048
    template: str = ""
    least_difference: float = 1.0
    balance_lengths: bool = True
    decontamination_words: int = 10
    judging: JudgeSettings = JudgeSettings()
    sampler: SamplerSettings = SamplerSettings()
