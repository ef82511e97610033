"""Widths and step sizes of Theorems 3.1–3.3: how they scale, as printed and by the proofs."""

import jax
import numpy as np
import pytest

from ntkflow.systems.deep.requirements import (
    error_growth,
    initial_gram_width,
    required_step_size,
    required_width,
)

NAMES = ["fully_connected", "resnet", "convolutional_resnet"]


def slope(function, points):
    values = [float(function(point).value) for point in points]
    return np.diff(np.log(values)) / np.diff(np.log(points))


@pytest.mark.quick
@pytest.mark.parametrize("name", NAMES)
def test_slopes_where_the_first_term_decides(name):
    width = lambda n=10**4, l=1e-4, d=0.1: required_width(name, n, 4, l, d)  # noqa: E731
    np.testing.assert_allclose(slope(lambda n: width(n=n), [10**4, 10**5]), 4)
    np.testing.assert_allclose(slope(lambda l: width(l=l), [1e-5, 1e-4]), -4)
    step = lambda n, l: required_step_size(name, n, 4, l)  # noqa: E731
    np.testing.assert_allclose(slope(lambda n: step(n, 0.1), [10, 100]), -2)
    np.testing.assert_allclose(slope(lambda l: step(10, l), [0.1, 0.2]), 1)


@pytest.mark.parametrize("name", NAMES)
def test_every_term_decides_somewhere(name):
    """n/δ for small δ; n² log(Hn/δ)/λ_0² between, where λ_0 is near 1 and H large or n small."""
    assert required_width(name, 1, 1, 1.0, 1e-9, exponent=0.0).value == pytest.approx(1e9)
    n, depth, lambda_0, delta = 1, 40, 1.0, 0.9
    expected = np.log(depth * n / delta)
    value = required_width(name, n, depth, lambda_0, delta, exponent=0.0).value
    np.testing.assert_allclose(value, expected)
    np.testing.assert_allclose(
        initial_gram_width(name, n, depth, lambda_0, delta, exponent=0.0).value, expected
    )


def test_depth_is_exponential_or_polynomial():
    depths = np.array([4, 8, 16, 32])
    plain = required_width("fully_connected", 100, depths, 0.01, 0.1, exponent=3.0).value
    np.testing.assert_allclose(np.diff(np.log2(plain)), 3 * np.diff(depths))
    # λ_0 ~ 1/H² (Proposition 3.2): H⁴ by the proof, H² as printed.
    for name in NAMES[1:]:
        for printed, order in ((False, 4), (True, 2 if name == "resnet" else 6)):
            widths = required_width(
                name, 100, depths, 0.01 / depths**2, 0.1, pixels=3, printed=printed
            ).value
            np.testing.assert_allclose(np.diff(np.log2(widths)), order)
        for printed, order in ((False, -2), (True, 0)):
            steps = required_step_size(name, 9, depths, 0.1 / depths**2, printed=printed).value
            np.testing.assert_allclose(np.diff(np.log2(steps)), order)
    steps = required_step_size("fully_connected", 9, depths, 0.1).value
    np.testing.assert_allclose(np.diff(np.log2(steps)), -np.diff(depths))
    assert required_width("fully_connected", 2, 10**4, 0.1, 0.1).value == np.inf
    assert required_step_size("fully_connected", 2, 10**4, 0.1).value == 0


def test_pixels_count_for_the_convolution_alone():
    for name, power in zip(NAMES, (0, 0, 3), strict=True):
        a, b = (required_width(name, 9, 4, 0.1, 0.1, pixels=p, degree=3.0).value for p in (2, 4))
        np.testing.assert_allclose(b / a, 2**power)
        a, b = (required_step_size(name, 9, 4, 0.1, pixels=p, degree=3.0).value for p in (2, 4))
        np.testing.assert_allclose(a / b, 2**power)
    a, b = (initial_gram_width("convolutional_resnet", 9, 4, 0.1, 0.1, pixels=p) for p in (2, 4))
    np.testing.assert_allclose(b.value / a.value, 4)


def test_errors_grow_exponentially_or_stay():
    depths = np.arange(1, 200)
    growth = error_growth("resnet", depths, constant=1.5).value
    assert (np.diff(growth) > 0).all()
    assert growth[-1] < np.exp(1.5) < 1.01 * growth[-1]
    np.testing.assert_allclose(
        error_growth("fully_connected", depths, constant=1.5).value, 2 ** (1.5 * depths)
    )


def test_formulas_say_what_was_computed():
    bound = required_width("resnet", 3, 2, 0.1, 0.1)
    assert bound.formula == "m = Ω(max{n⁴/(λ_0⁴ H⁴), n²/λ_0², n/δ, n² log(Hn/δ)/λ_0²})"
    assert "Theorem 3.2" in bound.source
    assert "printed H⁶" in bound.source
    printed = required_width("convolutional_resnet", 3, 2, 0.1, 0.1, printed=True)
    assert printed.formula.startswith("m = Ω(poly(p) max{n⁴/(λ_0⁴ H⁶), n⁴/(λ_0⁴ H²)")
    assert required_step_size("resnet", 3, 2, 0.1).formula == "η = O(λ_0 / n²)"
    step = required_step_size("convolutional_resnet", 3, 2, 0.1, printed=True)
    assert step.formula == "η = O(λ_0 H² / (n² poly(p)))"


def test_arrays_broadcast_and_traces_pass():
    widths = required_width("resnet", np.array([[3], [3000]]), np.array([2, 4, 8]), 0.1, 0.1)
    assert widths.value.shape == (2, 3)
    np.testing.assert_allclose(widths.value[1, 0], 3000.0**4 / 1e-4 / 16)
    compute = lambda n, l, d: (  # noqa: E731
        required_width("fully_connected", n, 3, l, d).value,
        required_step_size("resnet", n, 3, l, printed=True).value,
    )
    arguments = (3.0, 0.25, 0.1)
    np.testing.assert_allclose(jax.jit(compute)(*arguments), compute(*arguments), rtol=1e-12)


@pytest.mark.parametrize(
    ("function", "arguments", "message"),
    [
        (required_width, ("mlp", 3, 2, 0.1, 0.1), r"architecture is 'mlp'; .*'resnet'"),
        (required_width, ("resnet", 0, 2, 0.1, 0.1), "n is 0"),
        (required_width, ("resnet", 3, 2, 0.0, 0.1), "lambda_0 is 0.0"),
        (required_step_size, ("resnet", 3, 1.5, 0.1), "depth is 1.5"),
        (initial_gram_width, ("resnet", 3, 2, 0.1, 0.0), "delta is 0.0"),
        (error_growth, ("resnet", 0), "depth is 0"),
    ],
)
def test_bad_arguments_are_refused(function, arguments, message):
    with pytest.raises(ValueError, match=message):
        function(*arguments)
