"""Finite differences of a function of which jax has a gradient, with what stands under a stop-gradient held still."""

from __future__ import annotations

from collections.abc import Callable

import jax
import numpy as np
from jax.extend import core

# What only calls a body: looked into for stop-gradients. Derivatives of one's own are not looked at, that is the point.
_CALLS = ("jit", "pjit", "closed_call", "checkpoint", "remat2", "custom_jvp_call", "custom_vjp_call")
_BODIES = ("jaxpr", "call_jaxpr", "fun_jaxpr")


class _Held:
    """The values of stop-gradients in the order in which they are met: recorded once, then read again."""

    def __init__(self):
        self.values, self.next, self.recording = [], 0, True

    def meet(self, value):
        if self.recording:
            self.values.append(value)
            return value
        self.next += 1
        return self.values[self.next - 1]


def _evaluate(jaxpr, constants, arguments, held: _Held):
    environment = dict(zip(jaxpr.constvars, constants)) | dict(zip(jaxpr.invars, arguments))

    def read(atom):
        return atom.val if isinstance(atom, core.Literal) else environment[atom]

    for equation in jaxpr.eqns:
        values = [read(atom) for atom in equation.invars]
        inner = next((equation.params[name] for name in _BODIES if name in equation.params), None)
        if equation.primitive.name == "stop_gradient":
            out = [held.meet(values[0])]
        elif equation.primitive.name in _CALLS and inner is not None:
            out = _evaluate(getattr(inner, "jaxpr", inner), getattr(inner, "consts", ()), values, held)
        else:
            out = equation.primitive.bind(*values, **equation.params)
            out = out if equation.primitive.multiple_results else [out]
        environment.update(zip(equation.outvars, out))
    return [read(atom) for atom in jaxpr.outvars]


def central_difference(function: Callable, x, places, step: float = 1e-3) -> list[float | None]:
    """Slopes of a scalar function at some entries of x; None where a kink lies within a step."""
    closed = jax.make_jaxpr(function)(x)
    held = _Held()

    def value(x) -> float:
        held.next = 0
        return float(_evaluate(closed.jaxpr, closed.consts, [x], held)[0])

    here = value(x)
    held.recording = False
    slopes = []
    for place in places:
        right, left = ((value(x.at[place].add(sign * step)) - here) / (sign * step) for sign in (1, -1))
        smooth = abs(right - left) <= 20 * step * max(abs(right), abs(left), 1e-6)
        slopes.append((right + left) / 2 if smooth and np.isfinite(right) and np.isfinite(left) else None)
    return slopes
