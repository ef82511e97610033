"""Lemmas 3.5–3.7, 3.12–3.14 and 3.19–3.21: gradients, distances and steps of real networks."""

import numpy as np
import pytest
from plain_networks import CASES, SOFTPLUS, case, directions

from ntkflow.systems.deep import fully_connected_bounds as plain, residual_bounds as residual
from ntkflow.systems.deep.constants import InitialNorms, Patches

# Lemmas 3.5, 3.12, 3.19.


@pytest.mark.parametrize("name", CASES)
def test_gradients_stay_within_the_bound(name):
    network, x = CASES[name].network, CASES[name].x
    error = np.random.default_rng(9).normal(size=len(x))
    bound, largest = CASES[name].gradient(np.linalg.norm(error)), 0.0
    for share in (0.0, 1.0):
        for direction in directions(network, x):
            moved = network.moved([share * CASES[name].admissible * part for part in direction])
            sizes = [np.linalg.norm(error @ part) for part in moved.jacobians(x)]
            largest = max(largest, *sizes)
    assert largest <= bound
    assert largest > 1e-4 * bound


def test_the_printed_gradient_bound_fails_for_layer_1_and_the_output():
    """They have no factor c_res/H. With c_res = 0.05 that shows from the second layer on."""
    found = case(10, 60, 12, 0.05, n=4)
    error = np.ones(4)
    first, *hidden_layers, output = (
        np.linalg.norm(error @ part) for part in found.network.jacobians(found.x)
    )
    printed = found.gradient(2.0, printed=True)
    assert max(hidden_layers) < printed
    assert min(first, output) > printed
    assert max(first, output) < found.gradient(2.0)


def test_the_distance_sums_the_steps_of_a_decaying_loss():
    """η Q' Σ_s (1 − ηλ_0/2)^(s/2) ≤ R' √m, and is close to it for a small step."""
    constants, norms = SOFTPLUS.constants, InitialNorms(2.0, 2.0, 1.0, 1.4)
    n, m, lambda_0, error, step = 3, 50, 0.3, 1.7, 1e-3
    total = step * np.sum((1 - step * lambda_0 / 2) ** (np.arange(300_000) / 2))
    gradient = plain.gradient_norm(n, 2, error, constants, norms).value
    distance = plain.largest_distance(n, m, 2, lambda_0, error, constants, norms).value
    assert 0.999 * distance < total * gradient / m**0.5 <= distance
    for printed in (False, True):
        options = {"printed": printed}
        head, end = (n, 5), (0.5, constants, norms, Patches(4, 3))
        gradient = residual.gradient_norm(*head, error, *end, **options).value
        distance = residual.largest_distance(n, m, 5, lambda_0, error, *end, **options).value
        assert 0.999 * distance < total * gradient / m**0.5 <= distance


@pytest.mark.parametrize("name", ["plain", "resnet", "convolution"])
def test_a_run_moves_within_the_distance(name):
    """Labels so close to u(0) that R' is admissible; the rate is that of the run itself."""
    found = CASES[name]
    network, x, step = found.network, found.x, 0.01
    direction = np.random.default_rng(11).normal(size=len(x))
    bound = 4 * found.gradient(1.0) / (1e-3 * network.m**0.5)  # at ‖y − u(0)‖ = 1, λ_0 = 1e-3
    y = network.predict(x) + 0.1 * found.admissible / bound * direction
    start, errors, distances = network, [], []
    for _ in range(60):
        error = network.predict(x) - y
        errors.append(np.linalg.norm(error))
        changes = [
            -step * (error @ part).reshape(array.shape)
            for part, array in zip(
                network.jacobians(x), [*network.weights, network.output], strict=True
            )
        ]
        network = network.moved(changes)
        new, old = [*network.weights, network.output], [*start.weights, start.output]
        distances.append(max(np.linalg.norm(a - b) for a, b in zip(new, old, strict=True)))
    errors = np.array(errors)
    rate = 2 * (1 - (errors[1:] / errors[0]) ** (2 / np.arange(1, 60))) / step
    lambda_0 = rate.min()  # the greatest with which Condition 3.3 holds at every step
    assert lambda_0 > 1e-3
    allowed = 4 * found.gradient(errors[0]) / lambda_0
    assert 1e-4 * allowed < max(distances) <= allowed


