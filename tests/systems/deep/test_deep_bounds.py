"""Lemmas 3.3, 3.4, 3.10, 3.11, 3.17 and 3.18, held against networks moved within the radius."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import compiled
from plain_networks import CASES, SOFTPLUS, Activation, Network, case, directions, held_against

from ntkflow.systems.deep import (
    fully_connected_bounds as plain,
    initialization_bounds as initial,
    last_gram_bounds as last,
    residual_bounds as residual,
)
from ntkflow.systems.deep.activations import ActivationConstants
from ntkflow.systems.deep.constants import InitialNorms, Patches, geometric_series
from ntkflow.systems.deep.networks import ConvolutionalResNet, FullyConnected
from ntkflow.systems.deep.requirements import required_step_size, required_width


@pytest.mark.parametrize("name", ["plain", "convolution"])
def test_the_plain_networks_are_those_of_the_library(name):
    network, x = CASES[name].network, CASES[name].x
    params = {f"layer_{h + 1}": jnp.asarray(w) for h, w in enumerate(network.weights)}
    if name == "plain":
        module = FullyConnected(network.m, network.depth)
        params["output"], data = jnp.asarray(network.output[0]), jnp.asarray(x[:, 0])
    else:
        module = ConvolutionalResNet(network.m, network.depth, residual=0.5, filter_size=3)
        params = {layer: w.reshape(3, -1, network.m) for layer, w in params.items()}
        params["output"], data = jnp.asarray(network.output), jnp.asarray(x)
    first = lambda p: module.apply({"params": p}, data)[0]  # noqa: E731
    value, gradient = jax.device_get(compiled(jax.value_and_grad(first))(params))
    np.testing.assert_allclose(value, network.predict(x)[0], rtol=1e-7)
    for part, leaf in zip(network.jacobians(x), sorted(gradient), strict=True):
        np.testing.assert_allclose(part[0], gradient[leaf].ravel(), rtol=1e-6, atol=1e-9)


# Lemmas 3.3, 3.10, 3.17 and 3.4, 3.11, 3.18.


@pytest.mark.quick
@pytest.mark.parametrize("name", CASES)
def test_features_and_gram_matrices_stay_within_the_bounds(name):
    network, x = CASES[name].network, CASES[name].x
    before, gram = network.forward(x)[0], network.last_gram(x)
    for share in (1.0, 0.1, 1e-4):
        radius = share * CASES[name].admissible
        for direction in directions(network, x):
            moved = network.moved([radius * part for part in direction])
            after = moved.forward(x)[0]
            for layer in range(1, network.depth + 1):
                change = (after[layer] - before[layer]).reshape(len(x), -1)
                bound = CASES[name].feature(layer, radius)
                assert 0 < np.linalg.norm(change, axis=1).max() <= bound
            change = np.linalg.norm(moved.last_gram(x) - gram)
            assert 0 < change <= CASES[name].gram(radius)


@pytest.mark.parametrize(
    ("c_res", "depth", "least"),
    # How much of each bound is used: features, Gram matrix, gradient, I_2, ‖u(k+1) − u(k)‖².
    [
        (None, 1, (0.99, 0.19, 0.24, 3e-3, 1e-3)),
        (None, 2, (0.77, 0.30, 0.11, 3e-4, 1e-4)),
        (0.5, 2, (0.25, 0.12, 0.28, 4e-3, 1e-3)),
        (0.5, 16, (0.35, 0.28, 0.39, 6e-3, 2e-3)),
    ],
)
def test_bounds_are_used_where_everything_is_aligned(c_res, depth, least):
    """One linear neuron per layer, all weights 1, all changes in one direction."""
    one = np.ones((1, 1))
    line = Activation(lambda z: z, np.ones_like, ActivationConstants(0.0, 1.0, 0.0, 1.0))
    network, x = Network([one] * depth, one, line, c_res), np.ones((1, 1, 1))
    found = held_against(network, x)
    radius = found.admissible
    moved = network.moved([radius * one] * (depth + 1))
    step = radius / found.gradient(1.0)
    jacobians = network.jacobians(x)
    change = network.moved([step * part for part in jacobians]).predict(x) - network.predict(x)
    used = [
        (moved.forward(x)[0][-1] - network.forward(x)[0][-1]) / found.feature(depth, radius),
        (moved.last_gram(x) - network.last_gram(x)) / found.gram(radius),
        max(np.abs(part).max() for part in moved.jacobians(x)) / found.gradient(1.0),
        (change - step * sum(part**2 for part in jacobians)) / found.second(step, 1.0),
        change**2 / found.squared(step, 1.0),
    ]
    used = np.array([np.asarray(ratio).item() for ratio in used])
    assert (used >= least).all()
    assert (used <= 1 + 1e-12).all()


def test_values_at_hand_computed_points():
    """c_σ = L = β = 1 and all norms 1, but c_{w,0} = ½ where that makes c_x = 1 and e = exp(1)."""
    unit, e = ActivationConstants(0.0, 1.0, 1.0, 1.0), np.e
    half, ones = InitialNorms(0.5, 1.0, 1.0, 1.0), InitialNorms(1.0, 1.0, 1.0, 1.0)
    n, m, H = 4, 4, 3
    assert plain.gram_change(n, H, 0.01, unit, half).value == pytest.approx(27 * n * 0.01)
    assert plain.gradient_norm(n, H, 5.0, unit, half).value == pytest.approx(4 * 2 * 5)
    second = plain.second_order_change(n, m, H, 0.1, 5.0, unit, half).value
    assert second == pytest.approx(0.005 * 2 * 258 * 40**2)
    square = plain.squared_change(n, H, 0.1, 5.0, unit, half).value
    assert square == pytest.approx(0.01 * n * 296 * 40**2)

    change = residual.gram_change(n, H, 0.5, 0.01, unit, ones).value
    assert change == pytest.approx((14 * e + 14) / 36 * n * 0.01)
    gradient = residual.gradient_norm(n, H, 5.0, 0.5, unit, ones)
    assert gradient.value == pytest.approx(2 * e * 10)
    printed = residual.gradient_norm(n, H, 5.0, 0.5, unit, ones, printed=True)
    assert printed.value == pytest.approx(2 * e / 3 * 10)
    second = residual.second_order_change(n, m, H, 0.1, 5.0, 0.5, unit, ones).value
    assert second == pytest.approx(0.01 * (25 * e**2 + 17 * e) / 2 * 2 * gradient.value**2)
    square = residual.squared_change(n, H, 0.1, 5.0, 0.5, unit, ones).value
    assert square == pytest.approx(0.01 * n * 8 * (1 + 4 * e**2) * gradient.value**2)

    end = (unit, half, Patches(4, 4))
    assert residual.feature_change(0.5, 0.01, *end).value == pytest.approx(4 * e * 0.01)
    change = residual.gram_change(n, H, 0.5, 0.01, *end).value
    assert change == pytest.approx((320 * e + 128) / 36 * n * 0.01)
    assert residual.gradient_norm(n, H, 5.0, 0.5, *end).value == pytest.approx(8 * e * 10)


@pytest.mark.parametrize("depth", [1, 2, 7, 30])
def test_lemma_3_3_is_an_equality_at_the_largest_radius(depth):
    """One linear neuron, all weights doubled, R = c_{w,0} = 1: 2^H − 1 = g_2(H)."""
    constants, norms = ActivationConstants(0.0, 1.0, 0.0, 1.0), InitialNorms(1.0, 1.0, 1.0, 1.0)
    bound = plain.feature_change(depth, 1.0, constants, norms).value
    np.testing.assert_allclose(bound, 2.0**depth - 1, rtol=1e-12)


def test_bounds_are_of_first_order_in_the_radius_as_the_changes_are():
    network, x = CASES["resnet"].network, CASES["resnet"].x
    gram, direction = network.last_gram(x), next(directions(network, x))
    change = [
        np.linalg.norm(network.moved([radius * part for part in direction]).last_gram(x) - gram)
        for radius in (1e-6, 1e-4)
    ]
    bound = [CASES["resnet"].gram(radius) for radius in (1e-6, 1e-4)]
    np.testing.assert_allclose(change[1] / change[0], 100, rtol=0.01)
    np.testing.assert_allclose(bound[1] / bound[0], 100, rtol=1e-12)


def test_the_printed_gram_bound_of_the_resnet_fails_for_a_small_slope():
    """σ(z) = t (z + sin(kz)/k) has L = 2t, β = tk: printed, the term with β has L² for L."""
    t, k = 1e-5, 3000.0
    second_moment = 1 + 2 * np.exp(-(k**2) / 2) + (1 - np.exp(-2 * k**2)) / (2 * k**2)
    wavy = Activation(
        lambda z: t * (z + np.sin(k * z) / k),
        lambda z: t * (1 + np.cos(k * z)),
        ActivationConstants(0.0, 2 * t, t * k, 1 / (t**2 * second_moment)),
    )
    found = case(8, 400, 2, 0.5, activation=wavy, n=1)
    network, x = found.network, found.x
    features, inner = network.forward(x)
    point = features[1][0, 0]
    radius = 1e-3 / k
    assert radius < found.admissible
    # Each z_r of the last layer moves so that (1 + cos kz)² falls.
    sign = np.sign(np.sin(k * inner[1][0, 0]))
    change = radius * point[:, None] / np.linalg.norm(point) * sign[None, :]
    zeros = [np.zeros_like(network.weights[0]), change, np.zeros_like(network.output)]
    drift = abs(network.moved(zeros).last_gram(x) - network.last_gram(x)).item()
    np.testing.assert_allclose(np.linalg.norm(change), radius * network.m**0.5)
    assert found.gram(radius, printed=True) < drift < found.gram(radius)


def test_the_printed_brackets_differ_as_said():
    constants, norms = SOFTPLUS.constants, InitialNorms(2.0, 2.0, 1.3, 1.4)
    printed, proof = (
        plain.gram_change(1, 3, 1e-3, constants, norms, printed=p).value for p in (True, False)
    )
    only = constants._replace(smoothness=0.0)  # without β nothing differs
    same = [plain.gram_change(1, 3, 1e-3, only, norms, printed=p).value for p in (True, False)]
    assert same[0] == same[1]
    np.testing.assert_allclose((printed - same[0]) / (proof - same[1]), 1.3**2)
    shape, ones = Patches(5, 3), Patches(5, 1)
    printed, proof = (
        residual.gram_change(1, 3, 0.5, 1e-3, constants, norms, ones, printed=p).value
        for p in (True, False)
    )
    np.testing.assert_allclose(printed, proof)  # q = 1: only factors √q are dropped
    dropped = residual.gram_change(1, 3, 0.5, 1e-3, constants, norms, shape, printed=True).value
    assert dropped < residual.gram_change(1, 3, 0.5, 1e-3, constants, norms, shape).value / 3
    # p = q = 1 is the ResNet.
    np.testing.assert_allclose(
        residual.gram_change(1, 3, 0.5, 1e-3, constants, norms, Patches(1, 1)).value,
        residual.gram_change(1, 3, 0.5, 1e-3, constants, norms).value,
    )


def test_the_stable_radii_end_where_the_induction_needs_it():
    constants, norms = SOFTPLUS.constants, InitialNorms(2.0, 2.0, 1.0, 1.4)
    n, lambda_0 = 3, 0.01
    radius = plain.stable_radius(n, 2, lambda_0, constants, norms).value
    np.testing.assert_allclose(
        plain.gram_change(n, 2, radius, constants, norms).value, lambda_0 / 4
    )
    for printed, part in ((False, 4), (True, 2)):
        for patches in (None, Patches(4, 3)):
            radius = residual.stable_radius(
                n, 5, lambda_0, 0.5, constants, norms, patches, printed=printed
            ).value
            change = residual.gram_change(n, 5, 0.5, radius, constants, norms, patches).value
            np.testing.assert_allclose(change, lambda_0 / part)
    # With a large λ_0 the other conditions decide.
    for radius, admissible in (
        (
            plain.stable_radius(1, 2, 1e9, constants, norms),
            plain.admissible_radius(2, constants, norms),
        ),
        (
            residual.stable_radius(1, 2, 1e9, 0.5, constants, norms),
            residual.admissible_radius(0.5, constants, norms),
        ),
    ):
        assert radius.value == admissible.value


# Depth.


def test_what_grows_with_depth_and_what_does_not():
    norms, constants = InitialNorms(2.0, 2.0, 1.0, 1.4), SOFTPLUS.constants
    depths = np.array([20, 40, 80])
    rates = np.log(plain.confined_width(4, depths, 0.1, 2.0, constants, norms).value)
    growth = 2 * constants.normalization**0.5 * 2.0
    np.testing.assert_allclose(np.diff(rates) / np.diff(depths), 4 * np.log(growth), rtol=1e-6)
    # λ_0 falls like 1/H² (Proposition 3.2): m grows like 1/(λ_0⁴ H⁴) = H⁴.
    depths = np.array([100, 200, 400])
    for patches in (None, Patches(6, 3)):
        end = (0.5, constants, norms, patches)
        widths = residual.confined_width(4, depths, 0.1 / depths**2, 2.0, *end).value
        np.testing.assert_allclose(widths[1:] / widths[:-1], 16, rtol=1e-6)
        steps = residual.largest_step_size(4, 10**6, depths, 0.1 / depths**2, 2.0, *end).value
        np.testing.assert_allclose(steps[:-1] / steps[1:], 4, rtol=0.02)
    deep = plain.confined_width(4, 10_000, 0.1, 2.0, constants, norms).value
    assert deep == np.inf  # an overflow is the honest answer


def test_confined_widths_are_where_the_distance_meets_the_radius():
    norms, constants = InitialNorms(2.0, 2.0, 1.0, 1.4), SOFTPLUS.constants
    m = plain.confined_width(4, 3, 0.1, 2.0, constants, norms).value
    np.testing.assert_allclose(
        plain.largest_distance(4, np.round(m), 3, 0.1, 2.0, constants, norms).value,
        plain.stable_radius(4, 3, 0.1, constants, norms).value,
    )
    end = (0.5, constants, norms, Patches(6, 3))
    m = residual.confined_width(4, 7, 0.1, 2.0, *end).value
    np.testing.assert_allclose(
        residual.largest_distance(4, np.round(m), 7, 0.1, 2.0, *end).value,
        residual.stable_radius(4, 7, 0.1, *end).value,
    )


# Doors.


def test_the_dtype_is_that_of_the_arrays(dtype):
    constants = SOFTPLUS.constants
    norms = InitialNorms(*(jnp.asarray(value, dtype) for value in (2.0, 2.0, 1.0, 1.4)))
    delta, patches = jnp.asarray(0.1, dtype), Patches(4, 3)

    def values(norms, delta):
        end = (constants, norms)
        bounds = (
            plain.feature_change(2, 0.1, *end),
            plain.confined_width(2, 2, 0.1, 1.0, *end),
            plain.largest_step_size(2, 9, 2, 0.1, 1.0, *end),
            plain.lemma_step_size(2, 2, 0.1, *end),
            residual.confined_width(2, 2, 0.1, 1.0, 0.5, *end, patches),
            residual.largest_step_size(2, 9, 2, 0.1, 1.0, 0.5, *end, patches),
            initial.fully_connected_norm_width(3, 2, delta, constants),
            initial.largest_residual_feature(0.5, constants, norms.weight, patches=patches),
            initial.initial_residual_norm(3, delta, 1.0, 2.0),
            last.last_gram_width(3, 0.1, delta, 1.0),
            required_width("fully_connected", 3, 2, 0.1, delta),
            required_step_size("resnet", 3, 2, delta, printed=True),
        )
        return [bound.value for bound in bounds]

    assert {value.dtype for value in compiled(values)(norms, delta)} == {jnp.dtype(dtype)}


def test_arrays_broadcast_and_traces_pass():
    constants = SOFTPLUS.constants
    norms = InitialNorms(2.0, 2.0, 1.0, np.array([1.3, 1.4]))
    radius = plain.stable_radius(np.array([[3], [3000]]), 2, 0.1, constants, norms)
    assert radius.value.shape == (2, 2)

    def bounds(n, lambda_0, error):
        end = (constants, InitialNorms(2.0, 2.0, 1.0, 1.4))
        patches = Patches(4, 3)
        return (
            plain.stable_radius(n, 3, lambda_0, *end).value,
            plain.largest_step_size(n, 100.0, 3, lambda_0, error, *end).value,
            residual.largest_step_size(n, 100.0, 3, lambda_0, error, 0.5, *end, patches).value,
            residual.confined_width(n, 3, lambda_0, error, 0.5, *end, patches).value,
        )

    arguments = (3.0, 0.1, 2.0)
    np.testing.assert_allclose(compiled(bounds)(*arguments), bounds(*arguments), rtol=1e-10)


@pytest.mark.parametrize(
    ("function", "arguments", "message"),
    [
        (plain.gram_change, (0, 2, 0.1), "n is 0; expected a whole number"),
        (plain.stable_radius, (3, 2.5, 0.1), "depth is 2.5"),
        (plain.feature_change, (1, -0.1), "radius is -0.1; expected 0 or greater"),
        (plain.largest_distance, (3, 0, 2, 0.1, 1.0), "m is 0"),
        (plain.largest_step_size, (3, 9, 2, 0.0, 1.0), "lambda_0 is 0.0; expected greater than 0"),
        (residual.gram_change, (3, 2, 1.0, 0.1), r"residual is 1.0; expected c_res in \(0, 1\)"),
        (residual.stable_radius, (3, 1, 0.1, 0.5), "depth is 1; expected 2 or more"),
        (residual.feature_change, (np.array([0.5, -1]), 0.1), "residual is"),
        (residual.gradient_norm, (3, 2, -1.0, 0.5), "residual_norm is -1.0"),
    ],
)
def test_bad_arguments_are_refused(function, arguments, message):
    with pytest.raises(ValueError, match=message):
        function(*arguments, SOFTPLUS.constants, InitialNorms(2.0, 2.0, 1.0, 1.4))


def test_kinks_bad_norms_and_bad_sizes_are_refused():
    relu = ActivationConstants(0.0, 1.0, np.inf, 2.0)
    norms = InitialNorms(2.0, 2.0, 1.0, 1.4)
    with pytest.raises(ValueError, match=r"the activation has a kink.*softplus"):
        plain.gram_change(3, 2, 0.1, relu, norms)
    with pytest.raises(ValueError, match="the activation has a kink"):
        residual.second_order_change(3, 9, 2, 0.1, 1.0, 0.5, relu, norms)
    assert plain.feature_change(2, 0.1, relu, norms).value > 0  # Lipschitz is enough there
    square = ActivationConstants(0.0, np.inf, 2.0, 1 / 3)
    with pytest.raises(ValueError, match=r"constants\.lipschitz is inf.*softplus"):
        plain.feature_change(2, 0.1, square, norms)
    with pytest.raises(ValueError, match=r"constants\.lipschitz is inf"):
        residual.largest_step_size(3, 9, 2, 0.1, 1.0, 0.5, square, norms)
    with pytest.raises(ValueError, match=r"ratio is -1\.0; expected 0 or greater"):
        geometric_series(-1.0, 3)
    with pytest.raises(ValueError, match="norms is of type tuple; expected InitialNorms"):
        plain.feature_change(2, 0.1, relu, tuple(norms))
    with pytest.raises(ValueError, match=r"patches is \(4, 3\); expected Patches\(pixels, filter"):
        residual.feature_change(0.5, 0.1, relu, norms, (4, 3))
    with pytest.raises(ValueError, match=r"norms\.weight is -2\.0"):
        plain.feature_change(2, 0.1, relu, norms._replace(weight=-2.0))
    with pytest.raises(ValueError, match="filter_size is 0"):
        residual.feature_change(0.5, 0.1, relu, norms, Patches(4, 0))
