"""The kernels at any weights and of infinite width, against autodiff and Monte Carlo."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_close, compiled

import ntkflow
from ntkflow.systems import two_layer_relu
from ntkflow.systems.autoencoder import (
    Autoencoder,
    append_constant,
    boundary_term,
    data_norm,
    decoder_gram,
    encoder_gram,
    gram,
    kronecker,
    limit_gram,
    limit_smallest_eigenvalue,
    perpendicular_gram,
    weights,
)

REGIMES = ("encoder", "decoder", "both")


def normal(seed, *shape, dtype="float64"):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), dtype)


def sphere(seed, n, d):
    x = np.random.default_rng(seed).normal(size=(n, d))
    return jnp.asarray(x / np.linalg.norm(x, axis=1, keepdims=True))


def draw(seed, d, width, *, rows=None, gaussian=False, dtype="float64"):
    generator = np.random.default_rng(seed)
    encoder = generator.normal(size=(rows or d, width))
    signs = generator.choice([-1.0, 1.0], (d, width))
    decoder = generator.normal(size=(d, width)) if gaussian else signs
    return {"encoder": jnp.asarray(encoder, dtype), "decoder": jnp.asarray(decoder, dtype)}


def as_regime(leaves, trains):
    if trains == "both":
        return {"params": leaves}
    fixed = "decoder" if trains == "encoder" else "encoder"
    return {"params": {trains: leaves[trains]}, "fixed": {fixed: leaves[fixed]}}


@pytest.mark.quick
@pytest.mark.parametrize(("constant_input", "dtype"), [(False, "float32"), (True, "float64")])
def test_gram_is_d_times_the_empirical_kernel(constant_input, dtype):
    x1, x2 = (normal(seed, n, 3, dtype=dtype) for seed, n in ((0, 4), (1, 2)))
    leaves = draw(2, 3, 20, rows=3 + constant_input, gaussian=True, dtype=dtype)

    def of(leaves, trains):
        module = Autoencoder(20, trains, constant_input=constant_input, param_dtype=dtype)
        kernel, variables = ntkflow.empirical_ntk(module.apply), as_regime(leaves, trains)
        pairs = [(x1, None), (x1, x2)]
        return [(gram(variables, *pair), 3 * kernel(variables, *pair)) for pair in pairs]

    everything = compiled(lambda leaves: {trains: of(leaves, trains) for trains in REGIMES})
    results = jax.device_get(everything(leaves))
    for trains in REGIMES:
        (square, expected), (rectangle, expected_rectangle) = results[trains]
        assert square.dtype == dtype
        assert_close(square, expected)
        assert_close(rectangle, expected_rectangle)
        assert (square == square.transpose(1, 0, 3, 2)).all()
        eigenvalues = np.linalg.eigvalsh(square.swapaxes(1, 2).reshape(12, 12))
        assert eigenvalues[0] > -100 * jnp.finfo(dtype).eps * eigenvalues[-1]


def test_jacobians_give_the_printed_sums():
    """J Jᵀ = G/d and H/d; G and H by their defining sums over the neurons, in Kronecker form."""
    x, leaves = sphere(3, 4, 3), draw(4, 3, 12)
    module = Autoencoder(12)
    jacobian = compiled(jax.jacrev(lambda leaves: module.apply({"params": leaves}, x)))(leaves)
    w, a, points = (np.asarray(v) for v in (leaves["encoder"], leaves["decoder"], x))
    big_g, big_h = np.zeros((12, 12)), np.zeros((12, 12))
    for r in range(12):
        z = points @ w[:, r]
        masked = points * (z >= 0)[:, None]
        big_g += np.kron(masked @ masked.T, np.outer(a[:, r], a[:, r])) / 12
        big_h += np.kron(np.outer(np.maximum(z, 0), np.maximum(z, 0)), np.eye(3)) / 12
    for name, expected in (("encoder", big_g), ("decoder", big_h)):
        j = np.asarray(jacobian[name]).reshape(12, -1)
        assert_close(j @ j.T, expected / 3)

    def parts(leaves):
        variables = {"params": leaves}
        both = kronecker(encoder_gram(variables, x)), kronecker(gram(variables, x))
        return both, decoder_gram(variables, x)

    (of_encoder, of_both), of_decoder = compiled(parts)(leaves)
    assert_close(of_encoder, big_g)
    assert_close(np.kron(of_decoder, np.eye(3)), big_h)
    assert_close(of_both, big_g + big_h)


def test_kronecker_is_sample_major():
    generator = np.random.default_rng(5)
    k, block, u = (generator.normal(size=shape) for shape in ((2, 3), (4, 4), (3, 4)))
    theta = k[:, :, None, None] * block
    assert (kronecker(theta) == np.kron(k, block)).all()
    moved = np.einsum("ijab,jb->ia", theta, u)
    assert_close(np.asarray(kronecker(theta)) @ u.reshape(-1), moved.reshape(-1))


@functools.partial(compiled, static_argnames=("constant_input", "printed"))
def all_limits(x, constant_input=False, printed=False):
    choices = {"constant_input": constant_input, "printed": printed}
    return {trains: limit_gram(x, trains=trains, **choices) for trains in REGIMES}


def moments(x, draws, seed):
    """Means and standard errors of both kernels, entry by entry, from one draw of w."""
    z = np.random.default_rng(seed).normal(size=(draws, x.shape[1])) @ x.T
    hidden, active = np.maximum(z, 0), (z > 0).astype(float)
    inner = x @ x.T
    together = active.T @ active / draws
    g, g_square = inner * together, inner**2 * together
    h, h_square = hidden.T @ hidden / draws, (hidden**2).T @ hidden**2 / draws
    return [(mean, np.sqrt((s - mean**2) / draws)) for mean, s in ((g, g_square), (h, h_square))]


def test_closed_forms_are_the_means_and_the_printed_h_is_not():
    x = np.random.default_rng(8).normal(size=(6, 4))
    x[1:] /= np.linalg.norm(x[1:], axis=1, keepdims=True)
    (g, g_error), (h, h_error) = moments(x, 200_000, 9)
    limits, printed = jax.device_get((all_limits(x), all_limits(x, printed=True)))
    assert (abs(limits["encoder"] - g) < 5 * g_error + 1e-12).all()
    assert (abs(limits["decoder"] - h) < 5 * h_error + 1e-12).all()
    assert_close(limits["both"], limits["encoder"] + limits["decoder"])

    off_diagonal = ~np.eye(6, dtype=bool)
    assert (abs(printed["decoder"] - h) > 5 * h_error)[off_diagonal].all()
    for trains, factor in (("encoder", 1), ("decoder", 1), ("both", 2)):
        assert_close(printed[trains], factor * limits["encoder"])


def test_the_mean_of_the_blocks_is_the_limit_times_the_identity():
    x, draws = sphere(10, 3, 2), 4000
    leaves = draw(11, 2, 8 * draws)
    leaves = {k: np.asarray(v).reshape(2, draws, 8).swapaxes(0, 1) for k, v in leaves.items()}
    blocks = compiled(jax.vmap(lambda leaves: gram({"params": leaves}, x)))(leaves)
    blocks, k = np.asarray(blocks), np.asarray(all_limits(x)["both"])
    error = blocks.std(axis=0) / draws**0.5
    expected = k[:, :, None, None] * np.eye(2)
    assert (abs(blocks.mean(axis=0) - expected) < 5 * error + 1e-12).all()


def test_the_distance_to_the_limit_falls_like_the_root_of_the_width():
    x, draws = sphere(12, 5, 3), 40
    of = all_limits(x)
    limits = [np.kron(of["encoder"], np.eye(3)), np.asarray(of["decoder"])]
    scaled = []
    for width in (60, 960):
        leaves = draw(13, 3, width * draws)
        leaves = {k: np.asarray(v).reshape(3, draws, -1).swapaxes(0, 1) for k, v in leaves.items()}

        def grams(leaves):
            variables = {"params": leaves}
            return kronecker(encoder_gram(variables, x)), decoder_gram(variables, x)

        found = compiled(jax.vmap(grams))(leaves)
        distances = [
            np.linalg.norm(np.asarray(kernels) - limit, ord=2, axis=(1, 2)).mean()
            for kernels, limit in zip(found, limits, strict=True)
        ]
        scaled.append(width**0.5 * np.array(distances))
    # 16 times the width: without the root the ratio would be a quarter. Standard errors are 5 %.
    assert (abs(scaled[1] / scaled[0] - 1) < 0.2).all()


def test_a_sample_makes_no_angle_with_itself():
    x = normal(24, 100, 37)
    half = np.sum(np.square(x), axis=1) / 2
    of_encoder, boundary = compiled(lambda x: (limit_gram(x, trains="encoder"), boundary_term(x)))(
        x
    )
    assert_close(np.diagonal(of_encoder), half)
    assert (np.diagonal(boundary) == 0).all()


@pytest.mark.parametrize(("trains", "constant_input"), [("encoder", False), ("both", True)])
def test_the_engine_follows_the_module(trains, constant_input):
    x = 2 * normal(14, 4, 3)
    kernels = ntkflow.infinite_width(Autoencoder(32, trains, constant_input=constant_input))(x)
    limits = all_limits(x, constant_input=constant_input)
    assert_close(kernels.ntk, limits[trains] / 3)
    assert_close(kernels.nngp, limits["decoder"] / 3)  # the outputs' covariance, whatever trains


def test_limits_are_those_of_one_output():
    """The two-layer network of Du (2019) has the same k; a constant is one more feature."""
    x1, x2 = 2 * normal(15, 5, 3), normal(16, 4, 3)

    def pairs(x1, x2):
        seen = append_constant(x1), append_constant(x2)
        names = (("encoder", "fixed"), ("both", "trained"))
        return [
            (limit_gram(x1, x2, constant_input=True), limit_gram(*seen)),
            *((limit_gram(x1, x2, a), two_layer_relu.limit_gram(x1, x2, b)) for a, b in names),
        ]

    for ours, expected in compiled(pairs)(x1, x2):
        assert_close(ours, expected)


def test_the_boundary_term_is_the_difference(dtype):
    x1, x2 = 2 * normal(17, 6, 4, dtype=dtype), normal(18, 3, 4, dtype=dtype)

    def both(x1, x2):
        pairs = [(x1,), (x1, x2)]
        return [
            (
                boundary_term(*pair),
                limit_gram(*pair, trains="decoder") - limit_gram(*pair, trains="encoder"),
            )
            for pair in pairs
        ]

    (square, difference), (rectangle, other_difference) = compiled(both)(x1, x2)
    tolerance = 1e-12 if dtype == "float64" else 1e-5
    np.testing.assert_allclose(square, difference, atol=tolerance)
    np.testing.assert_allclose(rectangle, other_difference, atol=tolerance)
    norms = [np.linalg.norm(x, axis=1) for x in (x1, x2)]
    cosine = np.asarray(x1, "float64") @ np.asarray(x2, "float64").T / np.outer(*norms)
    expected = np.outer(*norms) * np.sin(np.arccos(cosine)) / (2 * math.pi)
    assert_close(rectangle, expected.astype(dtype))


def test_limits_at_their_singular_points(dtype):
    v = jnp.array([0.6, 0.8, 0.0], dtype)
    v = np.asarray(v)
    x = jnp.asarray(np.stack([v, 3 * v, -v, 0 * v]))
    expected = 0.5 * np.array([[1, 3, 0, 0], [3, 9, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]])
    unit = np.concatenate([np.eye(3, dtype=dtype), v[None]])

    def evaluate(x):
        limits = [limit_gram(*pair, trains=t) for t in REGIMES for pair in ((x,), (x, x))]
        return limits, limit_gram(unit, trains="encoder"), limit_gram(unit, trains="decoder")

    def total(x):
        return sum(limit_gram(x, trains=t).sum() for t in REGIMES) + boundary_term(x).sum()

    limits, *of_unit = jax.device_get(compiled(evaluate)(x))
    for limit, share in zip(limits, (1, 1, 1, 1, 2, 2), strict=True):
        assert_close(limit, (share * expected).astype(dtype))
    for limit in of_unit:
        assert (np.diagonal(limit) == 0.5).all()
    assert np.isfinite(compiled(jax.grad(total))(x)).all()


def test_smallest_eigenvalues_of_random_data():
    """Twenty draws at n=20, d=10; λ_min(H^∞) = λ_0, as printed, is a third of what it claims."""

    def quantities(x):
        least = [limit_smallest_eigenvalue(x, trains) for trains in REGIMES]
        return least, limit_smallest_eigenvalue(x, "both", printed=True), data_norm(x)

    x = np.stack([sphere(100 + seed, 20, 10) for seed in range(20)])
    least, printed, lambda_n = compiled(jax.vmap(quantities))(x)
    encoder, decoder, both = (np.asarray(values) for values in least)
    assert abs(encoder.mean() - 0.125) < 0.016
    assert abs(decoder.mean() - 0.033) < 0.01
    assert abs(both.mean() - 0.158) < 0.02
    assert (decoder < encoder / 2).all()
    assert (both >= encoder + decoder).all()
    assert_close(printed, 2 * encoder)
    lambda_n = np.asarray(lambda_n)
    assert ((lambda_n >= 1) & (lambda_n <= 20)).all()
    assert_close(lambda_n, np.linalg.eigvalsh(x @ x.transpose(0, 2, 1))[:, -1])
    assert_close(data_norm(jnp.asarray(np.eye(10), "bfloat16")), np.float32(1))


def test_a_constant_input_tells_antiparallel_samples_apart():
    angles = np.array([0.3, 1.4, 2.6])
    plane = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    x = np.concatenate([plane, -plane])
    for trains, limit in all_limits(x).items():
        assert np.linalg.eigvalsh(limit)[0] < 1e-12, trains
    for trains, limit in all_limits(x, constant_input=True).items():
        assert np.linalg.eigvalsh(limit)[0] > 1e-4, trains


@pytest.mark.parametrize("trains", REGIMES)
def test_the_perpendicular_kernel_is_the_sum_over_flipped_neurons(trains):
    x, leaves = sphere(21, 3, 2), draw(22, 2, 30)
    before = as_regime(leaves, trains)
    after = as_regime({**leaves, "encoder": leaves["encoder"] + normal(20, 2, 30)}, trains)
    (w, a), later, points = weights(before), np.asarray(weights(after)[0]), np.asarray(x)
    w, a = np.asarray(w), np.asarray(a)
    flipped = (points @ w > 0) != (points @ later > 0)
    assert flipped.any(axis=1).all()
    expected = np.zeros((3, 3, 2, 2))
    for i in range(3):
        for j in range(3):
            for r in np.flatnonzero(flipped[i]):
                zi, zj = points[i] @ w[:, r], points[j] @ w[:, r]
                if trains != "decoder":
                    active = (zi > 0) * (zj > 0) * (points[i] @ points[j])
                    expected[i, j] += active * np.outer(a[:, r], a[:, r]) / 30
                if trains != "encoder":
                    expected[i, j] += max(zi, 0) * max(zj, 0) * np.eye(2) / 30
    result = np.asarray(compiled(perpendicular_gram)(before, after, x))
    assert_close(result, expected)
    assert not np.allclose(result, result.transpose(1, 0, 3, 2))


def test_what_is_refused():
    x, variables = jnp.asarray(np.ones((2, 3))), {"params": draw(23, 3, 4)}
    for function in (gram, encoder_gram, decoder_gram):
        with pytest.raises(ValueError, match=r"x has shape \(3, 2\) and the \w+ \(3, 4\)"):
            function(variables, x, x.T)
    with pytest.raises(ValueError, match="the variables of an Autoencoder"):
        gram({"params": {"kernel": x}}, x)
    with pytest.raises(ValueError, match="x1 has 3 features and x2 2"):
        limit_gram(x, jnp.ones((2, 2)))
    with pytest.raises(ValueError, match="trains is 'joint'"):
        limit_gram(x, trains="joint")
    with pytest.raises(ValueError, match="holds NaN"):
        limit_gram(np.array([[np.nan, 1, 1], [1, 1, 1]]))
    for theta in (np.eye(2), np.ones((2, 3, 4, 5))):
        with pytest.raises(ValueError, match=r"theta has shape .*; expected blocks"):
            kronecker(theta)
