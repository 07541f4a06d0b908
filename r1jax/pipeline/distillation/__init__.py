"""On-policy distillation: ``kind: on_policy_distillation``. (Distillation by a teacher's text is ``kind: sft``.)"""

from r1jax.pipeline.distillation.stage import OnPolicyDistillationStage

__all__ = ["OnPolicyDistillationStage"]
