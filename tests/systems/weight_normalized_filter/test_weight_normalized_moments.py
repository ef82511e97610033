"""Lemma 5.6, (5.5) and (5.6), against Monte Carlo and the arc-cosine kernel."""

import jax.numpy as jnp
import numpy as np
from helpers import assert_close, compiled

from ntkflow.kernels.arccos import arccos_kernel
from ntkflow.systems.weight_normalized_filter.population import (
    cross_matrix,
    half_space_mean,
    half_space_product,
    moment_matrix,
    relu_product,
    wedge_moments,
    wedge_product,
)

N, P = 10_000, 3
W, W_STAR = np.array([0.3, 0.8, 1.1]), np.array([1.2, -0.4, 0.9])


def within_three_errors(rows, exact):
    error = rows.std(axis=0) / np.sqrt(len(rows))
    return (np.abs(rows.mean(axis=0) - np.asarray(exact)) <= 3 * error).all()


def test_the_moments_against_monte_carlo_and_the_kernel():
    w, w_star = W, W_STAR

    @compiled
    def everything(w, w_star):
        norms, inner = (jnp.linalg.norm(w), jnp.linalg.norm(w_star)), jnp.sum(w * w_star)
        kernel = arccos_kernel(1, *norms, inner) / 2
        vectors = half_space_product(w), half_space_mean(w), wedge_product(w, w_star)
        matrices = moment_matrix(w, 2), cross_matrix(w, w_star, 2)
        return vectors, relu_product(w, w_star), matrices, kernel

    (product, mean, wedge), relus, (own, cross), kernel = everything(w, w_star)
    z = np.random.default_rng(3).normal(size=(N, P))
    u, u_star = z @ w, z @ w_star
    on, both = u >= 0, (u >= 0) & (u_star >= 0)
    assert within_three_errors(z * (u * on)[:, None], product)
    assert within_three_errors(z * on[:, None], mean)
    assert within_three_errors(z * (u_star * both)[:, None], wedge)
    assert within_three_errors(np.maximum(u, 0) * np.maximum(u_star, 0), relus)
    hidden = [np.maximum(z.reshape(-1, 2, P) @ x, 0) for x in (w, w_star)]
    for exact, second in ((own, 0), (cross, 1)):
        rows = hidden[0][:, :, None] * hidden[second][:, None, :]
        assert within_three_errors(rows, exact)
    assert_close(relus, kernel)
    assert_close(np.diag(cross), np.full(2, relus))


def test_the_wedge_in_its_plane():
    """The in-plane moments of the lemma's proof against Monte Carlo, and its third identity."""
    w, w_star = W, W_STAR
    first = w_star / np.linalg.norm(w_star)
    second = w / np.linalg.norm(w) - (w @ first) / np.linalg.norm(w) * first
    second /= np.linalg.norm(second)
    phi = np.arccos(w @ w_star / np.linalg.norm(w) / np.linalg.norm(w_star))
    moments = np.asarray(compiled(wedge_moments)(phi))
    z = np.random.default_rng(2).normal(size=(N, P))
    both = (z @ w >= 0) & (z @ w_star >= 0)
    plane = z @ np.stack([first, second], axis=1) * both[:, None]
    assert within_three_errors(plane[:, :, None] * plane[:, None, :], moments)
    across = np.cross(first, second)
    assert within_three_errors((z @ across * both) ** 2, (np.pi - phi) / (2 * np.pi))
    product = np.linalg.norm(w_star) * (moments[0, 0] * first + moments[0, 1] * second)
    toward = (np.pi - phi) * w_star + np.sin(phi) * np.linalg.norm(w_star) / np.linalg.norm(w) * w
    assert_close(product, toward / (2 * np.pi))  # the third identity, as `wedge_product` has it
