"""Stages that make data: ``kind: cold_start`` and ``kind: rejection_sampling``.

Samples are drawn and graded in recorded waves, filtered, freed of duplicates and of what the benchmarks hold, selected,
balanced, mixed and written with a card. All after the waves is computed from them anew in every session, by seed alone.
"""

from r1jax.pipeline.curation.stage import ColdStartStage, RejectionSamplingStage

__all__ = ["ColdStartStage", "RejectionSamplingStage"]
