import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from helpers import compiled
from jax.scipy.stats import norm

from ntkflow.kernels.breaks import _owen, piecewise, polynomial_dual
from ntkflow.kernels.dual import dual_activation
from ntkflow.kernels.quadrature import Piecewise, cut_dual


def clip_steep(x):
    return jnp.clip(x, 1, 1.01)


def capped_exp(x):
    return jnp.minimum(jnp.exp(x), 3.0)


def mixed(x):
    return jnp.where(x > 0.3, x**3, jnp.where(x > -1.2, 1 - x * x, 0.5 * x))


def soft_threshold(x):
    return jnp.sign(x) * jax.nn.relu(jnp.abs(x) - 0.5)


def stairs(x):
    return jnp.heaviside(x, 0.5) + 2.0 * (x > -1) + 0.5 * (x >= 1)


POLYNOMIALS = {
    "relu": (jax.nn.relu, (0,)),
    "relu6": (jax.nn.relu6, (0, 6)),
    "hard_tanh": (jax.nn.hard_tanh, (-1, 1)),
    "hard_sigmoid": (jax.nn.hard_sigmoid, (-3, 3)),
    "hard_silu": (jax.nn.hard_silu, (-3, 3)),
    "relu_cubed": (lambda x: jax.nn.relu(x) ** 3, (0,)),
    "sparse_plus": (jax.nn.sparse_plus, (-1, 1)),
    "shifted_relu": (lambda x: jax.nn.relu(x - 0.1), (0.1,)),
    "irrational": (lambda x: jax.nn.relu(x - jnp.pi), (np.pi,)),
    "small": (lambda x: 1e-6 * jax.nn.relu(x + 2), (-2,)),
    "clip_steep": (clip_steep, (1, 1.01)),
    "clip_wide": (lambda x: jnp.clip(x, -100, 100), (-100, 100)),
    "soft_threshold": (soft_threshold, (-0.5, 0.5)),
    "hard_threshold": (lambda x: jnp.where(jnp.abs(x) > 0.5, x, 0), (-0.5, 0.5)),
    "stairs": (stairs, (-1, 0, 1)),
    "mixed": (mixed, (-1.2, 0.3)),
    "line": (lambda x: 2 * x + 1, ()),
}
OTHERS = {
    "elu": (jax.nn.elu, (0,)),
    "selu": (jax.nn.selu, (0,)),
    "soft_sign": (jax.nn.soft_sign, (0,)),
    "capped_exp": (capped_exp, (np.log(3),)),
    "far": (lambda x: jnp.exp(jnp.minimum(x, 12)), (12,)),
    "jump": (lambda x: jnp.where(x > 1, x, jnp.tanh(x)), (1,)),
    "small_jump": (lambda x: jnp.sin(3 * x) + 1e-4 * (x > 0.7), (0.7,)),
    "small_kink": (lambda x: jnp.tanh(x) + 1e-5 * jax.nn.relu(x - 0.3), (0.3,)),
}
SMOOTH = {
    "tanh": jnp.tanh,
    "softplus": jax.nn.softplus,
    "silu": jax.nn.silu,
    "sin": jnp.sin,
    "exp": jnp.exp,
    "sinc": jnp.sinc,
}


@pytest.mark.parametrize("name", POLYNOMIALS | OTHERS)
def test_breaks_are_found_to_rounding(name):
    phi, breaks = (POLYNOMIALS | OTHERS)[name]
    found, is_smooth = piecewise(phi)
    np.testing.assert_allclose(found.breaks, breaks, rtol=4e-16, atol=0)
    assert is_smooth == (name == "line")
    assert (found.pieces is not None) == (name in POLYNOMIALS)


