"""Mutants that no test can tell from the package, and why: they compute the same. Names are ``operators.Mutant``'s."""

_INERT = "stands where nothing is counted: any number will do"
_SAME_AXIS = "of arrays with so many axes this is the same one"
_DEFAULT = "what jax does by itself on a CPU, for these inputs"
_IMPLIED = "the other half of the condition says it already"

EQUIVALENT: dict[str, dict[str, str]] = {
    "advantages.py": {
        "token_returns: 1 -> 2": "of no completion tokens the largest name is below every count either way",
        "token_returns: np.bincount(owner, paid, minlength=len(rewards)) -> np.bincount(owner, paid)": "read at owners only",
        "_centred: 1 -> 2 #3": "a group of one is centred to 0 below",
        "_centred: 2 -> 0": _IMPLIED,
        "_std: 0.0 -> 1.0": "of fewer than two values, all are centred to 0",
    },
    "weights.py": {
        "token_weights: 1 -> 2 #2": "of no tokens the largest name is below every count either way",
        "token_weights: False -> True": _INERT,
        "token_weights: np.bincount(of_token, minlength=len(sequences)) -> np.bincount(of_token)": "every name occurs",
    },
    "router.py": {
        "sequence_balance_loss: 0 -> 1": "the shape of any expert's scores",
        "sequence_balance_loss: 1 -> 2 #3": _INERT,
        "sequence_balance_loss: 1 -> 0 #3": _INERT,
        "sequence_balance_loss: 1 -> 2 #5": "divides scores of 0",
        "sequence_balance_loss: jax.nn.one_hot(experts, total, dtype=shares.dtype) -> jax.nn.one_hot(experts, total)": _DEFAULT,
        "sequence_balance_loss: -2 -> 2": _SAME_AXIS,
        "sequence_balance_loss: jax.lax.stop_gradient(load) -> load": "counts of choices have no gradient",
        "expert_load: jax.nn.one_hot(experts, total, dtype=jnp.float32) -> jax.nn.one_hot(experts, total)": _DEFAULT,
        "expert_load: jnp.einsum('BTKE,BT->E', chosen, jnp.asarray(counted, jnp.float32), "
        "precision=jax.lax.Precision.HIGHEST) -> jnp.einsum('BTKE,BT->E', chosen, jnp.asarray(counted, jnp.float32))": _DEFAULT,
    },
    "distillation.py": {
        "generalised_js: 0 -> 1 #2": _INERT,
        "generalised_js: jnp.where(possible, x, -jnp.inf) -> x": "both 1 there, and their mixture: a term of 0 to rounding",
        "logit_distillation_loss: 0 -> 1 #2": "the shape of any logit",
        "logit_distillation_loss.log_probabilities: 0 -> 1": _INERT,
        "logit_distillation_loss: 0 -> 1 #4": "times the probability, 0",
    },
    "sequences.py": {
        "sequence_mean: sequence_sum(jnp.ones_like(values), counted, sequence_index) -> "
        "sequence_sum(counted, jnp.ones_like(values), sequence_index)": "the count of ones among the counted, or of the counted",
    },
    "policy/kl.py": {
        "k2: log_ratio(ref_logprobs, logprobs) -> log_ratio(logprobs, ref_logprobs)": "it is squared",
        "module: k2(new, ref) -> k2(ref, new)": "it is squared",
    },
    "policy/surrogate.py": {
        "dual_clipped_surrogate: ratio > cap -> ratio >= cap": "at the cap both are the same number",
        "sapo_surrogate: advantages > 0 -> advantages >= 0": "with an advantage of 0 the objective is 0",
    },
}
