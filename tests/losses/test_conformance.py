"""The laws of policy losses, and the published algorithms' values: for the package, or for a loss of one's own.

    python -m pytest tests/losses/test_conformance.py --loss my_package.losses:my_loss [--algorithm gspo]
    python -m pytest tests/losses/test_conformance.py --surrogate my_package.losses:my_surrogate

``--loss`` has the signature of ``grpo_loss``: ``(logprobs, old_logprobs, advantages, token_weight, *, ref_logprobs,
sampler_logprobs, sequence_index, entropy)``, of the keywords those that it wants, and gives the loss or ``(loss, metrics)``.
Without ``--algorithm`` the laws alone are checked. ``--numbers kl_coefficient=0.1`` changes the algorithm's numbers.
"""

import functools
import importlib

import jax
import numpy as np
import pytest
from losskit import checks, laws, oracle_policy
from losskit.algorithms import ALGORITHMS
from losskit.ownloss import WRONG, own_grpo, own_gspo

# Two that read everything are enough for the fast layer: each is a dozen compilations.
COMPOSED = {
    **checks.NUMBERS,
    "ratio": "sequence",
    "surrogate": "dual_clip",
    "correction": "mask",
    "correction_level": "geometric",
    "kl": "k3_unbiased",
    "off_policy_delta": 0.15,
    "entropy_coefficient": 0.1,
}
OWN = "the loss of --loss or --surrogate"


def pytest_generate_tests(metafunc):
    if "case" in metafunc.fixturenames:
        options = [metafunc.config.getoption(name, default=None) for name in ("--loss", "--surrogate")]
        slow = [pytest.param(name, marks=pytest.mark.slow) for name in ALGORITHMS if name != "grpo"]
        metafunc.parametrize("case", [OWN] if any(options) else ["grpo", "composed", *slow], scope="module")


def named(place: str):
    """``package.module:function``."""
    module, _, name = place.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise pytest.UsageError(f"{place!r} is no package.module:function that can be imported: {error}") from error


@pytest.fixture(scope="module")
def subject(case, request, losses):
    option = functools.partial(request.config.getoption, default=None)
    if case == OWN and option("--loss"):
        return laws.Subject(named(option("--loss")))
    if case == OWN:
        composition, rule = {"surrogate": named(option("--surrogate")), "kl": "none"}, "sequence_mean"
    else:
        composition, rule = (COMPOSED, "token_mean") if case == "composed" else ALGORITHMS[case]
    return laws.Subject(functools.partial(losses.grpo_loss, config=losses.PolicyLoss(**composition)), rule=rule)


@pytest.mark.parametrize("law", laws.LAWS)
def test_law(subject, law):
    try:
        laws.check(law, subject)
    except laws.LawBroken as broken:
        pytest.fail(str(broken), pytrace=False)


def test_values(case, request, subject):
    """Loss and gradient are the named algorithm's, to 1e-6 of the sum of weighted token losses and of the norm."""
    option = functools.partial(request.config.getoption, default=None)
    algorithm = option("--algorithm") if case == OWN else case
    if algorithm is None:
        pytest.skip("no --algorithm: the laws alone are checked")
    if algorithm != "composed" and algorithm not in ALGORITHMS:
        raise pytest.UsageError(f"--algorithm {algorithm!r} is unknown; known: {', '.join(ALGORITHMS)}")
    composition = COMPOSED if algorithm == "composed" else ALGORITHMS[algorithm][0]
    for pair in filter(None, (option("--numbers") or "").split(",")):
        name, _, value = pair.partition("=")
        if not isinstance(oracle_policy.DEFAULTS.get(name), float):
            raise pytest.UsageError(f"--numbers {pair!r}: {name!r} is no number of a policy loss")
        composition = {**composition, name: float(value)}
    for seed in (3, 4, 5):
        try:
            checks.values(laws.Subject(subject.function, seed=seed), algorithm, composition)
        except AssertionError as wrong:
            pytest.fail(str(wrong), pytrace=False)


# ------------------------------------------------------------------------------------------------ the kit itself
@pytest.mark.parametrize("loss", [own_grpo, own_gspo])
@pytest.mark.parametrize("rule", [pytest.param("sequence_mean"), pytest.param("constant_length", marks=pytest.mark.slow)])
def test_a_loss_written_elsewhere_keeps_the_laws(loss, rule):
    subject = laws.Subject(loss, rule=rule)
    for law in laws.LAWS:
        laws.check(law, subject)


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_loss_breaks_the_law_that_it_is_against(what):
    loss, expected = WRONG[what]
    subject, broken = laws.Subject(loss), set()
    for law in expected:
        try:
            laws.check(law, subject)
        except laws.LawBroken as error:
            broken.add(error.law)
    assert broken == expected


def test_a_wrong_number_is_told_from_the_algorithm_s():
    subject = laws.Subject(own_grpo)
    checks.values(subject, "grpo", ALGORITHMS["grpo"][0])
    with pytest.raises(AssertionError, match="not grpo's.*kl_coefficient=0.05"):
        checks.values(subject, "grpo", {**ALGORITHMS["grpo"][0], "kl_coefficient": 0.05})
    with pytest.raises(AssertionError, match="not gspo's"):
        checks.values(subject, "gspo", ALGORITHMS["gspo"][0])


def test_frozen_differences_hold_what_a_stop_gradient_stops():
    def f(x):
        return jax.numpy.sum(jax.lax.stop_gradient(x) * jax.jit(lambda y: y**2 * jax.lax.stop_gradient(y))(x))

    from losskit.frozen import central_difference

    with jax.enable_x64(True):
        x = jax.numpy.asarray([2.0, 3.0])
        np.testing.assert_allclose(central_difference(f, x, [(0,), (1,)]), jax.grad(f)(x), rtol=1e-5)
        assert central_difference(lambda x: jax.numpy.abs(x).sum(), 0 * x, [(0,)]) == [None]