@pytest.mark.quick
def test_polynomials_between_breaks():
    pieces = piecewise(jax.nn.hard_silu)[0].pieces
    expected = [0], [0, 1 / 2, 1 / 6], [0, 1]
    for found, piece in zip(pieces, expected, strict=True):
        np.testing.assert_allclose(found, piece, rtol=1e-14)
    slopes = piecewise(mixed)[0].differentiate(1)
    assert slopes.breaks == (-1.2, 0.3)
    for found, piece in zip(slopes.pieces, ([0.5], [0, -2], [0, 0, 3]), strict=True):
        np.testing.assert_allclose(found, piece, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("name", SMOOTH)
def test_smooth_functions_have_none(name):
    found, is_smooth = piecewise(SMOOTH[name])
    assert found.breaks == ()
    assert is_smooth


def test_single_break_at_0_where_none_can_be_told():
    """Too many; a scale that no series resolves; no values yet."""
    for phi in (jnp.round, lambda x: x - jnp.floor(x), lambda x: jax.nn.softplus(1e9 * x)):
        found, is_smooth = piecewise(phi)
        assert (found.breaks, found.pieces, is_smooth) == ((0.0,), None, False)

    @jax.jit
    def inside(scale):
        assert piecewise(lambda x: jax.nn.relu(scale * x - 1))[0].breaks == (0.0,)
        assert piecewise(jax.nn.hard_tanh)[0].breaks == (-1.0, 1.0)
        return scale

    inside(2.0)


def test_breaks_with_float32_alone():
    with jax.enable_x64(False):
        for name in ("relu6", "hard_silu", "shifted_relu", "stairs", "line"):
            phi, breaks = POLYNOMIALS[name]
            found, _ = piecewise(phi)
            np.testing.assert_allclose(found.breaks, breaks, rtol=1e-6, atol=0)
            assert found.pieces is not None, name
        for name in ("elu", "jump"):
            np.testing.assert_allclose(piecewise(OTHERS[name][0])[0].breaks, OTHERS[name][1])
        for name in ("tanh", "silu"):
            assert piecewise(SMOOTH[name])[1], name


COVARIANCES = [
    *((1.0, 0.4, 0.7), (0.8, -0.9, 1.3), (1.2, 0.0, 0.3), (0.5, 0.5, 0.5), (2.0, -2.0, 2.0)),
    *((1.0, 1 - 1e-6, 1.0), (4.0, 1e-12 - 4, 4.0), (0.09, 0.5, 4.0), (16.0, -9.0, 6.0)),
    *((1.0, 1 - 1e-9, 1 + 1e-9), (0.0, 0.0, 1.0), (0.0, 0.0, 0.0)),
]


@pytest.mark.parametrize("name", ["stairs", "mixed"])
def test_two_rules_agree(name):
    """The closed form and the quadrature, which share nothing."""
    f = piecewise(POLYNOMIALS[name][0])[0]
    points = jnp.array(COVARIANCES).T
    closed, cut = (compiled(rule(f, f, 2))(*points) for rule in (polynomial_dual, cut_dual))
    for exact, other in zip(closed, cut, strict=True):
        size = 1 + jnp.abs(exact)
        if name == "stairs":  # at a jump without variance, quadrature takes one side
            exact, other, size = exact[:-2], other[:-2], size[:-2]
        np.testing.assert_allclose(other / size, exact / size, atol=1e-9)


def test_two_functions_and_their_order():
    f, g = (piecewise(POLYNOMIALS[name][0])[0] for name in ("mixed", "soft_threshold"))
    points = jnp.array(COVARIANCES[:-2]).T
    closed, cut = (compiled(rule(f, g, 1))(*points)[0] for rule in (polynomial_dual, cut_dual))
    np.testing.assert_allclose(cut, closed, rtol=1e-9, atol=1e-9)
    swapped = compiled(polynomial_dual(g, f, 1))(*points[::-1])[0]
    np.testing.assert_allclose(swapped, closed, rtol=1e-12, atol=1e-12)


def test_polynomials_without_breaks_are_isserlis():
    """E[(2u + 1) v²] = k₂₂, E[2·2v] = 0."""
    line, square = (Piecewise(jnp.sin, (), (c,)) for c in ((1.0, 2.0), (0.0, 0.0, 1.0)))
    points = jnp.array(COVARIANCES).T
    value, slopes = jax.jit(polynomial_dual(line, square, 2))(*points)
    np.testing.assert_allclose(value, points[2], rtol=1e-14)
    np.testing.assert_allclose(slopes, 0, atol=1e-14)


def test_too_many_breaks_cost_digits():
    q, steps = np.array([0.25, 1.0]), np.arange(1.0, 9.0)[:, None]
    found = compiled(dual_activation(jnp.round)[0])(q, q, q)
    tails = scipy.special.ndtr((0.5 - steps) / np.sqrt(q))  # Σ k² (sf(k − ½) − sf(k + ½))
    expected = np.sum(2 * (2 * steps - 1) * tails, axis=0)
    assert 0.01 < np.max(np.abs(found / expected - 1)) < 0.05


def test_owens_function(dtype):
    h, a = np.meshgrid(np.geomspace(1e-3, 9, 30), np.append(np.geomspace(1e-3, 1e3, 40), 1))
    h, x = np.asarray(h, dtype), np.asarray(h * a, dtype)
    found = jax.jit(lambda h, x: _owen(h, norm.sf(h), x, norm.sf(x)))(h, x)
    tolerance = 4 * float(np.finfo(dtype).eps)
    np.testing.assert_allclose(found, scipy.special.owens_t(h, x / h), atol=tolerance)


def test_nan_is_refused():
    with pytest.raises(ValueError, match=r"phi or its derivative is NaN at -12\.\d+; expected"):
        piecewise(jnp.log)


def test_is_searched_once_for_a_function_but_not_for_what_closes_over_a_trace():
    calls = []

    def counted(x):
        calls.append(x)
        return jnp.tanh(x)

    first = piecewise(counted)
    searched = len(calls)
    assert piecewise(counted) is first
    assert len(calls) == searched

    def inside(slope):
        scaled = lambda x: jnp.maximum(x, slope * x)  # noqa: E731
        assert piecewise(scaled)[0] is not piecewise(scaled)[0]
        return slope

    jax.jit(inside)(0.2)

    class Unhashable:
        __hash__ = None

        def __call__(self, x):
            return jnp.maximum(x, 1)

    assert piecewise(Unhashable())[0].breaks == (1.0,)
