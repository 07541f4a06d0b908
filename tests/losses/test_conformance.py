"""The laws of policy losses, and the published algorithms' values: for the package, or for a loss of one's own.

    python -m pytest tests/losses/test_conformance.py --loss my_package.losses:my_loss [--algorithm gspo]
    python -m pytest tests/losses/test_conformance.py --surrogate my_package.losses:my_surrogate

``--loss`` has the signature of ``grpo_loss``: ``(logprobs, old_logprobs, advantages, token_weight, *, ref_logprobs,
sampler_logprobs, sequence_index, entropy)``, of the keywords those that it wants, and gives the loss or ``(loss, metrics)``.
Without ``--algorithm`` the laws alone are checked. ``--numbers kl_coefficient=0.1`` changes the algorithm's numbers.
"""

import functools
import importlib
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from losskit import checks, laws, oracle_policy
from losskit.algorithms import ALGORITHMS
from losskit.ownloss import WRONG, own_grpo, own_gspo

# What reads everything. Each case is a dozen compilations: one is enough for the fast layer.
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
OWN = "own"


def pytest_generate_tests(metafunc):
    if "case" in metafunc.fixturenames:
        options = [metafunc.config.getoption(name, default=None) for name in ("--loss", "--surrogate")]
        for place in filter(None, options):
            named(place)
        slow = [pytest.param(name, marks=pytest.mark.slow) for name in ("composed", *ALGORITHMS) if name != "grpo"]
        metafunc.parametrize("case", [OWN] if any(options) else ["grpo", *slow], scope="module")


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
    message = None
    try:
        laws.check(law, subject)
    except laws.LawBroken as broken:
        message = str(broken)
    if message:
        pytest.fail(message, pytrace=False)


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
    message = None
    try:
        for seed in (3, 4, 5):
            checks.values(subject, algorithm, composition, seed)
    except AssertionError as wrong:
        message = str(wrong)
    if message:
        pytest.fail(message, pytrace=False)


# ------------------------------------------------------------------------------------------------ the kit itself
@pytest.mark.parametrize("loss", [own_grpo, pytest.param(own_gspo, marks=pytest.mark.slow)])
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


@pytest.mark.slow
def test_the_command_for_a_loss_of_one_s_own(tmp_path):
    """As the README gives it, in a process of its own: a right loss passes, a wrong one is told which law it breaks."""
    (tmp_path / "my_losses.py").write_text(
        "import jax.numpy as jnp\n"
        "from r1jax.losses import PolicyLoss, grpo_loss\n"
        "def right(logprobs, old_logprobs, advantages, token_weight, *, ref_logprobs, sequence_index=None):\n"
        "    config = PolicyLoss(kl='k3', kl_coefficient=0.04)\n"
        "    return grpo_loss(logprobs, old_logprobs, advantages, token_weight, ref_logprobs=ref_logprobs, config=config)\n"
        "def wrong(logprobs, old_logprobs, advantages, token_weight):\n"
        "    mask = token_weight > 0\n"
        "    return -(jnp.exp(logprobs - old_logprobs) * advantages * mask).sum() / mask.sum()\n"
        "def gentle(ratio, tokens, config):\n"
        "    return (1 + jnp.tanh(ratio - 1)) * tokens.advantages, jnp.zeros(ratio.shape, bool)\n"
    )

    def run(*options):
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__, *options]
        root = Path(__file__).parents[2]
        path = os.pathsep.join(filter(None, (str(tmp_path), os.environ.get("PYTHONPATH"))))
        done = subprocess.run(command, capture_output=True, text=True, cwd=root, env={**os.environ, "PYTHONPATH": path})
        return done.returncode, done.stdout + done.stderr

    code, words = run("--loss", "my_losses:right", "--algorithm", "grpo")
    assert code == 0 and f"{len(laws.LAWS) + 1} passed" in words, words
    code, words = run("--loss", "my_losses:wrong")
    assert code == 1 and "law 'weights' is broken" in words and "law 'padding' is broken" in words, words
    code, words = run("--loss", "my_losses:right", "--algorithm", "dapo")
    assert code == 1 and "is not dapo's" in words and "1 failed" in words, words
    code, words = run("--surrogate", "my_losses:gentle")
    assert code == 0, words
    code, words = run("--loss", "my_losses:none")
    assert code not in (0, 1) and "is no package.module:function" in words, words
