"""Layers that every decoder of the family is made of.

A layer is declared with the leading ``stack`` of the layers that share its code (``(L,)``, or ``()`` for one alone) and
is called on the slice of one layer.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from r1jax.models.config import RopeScaling, YarnScaling
from r1jax.models.parameters import constant, parameter
from r1jax.sharding import constrain


def accumulation_dtype(x: jax.Array) -> jnp.dtype:
    """float32, or float64 where the input is."""
    return jnp.promote_types(x.dtype, jnp.float32)


def _stack_axes(stack: tuple[int, ...]) -> tuple[str, ...]:
    return ("layer",) * len(stack)


class RMSNorm(nnx.Module):
    """Root-mean-square norm (1910.07467), computed in float32, scaled in the input's dtype."""

    def __init__(self, stack: tuple[int, ...], size: int, eps: float):
        self.eps = eps
        self.scale = constant((*stack, size), (*_stack_axes(stack), None), 1.0)

    def __call__(self, x: jax.Array) -> jax.Array:
        y = x.astype(accumulation_dtype(x))
        y = y * jax.lax.rsqrt(jnp.mean(y * y, -1, keepdims=True) + self.eps)
        return y.astype(x.dtype) * self.scale[...]


class Linear(nnx.Module):
    """``x @ kernel`` over the kernel's inputs, which are x's last dimensions in their order, plus, where asked for, a bias over
    the outputs.

    Args:
      shape, axes: of one layer's kernel, inputs first.
      outputs: how many trailing dimensions of the kernel are outputs.
    """

    def __init__(self, rngs, stack, shape, axes, outputs: int, scale: float, bias: bool = False):
        self.inputs = len(shape) - outputs
        self.kernel = parameter(rngs, (*stack, *shape), (*_stack_axes(stack), *axes), scale)
        self.bias = constant((*stack, *shape[-outputs:]), (*_stack_axes(stack), *axes[-outputs:]), 0.0) if bias else None

    def __call__(self, x: jax.Array) -> jax.Array:
        # No einsum: it sums over N and H as H and N, and the CPU would reorder the kernel for every token.
        y = jnp.tensordot(x, self.kernel[...], self.inputs)
        return y if self.bias is None else y + self.bias[...]


class MLP(nnx.Module):
    """SwiGLU feed-forward: ``down(silu(gate x) * up x)`` (2002.05202)."""

    def __init__(self, rngs, stack, hidden_size: int, intermediate_size: int, scale: float, bias: bool):
        def inward():
            return Linear(rngs, stack, (hidden_size, intermediate_size), ("embed", "ffw"), 1, scale, bias)

        self.gate, self.up = inward(), inward()
        self.down = Linear(rngs, stack, (intermediate_size, hidden_size), ("ffw", "embed"), 1, scale, bias)

    def __call__(self, x: jax.Array) -> jax.Array:
        inner = jax.nn.silu(self.gate(x)) * self.up(x)
        return self.down(constrain(inner, "batch", "sequence", "activation_ffw"))


def rope_frequencies(head_dim: int, theta: float, scaling: RopeScaling | YarnScaling | None) -> np.ndarray:
    """Rotary frequencies, float32 ``[head_dim / 2]``, changed by ``scaling`` for longer contexts."""
    frequencies = 1.0 / theta ** (np.arange(0, head_dim, 2, dtype=np.float32) / head_dim)
    if scaling is None:
        return frequencies.astype(np.float32)
    rule = _yarn_frequencies if isinstance(scaling, YarnScaling) else _llama3_frequencies
    return rule(frequencies, theta, scaling).astype(np.float32)


def _llama3_frequencies(frequencies: np.ndarray, theta: float, scaling: RopeScaling) -> np.ndarray:
    """Wavelengths under ``original / high_freq_factor`` are kept, those over ``original / low_freq_factor`` are divided by
    ``factor``, and those between are interpolated."""
    turns = scaling.original_max_position_embeddings * frequencies / (2 * math.pi)
    smooth = (turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor)
    smooth = np.clip(smooth, 0.0, 1.0)
    return (1 - smooth) * frequencies / scaling.factor + smooth * frequencies


def _yarn_frequencies(frequencies: np.ndarray, theta: float, scaling: YarnScaling) -> np.ndarray:
    """Frequencies that turn more than ``beta_fast`` times in the original context are kept, those that turn less than
    ``beta_slow`` times are divided by ``factor``, with a ramp over the index between."""
    size = 2 * len(frequencies)

    def index_of(turns: float) -> float:
        return size * math.log(scaling.original_max_position_embeddings / (turns * 2 * math.pi)) / (2 * math.log(theta))

    low = max(math.floor(index_of(scaling.beta_fast)), 0)
    high = min(math.ceil(index_of(scaling.beta_slow)), size - 1)
    ramp = np.clip((np.arange(len(frequencies)) - low) / max(high - low, 1e-3), 0, 1)
    return frequencies / scaling.factor * ramp + frequencies * (1 - ramp)


def yarn_magnitude(factor: float, mscale: float) -> float:
    """``0.1 mscale ln(factor) + 1``; 1 for a factor up to 1."""
    return 0.1 * mscale * math.log(factor) + 1.0 if factor > 1 else 1.0


def rotary_magnitude(scaling: RopeScaling | YarnScaling | None) -> float:
    """What cosines and sines are multiplied by."""
    if not isinstance(scaling, YarnScaling):
        return 1.0
    if scaling.mscale and scaling.mscale_all_dim:
        return yarn_magnitude(scaling.factor, scaling.mscale) / yarn_magnitude(scaling.factor, scaling.mscale_all_dim)
    return yarn_magnitude(scaling.factor, 1.0)


def score_magnitude(scaling: RopeScaling | YarnScaling | None) -> float:
    """What attention scores are multiplied by, besides one over the root of the head's size."""
    if not isinstance(scaling, YarnScaling) or not scaling.mscale_all_dim:
        return 1.0
    return yarn_magnitude(scaling.factor, scaling.mscale_all_dim) ** 2


def rotary(positions: jax.Array, frequencies: np.ndarray, dtype: jnp.dtype) -> tuple[jax.Array, jax.Array]:
    """Cosines and sines ``[B, T, 1, H / 2]`` of ``positions [B, T]`` times ``frequencies [H / 2]``, for all layers."""
    angles = jnp.asarray(positions)[..., None, None].astype(dtype) * jnp.asarray(frequencies, dtype)
    return jnp.cos(angles), jnp.sin(angles)


def apply_rope(x: jax.Array, cos: jax.Array, sin: jax.Array) -> jax.Array:
    """Rotates the two halves of each head of ``x [B, T, N, H]`` (half-split form, as Hugging Face checkpoints expect)."""
    first, second = jnp.split(x.astype(cos.dtype), 2, -1)
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], -1).astype(x.dtype)


def interleaved_rope(x: jax.Array, cos: jax.Array, sin: jax.Array) -> jax.Array:
    """Rotates adjacent pairs of ``x [B, T, N, H]``, as DeepSeek's checkpoints pair them; they come out as two halves. Queries and
    keys are treated alike, so their products are those of pairs rotated in place."""
    wide = x.astype(cos.dtype)
    first, second = wide[..., 0::2], wide[..., 1::2]
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], -1).astype(x.dtype)