# Lemmas 3.6, 3.7, 3.13, 3.14, 3.20, 3.21: one step.


@pytest.mark.parametrize("name", CASES)
def test_one_step_changes_predictions_within_the_bounds(name):
    """The step is as long as the admissible radius lets it be: I_2 is far above rounding."""
    found = CASES[name]
    network, x = found.network, found.x
    for direction in np.random.default_rng(12).normal(size=(3, len(x))):
        error = direction / np.linalg.norm(direction)
        step = found.admissible * network.m**0.5 / found.gradient(1.0)
        jacobians = network.jacobians(x)
        changes = [
            -step * (error @ part).reshape(array.shape)
            for part, array in zip(jacobians, [*network.weights, network.output], strict=True)
        ]
        change = network.moved(changes).predict(x) - network.predict(x)
        first = -step * sum(part @ (error @ part) for part in jacobians)
        second = np.linalg.norm(change - first)
        assert 1e-9 * np.linalg.norm(first) < second <= found.second(step, 1.0)
        assert change @ change <= found.squared(step, 1.0)


def test_second_order_needs_the_output_layer_and_the_first():
    """Without curvature, β = 0, of layers 2..H nothing is left but √m in the denominators."""
    norms = InitialNorms(2.0, 2.0, 1.0, 1.4)
    flat = SOFTPLUS.constants._replace(smoothness=0.0)
    for call in (
        lambda m: plain.second_order_change(3, m, 4, 0.1, 1.0, flat, norms).value,
        lambda m: residual.second_order_change(3, m, 4, 0.1, 1.0, 0.5, flat, norms).value,
    ):
        np.testing.assert_allclose(call(100) / call(10_000), 10, rtol=1e-12)


@pytest.mark.parametrize("patches", [None, Patches(4, 3)])
def test_the_largest_step_is_where_the_lemmas_end(patches):
    constants, norms = SOFTPLUS.constants, InitialNorms(2.0, 2.0, 1.0, 1.4)
    n, m, depth, lambda_0 = 3, 10**6, 4, 0.02
    for start in (1e-9, 1.0, 1e9):
        if patches is None:
            end = (constants, norms)
            room = plain
        else:
            end, room = (0.5, constants, norms, patches), residual
        step = room.largest_step_size(n, m, depth, lambda_0, start, *end).value
        target = step * lambda_0 / 8
        second = room.second_order_change(n, m, depth, step, start, *end).value / start / target
        square = room.squared_change(n, depth, step, start, *end).value / start**2 / target
        np.testing.assert_allclose(max(second, square), 1.0)


def test_the_step_size_with_the_square_of_the_depth_fails_for_deep_resnets():
    """At η = c λ_0 H²/n² the ratio of ‖u(k+1) − u(k)‖² to ηλ_0/8 ‖y − u(k)‖² grows like H²."""
    ratios, proof = [], []
    for depth in (4, 16, 64):
        found = case(13, 100, depth, 0.5, n=2)
        network, x = found.network, found.x
        lambda_0 = np.linalg.eigvalsh(network.last_gram(x))[0]
        gram = sum(part @ part.T for part in network.jacobians(x))
        top = np.linalg.eigvalsh(gram)[-1]
        for step, sizes in (
            (1e-6 * lambda_0 * depth**2 / 4, ratios),
            (
                residual.largest_step_size(
                    2, 100, depth, lambda_0, 1.0, 0.5, SOFTPLUS.constants, network.norms(x)
                ).value,
                proof,
            ),
        ):
            sizes.append((step * top) ** 2 / (step * lambda_0 / 8))  # along the top eigenvector
    growth = np.diff(np.log(ratios)) / np.log(4)
    np.testing.assert_allclose(growth, 2.0, atol=0.3)
    assert max(proof) < 1


@pytest.mark.parametrize(("depth", "same"), [(2, True), (40, False)])
def test_the_printed_step_of_lemma_3_7_is_too_long_for_deep_networks(depth, same):
    """Its proof has the square of g_{2c_x}(H), which passes H² c_x^H g_{2c_x}(H) at some depth."""
    norms, constants = InitialNorms(2.0, 2.0, 1.0, 1.4), SOFTPLUS.constants
    printed, proof = (
        plain.lemma_step_size(4, depth, 0.1, constants, norms, printed=p).value
        for p in (True, False)
    )
    assert (printed == proof) == same
    assert printed >= proof
