"""The configuration of a model: Hugging Face's names, one spelling, checked."""

from __future__ import annotations

from dataclasses import dataclass

DENSE = ("qwen2", "llama")
# One implementation; the names are those of Hugging Face's model types.
DEEPSEEK = ("deepseek_v2", "deepseek_v3", "kimi_k2")
ARCHITECTURES = (*DENSE, *DEEPSEEK)


@dataclass(frozen=True)
class RopeScaling:
    """Llama 3's rule for rotary frequencies beyond the original context."""

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_max_position_embeddings: int


@dataclass(frozen=True)
class YarnScaling:
    """YaRN (arXiv 2309.00071): slow rotary frequencies are divided by ``factor``, fast ones kept, those between interpolated.

    ``mscale``, ``mscale_all_dim``: cosines and sines are multiplied by ``m(mscale) / m(mscale_all_dim)``, attention scores by
    ``m(mscale_all_dim) ** 2``, with ``m(a) = 0.1 a ln(factor) + 1``. An ``mscale_all_dim`` of 0 leaves scores alone; with either
    at 0, cosines and sines are multiplied by ``m(1)``.
    """

    factor: float
    original_max_position_embeddings: int
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    mscale: float = 1.0
    mscale_all_dim: float = 0.0


@dataclass(frozen=True)
class LatentAttention:
    """Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434 section 2.1). ``q_lora_rank`` None: queries come straight from
    the hidden state."""

    kv_lora_rank: int
    qk_nope_head_dim: int
    qk_rope_head_dim: int
    v_head_dim: int
    q_lora_rank: int | None = None

    def __post_init__(self):
        if self.qk_rope_head_dim % 2:
            raise ValueError(f"qk_rope_head_dim {self.qk_rope_head_dim} must be even: rotary embedding pairs its entries")


@dataclass(frozen=True)
class Experts:
    """DeepSeekMoE (arXiv 2401.06066; 2412.19437 section 2.1.2).

    Attributes:
      first_k_dense_replace: so many leading layers are dense.
      scoring_func: ``sigmoid`` (V3) or ``softmax`` (V2).
      n_group, topk_group: experts are chosen from the best ``topk_group`` of ``n_group`` groups; 1 and 1: from all.
      group_score: of a group: the sum of its best two experts (``top2``, V3) or its best (``max``, V2).
      selection_bias: a bias on the scores for the choice alone (V3's balancing without an auxiliary loss).
      norm_topk_prob: the chosen scores are divided by their sum.
      routed_scaling_factor: and multiplied by this.
      aux_loss_alpha, seq_aux: of the balance loss that the publisher names in config.json, or None. They are handed on by exports
        and not read here: a recipe's ``router.balance`` is the coefficient.
    """

    n_routed_experts: int
    num_experts_per_tok: int
    moe_intermediate_size: int
    n_shared_experts: int = 1
    first_k_dense_replace: int = 0
    scoring_func: str = "sigmoid"
    n_group: int = 1
    topk_group: int = 1
    group_score: str = "top2"
    selection_bias: bool = True
    norm_topk_prob: bool = True
    routed_scaling_factor: float = 1.0
    aux_loss_alpha: float | None = None
    seq_aux: bool | None = None

    def __post_init__(self):
        for name, known in (("scoring_func", ("sigmoid", "softmax")), ("group_score", ("top2", "max"))):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} {getattr(self, name)!r} is not implemented; known: {', '.join(known)}")
        if self.n_routed_experts % self.n_group:
            raise ValueError(f"n_routed_experts {self.n_routed_experts} do not divide into n_group {self.n_group}")
        if self.group_score == "top2" and 1 < self.n_group == self.n_routed_experts:
            raise ValueError(
                f"n_group {self.n_group} leaves one expert to a group, and a group's score is that of its best two"
            )
        if not 1 <= self.topk_group <= self.n_group:
            raise ValueError(f"topk_group {self.topk_group} must lie between 1 and n_group {self.n_group}")
        eligible = self.topk_group * (self.n_routed_experts // self.n_group)
        if not 1 <= self.num_experts_per_tok <= eligible:
            raise ValueError(
                f"num_experts_per_tok {self.num_experts_per_tok} must lie between 1 and {eligible}, the experts in reach"
            )


@dataclass(frozen=True)
class ModelConfig:
    """A decoder of the Qwen2, Llama or DeepSeek family. Hashable: a static argument of jitted functions.

    Attributes:
      qkv_bias, o_bias, mlp_bias: biases of q/k/v, of the output projection, of the feed-forward.
      head_dim: of queries and keys; with ``latent`` the sum of its two parts.
      rope_scaling: None, Llama 3's or YaRN.
      latent, experts: DeepSeek's attention and feed-forward; None in dense models.
      num_nextn_predict_layers: modules of multi-token prediction that the model has.
      num_labels: 1: a reward model, with a scalar head in the place of the vocabulary's; 0: a language model.
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
    rope_scaling: RopeScaling | YarnScaling | None = None
    tie_word_embeddings: bool = False
    qkv_bias: bool = False
    o_bias: bool = False
    mlp_bias: bool = False
    max_position_embeddings: int = 32_768
    initializer_range: float = 0.02
    latent: LatentAttention | None = None
    experts: Experts | None = None
    num_nextn_predict_layers: int = 0
    num_labels: int = 0
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
        name, rotated = (
            ("head_dim", self.head_dim) if self.latent is None else ("qk_rope_head_dim", self.latent.qk_rope_head_dim)
        )
        if rotated % 2:
            raise ValueError(f"{name} {rotated} must be even: rotary embedding pairs its entries")
        if (self.architecture in DEEPSEEK) != (self.latent is not None):
            raise ValueError(f"architecture {self.architecture!r} and latent {self.latent} do not go together")
        if self.num_labels not in (0, 1):
            raise ValueError(f"num_labels {self.num_labels} is not implemented: a scalar head has 1, a language model 0")
        if self.num_labels and self.num_nextn_predict_layers:
            raise ValueError(
                f"num_nextn_predict_layers {self.num_nextn_predict_layers}: a model with a scalar head predicts no tokens; set 0"
            )
        if self.experts is not None and self.latent is None:
            raise ValueError("experts are implemented for the DeepSeek family only")
        if self.experts is not None and self.experts.first_k_dense_replace > self.num_hidden_layers:
            raise ValueError(
                f"first_k_dense_replace {self.experts.first_k_dense_replace} exceeds num_hidden_layers {self.num_hidden_layers}"
            )
