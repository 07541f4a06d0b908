"""The configuration of a model: Hugging Face's names, one spelling, checked."""

from __future__ import annotations

from dataclasses import dataclass

ARCHITECTURES = ("qwen2", "llama")


@dataclass(frozen=True)
class RopeScaling:
    """Llama 3's rule for rotary frequencies beyond the original context."""

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_max_position_embeddings: int


@dataclass(frozen=True)
class ModelConfig:
    """A dense decoder of the Qwen2 or Llama family. Hashable: a static argument of jitted functions.

    Attributes:
      qkv_bias, o_bias, mlp_bias: biases of q/k/v, of the output projection, of the feed-forward.
      rope_scaling: None, or Llama 3's.
      eos_token_ids: every id that ends a sequence (configuration and generation configuration together).
      dtype: the checkpoint's own dtype; what ``export`` writes unless told otherwise.
    """

    architecture: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    rms_norm_eps: float = 1e-6
    rope_theta: float = 10_000.0
    rope_scaling: RopeScaling | None = None
    tie_word_embeddings: bool = False
    qkv_bias: bool = False
    o_bias: bool = False
    mlp_bias: bool = False
    max_position_embeddings: int = 32_768
    initializer_range: float = 0.02
    bos_token_id: int | None = None
    pad_token_id: int | None = None
    eos_token_ids: tuple[int, ...] = ()
    dtype: str = "bfloat16"

    def __post_init__(self):
        if self.architecture not in ARCHITECTURES:
            raise ValueError(f"architecture {self.architecture!r} is not implemented; known: {', '.join(ARCHITECTURES)}")
        if self.num_attention_heads % self.num_key_value_heads:
            raise ValueError(
                f"num_attention_heads {self.num_attention_heads} is not a multiple of num_key_value_heads {self.num_key_value_heads}"
            )
        if self.head_dim % 2:
            raise ValueError(f"head_dim {self.head_dim} must be even: rotary embedding pairs its entries")
