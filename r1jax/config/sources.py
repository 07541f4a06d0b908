"""What a recipe names: models, data sets, benchmarks, comparisons; where a run shows its figures."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ModelSource:
    """``path``: a Hugging Face directory or an r1jax checkpoint; a relative one is looked up from the recipe's folder."""

    path: str


@dataclass(frozen=True)
class DataSource:
    """A prompt set, or examples with completions.

    ``path``: a file (``.jsonl``, ``.jsonl.gz``, ``.json``, ``.csv``, ``.parquet``, ``.array_record``), a folder or a pattern of
    such files, or ``tfds:NAME``, of which ``split`` says the part and ``data_dir`` the place (empty: ``TFDS_DATA_DIR``).
    ``template``, ``grader``, ``type`` (of prompt: whose reward weights hold, ``rewards_by_type``): for rows that name none.
    ``override_template``: in place of the rows' own too. ``limit``: the first so many rows only (0: all).
    ``prompt_field``, ``answer_field``: empty means the usual names (question, problem, Question/Body; answer, Answer).
    ``completion_field``: what supervised fine-tuning learns; empty means ``completion``.
    """

    path: str
    template: str = "r1_zero"
    override_template: str = ""
    grader: str = "verify_math"
    type: str = ""
    prompt_field: str = ""
    answer_field: str = ""
    completion_field: str = ""
    limit: int = 0
    split: str = ""
    data_dir: str = ""


@dataclass(frozen=True)
class BenchmarkSource(DataSource):
    """A benchmark: a data set and how it is sampled. The paper evaluates at T 0.6 and top-p 0.95.

    ``parts``: reward parts whose means are shown beside the accuracy (``format``, ``language`` ...). ``same_as``: another benchmark of
    the same problems, asked in another form; their stages stand in one table.
    """

    samples: int = 4
    temperature: float = 0.6
    top_p: float = 0.95
    max_tokens: int = 32_768
    seed: int = 0
    parts: tuple[str, ...] = ()
    same_as: str = ""


@dataclass(frozen=True)
class ComparisonSettings:
    """Two models of a run, held against each other problem by problem: what a stage is for, by a number. Derived from the
    benchmarks' samples, so it may change between two sessions.

    ``what``: in words. ``of``, ``against``: a stage, which stands for the model that it made, or ``STAGE:before``, the one that it
    began from. ``benchmark``: of both. ``against_benchmark``: where the other was asked the same problems in another form.
    """

    what: str
    of: str
    against: str
    benchmark: str
    against_benchmark: str = ""


@dataclass(frozen=True)
class LoggingSettings:
    """Where a run's figures are shown besides its own files. Derived from those, so it may change between two sessions.

    ``tensorboard``: event files in ``<workdir>/tensorboard``. ``wandb``: Weights & Biases, where it is installed, under
    ``wandb_project``; its own environment variables (``WANDB_MODE=offline`` ...) hold. ``report_every``: seconds between two
    reports while the run goes on (0: at its end only).
    """

    tensorboard: bool = True
    wandb: bool = False
    wandb_project: str = "r1jax"
    report_every: int = 120
