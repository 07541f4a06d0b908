"""Training: the state, the optimizer, and the compiled steps that GRPO, SFT and reward models share."""

from r1jax.training.auxiliary import AuxiliaryLoss, PredictAhead, no_auxiliary_loss, router_loss
from r1jax.training.optimizer import Optimizer, learning_rate, make_optimizer
from r1jax.training.scores import ScoreLoss, ScoreMicroStep, pairwise_score_loss, pointwise_score_loss
from r1jax.training.state import TrainState, abstract_state, copy_params, init_state, state_shardings
from r1jax.training.steps import (
    ApplyStep,
    GradientStep,
    LossStep,
    MicroStep,
    TokenLoss,
    ZeroGrads,
    grpo_token_loss,
    sft_token_loss,
)

__all__ = [
    "ApplyStep",
    "AuxiliaryLoss",
    "GradientStep",
    "LossStep",
    "MicroStep",
    "Optimizer",
    "PredictAhead",
    "ScoreLoss",
    "ScoreMicroStep",
    "TokenLoss",
    "TrainState",
    "ZeroGrads",
    "abstract_state",
    "copy_params",
    "grpo_token_loss",
    "init_state",
    "learning_rate",
    "make_optimizer",
    "no_auxiliary_loss",
    "pairwise_score_loss",
    "pointwise_score_loss",
    "router_loss",
    "sft_token_loss",
    "state_shardings",
]
