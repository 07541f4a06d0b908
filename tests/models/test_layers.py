"""Rotary positions and norms against scalar formulas."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from r1jax.models import RopeScaling
from r1jax.models.layers import apply_rope, rope_frequencies, rotary


def test_frequencies_are_powers_of_theta():
    np.testing.assert_allclose(rope_frequencies(4, 100.0, None), [1.0, 0.1], rtol=1e-6)


def test_llama3_scaling_keeps_short_waves_divides_long_ones_and_blends_between():
    scaling = RopeScaling(factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=64)
    plain = rope_frequencies(32, 10_000.0, None).astype(float)
    scaled = rope_frequencies(32, 10_000.0, scaling)
    kinds = set()
    for before, after in zip(plain, scaled):
        wavelength = 2 * math.pi / before
        if wavelength < 64 / 4:
            expected, kind = before, "short"
        elif wavelength > 64 / 1:
            expected, kind = before / 8, "long"
        else:
            blend = (64 / wavelength - 1) / (4 - 1)
            expected, kind = (1 - blend) * before / 8 + blend * before, "between"
        kinds.add(kind)
        assert after == pytest.approx(expected, rel=1e-5)
    assert kinds == {"short", "long", "between"}


def test_rope_rotates_the_pair_of_halves_by_position_times_frequency():
    x = np.random.default_rng(0).normal(size=(1, 3, 2, 6))
    positions = np.array([[0, 5, 2]])
    frequencies = rope_frequencies(6, 50.0, None)
    with jax.enable_x64(True):
        found = np.asarray(apply_rope(jnp.asarray(x), *rotary(positions, frequencies, jnp.float64)))
    for t, position in enumerate(positions[0]):
        for j, frequency in enumerate(frequencies.astype(float)):
            pair = x[0, t, :, j] + 1j * x[0, t, :, j + 3]
            turned = pair * np.exp(1j * position * frequency)
            np.testing.assert_allclose(found[0, t, :, j], turned.real, atol=1e-12)
            np.testing.assert_allclose(found[0, t, :, j + 3], turned.imag, atol=1e-12)
