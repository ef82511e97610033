"""What the proofs of chapter 3 share: one step of descent, products, series, Gaussian weights."""

import jax.numpy as jnp
import numpy as np
import pytest

from ntkflow.systems.deep import initialization_bounds as initial, technical_bounds as technical
from ntkflow.systems.deep.constants import geometric_series


def test_products_change_by_the_sum_of_relative_changes():
    rng = np.random.default_rng(11)
    used = []
    for scale in (1e-3, 0.3):
        a = rng.normal(size=(4, 5, 5))
        b = a + scale * rng.normal(size=a.shape)
        norms = [max(np.linalg.norm(p, 2), np.linalg.norm(q, 2)) for p, q in zip(a, b, strict=True)]
        changes = [np.linalg.norm(p - q) / size for p, q, size in zip(a, b, norms, strict=True)]
        actual = np.linalg.norm(np.linalg.multi_dot(a) - np.linalg.multi_dot(b))
        used.append(actual / technical.product_change(norms, changes).value)
    assert 0.005 < min(used) <= max(used) <= 1
    # One dimension, all in one direction: an equality to first order.
    bound = technical.product_change([2.001, 3.001], [0.001 / 2.001, 0.001 / 3.001]).value
    np.testing.assert_allclose(2.001 * 3.001 - 6, bound, rtol=1e-3)
    assert bound >= 2.001 * 3.001 - 6
    with pytest.raises(ValueError, match="norms has 2 entries, changes 1"):
        technical.product_change([1.0, 2.0], [0.1])


def test_one_step_of_the_error():
    residual, change = np.array([1.0, -2.0, 0.5]), np.array([0.3, 0.1, -0.7])
    exact = np.sum((residual - change) ** 2)
    np.testing.assert_allclose(technical.squared_error_after(residual, change), exact)


def test_the_lemmas_contract_with_a_half_and_not_with_a_quarter_of_lambda_0():
    """Why the Gram matrix may drift by λ_0/4 from ¾ λ_0, and not by the λ_0/2 of Lemma 3.11."""
    step, lambda_0 = 0.01, 0.4
    eighth = step * lambda_0 / 8
    claimed = technical.error_decay(1, lambda_0, step).value
    assert technical.contraction_factor(step, lambda_0 / 2, eighth, eighth).value < claimed
    assert technical.contraction_factor(step, lambda_0 / 4, eighth, eighth).value > claimed
    assert technical.error_decay(3, 5.0, 1.0).value == 0  # not a power of a negative number
    np.testing.assert_allclose(
        technical.error_decay(np.arange(3), 0.5, 0.4).value, [1, 0.9, 0.81], rtol=1e-12
    )


def test_geometric_series_near_1_and_far():
    for ratio in (0.0, 0.3, 1 - 1e-9, 1.0, 1 + 1e-12, 1.7, 5.0):
        for terms in (0, 1, 2, 9):
            exact = sum(ratio**i for i in range(terms))
            np.testing.assert_allclose(geometric_series(ratio, terms), exact, rtol=1e-9)
    assert geometric_series(4.0, 5000) == np.inf
    array = geometric_series(jnp.array([0.5, 1.0, 2.0]), 3)
    np.testing.assert_allclose(array, [1.75, 3, 7])


def test_norms_of_gaussian_weights():
    m, delta, draws = 40, 0.2, 400
    rng = np.random.default_rng(4)
    a = rng.normal(size=(draws, 3, m))
    second, fourth = initial.output_norms(m, delta, pixels=3)
    sizes = np.linalg.norm(a, axis=-1).max(-1) / m**0.5
    fourths = (a**4).mean(-1).max(-1) ** 0.25
    assert ((sizes > second.value) | (fourths > fourth.value)).mean() < delta
    assert np.quantile(sizes, 1 - delta / 2) > 0.8 * second.value
    assert np.quantile(fourths, 1 - delta / 2) > 0.6 * fourth.value
    for ratio in (1.0, 2.0):
        w = rng.normal(size=(draws, m, int(ratio * m)))
        sizes = np.linalg.norm(w, 2, axis=(1, 2)) / m**0.5
        bound = technical.gaussian_operator_norm(m, delta, ratio=ratio).value
        assert (sizes > bound).mean() < delta
        assert np.quantile(sizes, 1 - delta) > 0.85 * bound
        failure = technical.operator_norm_failure(m, bound, ratio).value
        np.testing.assert_allclose(failure, delta)  # its inverse
        least = np.mean(sizes > 1 + ratio**0.5)
        assert least <= technical.operator_norm_failure(m, 1 + ratio**0.5, ratio).value == 1


@pytest.mark.parametrize(
    ("function", "arguments", "message"),
    [
        (technical.operator_norm_failure, (2.5, 3.0), "m is 2.5"),
        (technical.gaussian_operator_norm, (9, 1.5), "delta is 1.5"),
        (technical.error_decay, (1, 0.0, 0.1), "lambda_0 is 0.0"),
        (technical.squared_error_after, (np.ones(2), np.ones(3)), "residual has 2, change has 3"),
    ],
)
def test_bad_arguments_are_refused(function, arguments, message):
    with pytest.raises(ValueError, match=message):
        function(*arguments)
