"""Preference pairs: ``kind: preference_pairs``. A model answers, a judge compares, clear pairs become data for a reward model."""

from r1jax.pipeline.preferences.stage import PreferencePairsStage

__all__ = ["PreferencePairsStage"]
