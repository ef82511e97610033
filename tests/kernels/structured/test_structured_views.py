"""What is known of how an array shows a parameter: its entries, and what two have in common."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ntkflow.kernels.jaxprs import Variable, trace
from ntkflow.kernels.structured import views

SHAPE = (4, 6)
REARRANGED = {
    "as it is": lambda w: w * 1.0,
    "transposed": lambda w: w.T,
    "a part": lambda w: w[1:3, ::2],
    "a row": lambda w: w[2],
    "a part of a part": lambda w: w[1:, 1::2][::2, 1:],
    "flat": lambda w: w.reshape(-1),
    "cut": lambda w: w.reshape(4, 2, 3).transpose(1, 0, 2),
    "a part, flat": lambda w: w[1:3, :2].reshape(4),
    "reversed": lambda w: w[::-1],
    "repeated": lambda w: jnp.broadcast_to(w[:1], (5, 6)),
    "scaled": lambda w: -0.5 * w / 4,
}


def view_of(function):
    program = trace(function, jax.ShapeDtypeStruct(SHAPE, "float64"))
    seen = {program.inputs[0]: (views.whole(0, SHAPE),)}
    for equation in program.equations:
        operands = [seen.get(a) if isinstance(a, Variable) else None for a in equation.inputs]
        seen[equation.outputs[0]] = views.follow(equation, operands, {})
    return seen[program.outputs[0]]


def shown(view, source):
    """The entries of the source in the shape of its ranges, without their axes' order."""
    index = [np.arange(start, start + n * step, step) for start, n, step in view.ranges]
    return source[np.ix_(*index)]


@pytest.mark.quick
@pytest.mark.parametrize("name", REARRANGED)
def test_a_view_names_the_entries_that_are_shown(name):
    function = REARRANGED[name]
    (view,) = view_of(function)
    w = np.arange(1.0, 25).reshape(SHAPE)
    actual = np.asarray(function(jnp.asarray(w)))
    scale = np.prod([float(s.atom.value) ** (-1 if s.inverse else 1) for s in view.scales])
    source = w
    for _, ranges, axes, (change, argument) in view.source.history:
        part = shown(view._replace(ranges=ranges), source)
        order = [axis for axis in axes if axis is not None]
        rest = [axis for axis in range(part.ndim) if axis not in order]  # of length 1
        part = part.transpose(order + rest)
        part = part.reshape(part.shape[: len(order)])
        source = part.reshape(argument) if change == "reshape" else np.flip(part, argument)
    assert source.shape == view.source.shape
    found = shown(view, source)
    lengths = [1 if axis is None else view.shown[axis] for axis in view.axes]
    order = [axis for axis in view.axes if axis is not None]
    rest = [axis for axis in range(found.ndim) if axis not in order]
    found = found.transpose(order + rest).reshape(lengths)
    np.testing.assert_allclose(np.broadcast_to(scale * found, actual.shape), actual)


def test_what_is_no_rearrangement_is_no_view():
    for function in (jnp.exp, lambda w: w * w, lambda w: w.sum(0), lambda w: jnp.tile(w, 2)):
        assert view_of(function) is None
    assert view_of(jax.lax.stop_gradient) == ()
    assert len(view_of(lambda w: w[:4, :4] + 2 * w[:4, :4].T)) == 2


PARTS = {  # the entries of SHAPE that are shown, and what is known of pairs
    "all": lambda w: w * 1.0,
    "top": lambda w: w[:2],
    "bottom": lambda w: w[2:],
    "even": lambda w: w[::2],
    "odd": lambda w: w[1::2],
    "flat top": lambda w: w[:2].reshape(-1),
    "flat bottom": lambda w: w[2:].reshape(-1),
    "end of flat top": lambda w: w[:2].reshape(-1)[6:],
    "start of flat top": lambda w: w[:2].reshape(-1)[:6],
    "flat": lambda w: w.reshape(-1),
}


def test_overlap_of_two_views_is_never_wrong():
    numbers = jnp.arange(24).reshape(SHAPE)
    entries = {name: set(np.ravel(part(numbers)).tolist()) for name, part in PARTS.items()}
    found = {}
    for one, f in PARTS.items():
        for two, g in PARTS.items():
            (a,), (b,) = view_of(f), view_of(g)
            found[one, two] = views.overlap(a, b)
            if found[one, two] is False:
                assert not entries[one] & entries[two], (one, two)
            if found[one, two] is True:
                assert entries[one] == entries[two], (one, two)
    assert found["top", "bottom"] is found["even", "odd"] is False
    assert found["flat top", "flat bottom"] is found["top", "flat bottom"] is False
    assert found["end of flat top", "start of flat top"] is False
    assert found["all", "all"] is found["flat top", "flat top"] is True
    assert found["all", "top"] is found["flat", "all"] is None
