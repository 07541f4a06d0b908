"""Settings of the stages that make data: rejection sampling and the cold start."""

from __future__ import annotations

from dataclasses import dataclass, field

from r1jax.config.judging import JudgeSettings
from r1jax.config.parts import SamplerSettings, WorkerSettings


@dataclass(frozen=True)
class FilterSettings:
    """Bounds of the built-in filters. The paper names the filters and no bounds.

    ``least_language_share``: of the words of the reasoning, those in the problem's language. ``longest_paragraph``: characters
    between two blank lines of the reasoning. ``repetition_ngram``, ``most_repetition``: share of the text's n-grams, and of
    its sentences and lines, that occurred before (``rewards.penalties``).
    """

    least_language_share: float = 0.95
    longest_paragraph: int = 2_000
    repetition_ngram: int = 20
    most_repetition: float = 0.2


@dataclass(frozen=True)
class DeduplicationSettings:
    """``near``: Jaccard similarity of the sets of n-grams from which on two texts are one (0: only equal ones are); of the
    samples of one prompt by the samples alone, of different prompts by problem and sample together. ``ngram``: in tokens."""

    near: float = 0.8
    ngram: int = 5


@dataclass(frozen=True)
class SelectionSettings:
    """``per_prompt``: most examples of a prompt (0: all); ``choose``: which ones, ``shortest``, ``random`` (by the run's seed)
    or ``diverse`` (the shortest first, then each time the one least like those chosen).

    ``domain_caps``: domain -> most examples. ``domain_weights``: domain -> its part of the set, in any unit; the set is as
    large as its scarcest domain allows. A domain is the row's ``domain_field``, or its grader's name where it has none.
    """

    per_prompt: int = 0
    choose: str = "shortest"
    domain_field: str = "domain"
    domain_caps: dict[str, int] = field(default_factory=dict)
    domain_weights: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class CurationSettings:
    """What both stages share. The paper's own numbers of samples, and the temperature of rejection sampling, are not published.

    ``prompts``: so many of the data set's, chosen by the run's seed (0: all). ``prompts_per_wave``: what is recorded at a time; a
    crash loses the unfinished wave. ``form``: how the model writes: ``think`` (R1: ``<think>reasoning</think>summary``) or
    ``zero`` (R1-Zero: ``<think>...</think><answer>...</answer>``). ``template``: of the rows made (empty: their prompt's own).
    ``filters``: names of ``pipeline.curation.filters`` or ``package.module:function``, ``(text, row) -> reason or None``.
    ``judge_function``: such a function, asked in the place of a verdict for rows whose grader knows no right answer; without
    one (or, in rejection sampling, a model as the input ``judge``) these are not kept. ``decontaminate``: benchmarks that nothing kept may share ``decontamination_words`` words in a row
    with (empty: all of the recipe's; 0 words: off).
    """

    prompts: int = 0
    samples_per_prompt: int = 16
    prompts_per_wave: int = 512
    temperature: float = 1.0
    top_p: float = 1.0
    max_tokens: int = 32_768
    max_prompt_tokens: int = 2_048
    form: str = "think"
    template: str = ""
    filters: tuple[str, ...] = ("truncated", "format", "language", "paragraphs", "code", "repetition")
    filter_settings: FilterSettings = FilterSettings()
    judge_function: str = ""
    deduplication: DeduplicationSettings = DeduplicationSettings()
    decontaminate: tuple[str, ...] = ()
    decontamination_words: int = 10
    selection: SelectionSettings = SelectionSettings()
    sampler: SamplerSettings = SamplerSettings()
    workers: WorkerSettings = WorkerSettings()


@dataclass(frozen=True)
class RejectionSamplingSettings(CurationSettings):
    """``kind: rejection_sampling``. ``general_share``: part of the whole set that comes from the input ``general``, if there is
    one; the paper's 200k of 800k by default. ``judging``: how an input ``judge`` is asked: a model that compares samples with
    the reference answers of their rows, where the grader knows no right answer."""

    general_share: float = 0.25
    judging: JudgeSettings = JudgeSettings()


@dataclass(frozen=True)
class RewriterSettings:
    """How an input ``rewriter`` is sampled; ``max_tokens`` 0: the stage's own. ``rows``: requests at a time; each has a long
    prompt of its own in the cache."""

    temperature: float = 0.6
    top_p: float = 0.95
    max_tokens: int = 0
    rows: int = 16


@dataclass(frozen=True)
class ColdStartSettings(CurationSettings):
    """``kind: cold_start``: R1-Zero's samples become examples in R1's format.

    ``summaries``: language -> what stands after the thought; ``{answer}`` and ``{problem}`` are replaced. Where there is an
    input ``rewriter``, that model rewrites reasoning and summary instead. ``filters`` are asked before and after.
    """

    form: str = "zero"
    template: str = "chat"
    summaries: dict[str, str] = field(
        default_factory=lambda: {"en": "The answer is \\boxed{{answer}}.", "zh": "答案是\\boxed{{answer}}。"}
    )
    rewriter_sampling: RewriterSettings = RewriterSettings()
