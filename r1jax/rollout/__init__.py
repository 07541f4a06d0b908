"""The sampler: waves of prompts in, finished sequences out."""

from r1jax.rollout.sampler import Sampler, SamplingStopped
from r1jax.rollout.wave import SampledSequence, Wave

__all__ = ["SampledSequence", "Sampler", "SamplingStopped", "Wave"]
