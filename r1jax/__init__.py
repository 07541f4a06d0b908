"""r1jax: the whole of DeepSeek-R1 in JAX."""

__version__ = "0.1.0"
