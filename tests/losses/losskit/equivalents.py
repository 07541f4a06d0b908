"""Mutants that no test can tell from the package, and why: they compute the same."""

EQUIVALENT: dict[str, dict[str, str]] = {}
