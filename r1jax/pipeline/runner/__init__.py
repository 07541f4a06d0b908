"""The runner: walks a recipe, resumes it, keeps its work directory."""

from r1jax.pipeline.runner.running import run_recipe

__all__ = ["run_recipe"]
