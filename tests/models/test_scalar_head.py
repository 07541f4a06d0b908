"""The scalar head: what it reads, how it begins, and that a reward model is no language model."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from r1jax import models, sharding
from r1jax.models import ModelConfig
from r1jax.models.published import PUBLISHED

DENSE = ModelConfig("qwen2", 64, 16, 48, 2, 4, 2, 4, qkv_bias=True, initializer_range=0.05)
V3 = dataclasses.replace(PUBLISHED["tiny-deepseek-v3"].config, num_nextn_predict_layers=0)


@pytest.mark.parametrize("config", [DENSE, dataclasses.replace(DENSE, tie_word_embeddings=True), V3])
def test_the_head_stands_where_the_vocabulary_s_did(config):
    scored = dataclasses.replace(config, num_labels=1)
    before, after = models.abstract_params(config), models.abstract_params(scored)
    assert after.pop("score")["kernel"].shape == (config.hidden_size, 1)
    before.pop("head", None)
    assert jax.tree.map(lambda x: x.shape, before) == jax.tree.map(lambda x: x.shape, after)
    assert models.logical_axes(scored)["score"]["kernel"] == ("embed", None)
    head = models.init_scalar_head(
        scored, jax.random.key(3), sharding.layout(sharding.make_mesh(1, 4, 2), sharding.TRAIN_RULES)
    )
    kernel = head["score"]["kernel"]
    assert kernel.sharding.spec == sharding.layout(sharding.make_mesh(1, 4, 2), sharding.TRAIN_RULES).spec(("embed", None))
    assert 0.3 * config.initializer_range < np.asarray(kernel).std() < 2 * config.initializer_range


def test_scores_are_the_projection_in_float32_whatever_the_states():
    rng = np.random.default_rng(0)
    config = dataclasses.replace(DENSE, num_labels=1)
    hidden, kernel = rng.normal(size=(2, 5, 16)), rng.normal(size=(16, 1)).astype(np.float32)
    params = {"score": {"kernel": kernel}}
    found = models.token_scores(config, params, jnp.asarray(hidden, jnp.bfloat16))
    assert found.dtype == jnp.float32 and found.shape == (2, 5)
    exact = np.asarray(jnp.asarray(hidden, jnp.bfloat16), np.float64) @ kernel.astype(np.float64)
    np.testing.assert_allclose(found, exact[..., 0], rtol=1e-5, atol=1e-6)  # sums of 16 products in float32


def test_a_reward_model_and_a_language_model_are_told_apart():
    with pytest.raises(ValueError, match="reward model: its scalar head gives a score and no tokens"):
        models.head_weight(dataclasses.replace(DENSE, num_labels=1), {})
    with pytest.raises(ValueError, match="no scalar head: it is a language model"):
        models.token_scores(DENSE, {}, jnp.zeros((1, 1, 16)))
    with pytest.raises(ValueError, match="num_labels 2 is not implemented"):
        dataclasses.replace(DENSE, num_labels=2)
    with pytest.raises(ValueError, match="num_nextn_predict_layers 1: a model with a scalar head predicts no tokens"):
        dataclasses.replace(PUBLISHED["tiny-deepseek-v3"].config, num_labels=1)
