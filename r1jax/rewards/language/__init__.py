"""Which language a text is in: the language-consistency reward and a detector, both without dependencies."""

from r1jax.rewards.language.consistency import language_consistency, reasoning
from r1jax.rewards.language.detection import detect_language, language_code, word_languages

__all__ = ["detect_language", "language_code", "language_consistency", "reasoning", "word_languages"]
