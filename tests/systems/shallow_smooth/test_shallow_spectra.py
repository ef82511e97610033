"""Near-isometry, the numbers of an activation, and powers of the data's Gram matrix."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_close, compiled

from ntkflow.systems.shallow_smooth import (
    constants,
    data_norm,
    gelu,
    gram,
    near_isometry,
    power_gram,
    power_rank,
    power_smallest_singular_value,
    predict,
)


def normal(seed, *shape, dtype="float64"):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), dtype)


def initialize(seed, d_0, d_1, d_2, omega1=1.0, omega2=1.0, dtype="float64"):
    hidden = normal(seed, d_0, d_1)
    output = normal(seed + 100, d_1, d_2)
    leaves = {"hidden": omega1 * hidden, "output": omega2 * output}
    return {"params": {name: leaf.astype(dtype) for name, leaf in leaves.items()}}


@pytest.mark.quick
@pytest.mark.parametrize(("activation", "dtype"), [(gelu, "float64"), (jnp.tanh, "float32")])
def test_singular_values_lie_between_mu_and_nu(activation, dtype):
    """Of ∇Φ*, over seeds, scales and norms of inputs: roots of the kernel's eigenvalues."""
    x = normal(0, 4, 5, dtype=dtype) * jnp.array([0.5, 1.0, 1.0, 2.0], dtype)[:, None]
    seeds = [
        initialize(seed, 5, 12, 2, omega1, omega2, dtype)
        for seed in (1, 2)
        for omega1, omega2 in ((1.0, 0.3), (0.3, 1.0), (0.5, 0.02))
    ]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *seeds)

    @compiled
    @jax.vmap
    def both(variables):
        kernel = gram(variables, x, activation=activation)
        return kernel, near_isometry(variables, x, activation)

    kernel, found = both(stacked)
    assert {leaf.dtype.name for leaf in found} == {dtype}
    kernel = np.asarray(kernel, float).transpose(0, 1, 3, 2, 4).reshape(6, 8, 8)
    exact = np.sqrt(np.maximum(np.linalg.eigvalsh(kernel), 0))
    rounding = 1e-6 if dtype == "float32" else 1e-13
    assert (found.mu <= exact[:, 0] + rounding * exact[:, -1]).all()
    assert (exact[:, -1] <= found.nu).all()
    assert (np.asarray(found.mu) > 0.01 * exact[:, 0]).all()
    assert (np.asarray(found.nu) < 5 * exact[:, -1]).all()
    # Where V is small, M_0 is all of the kernel, and both bounds are attained.
    small = np.asarray(found.mu)[[2, 5]] / exact[[2, 5], 0]
    assert ((small > 0.9) & (small <= 1 + 10 * rounding)).all()


def test_fewer_neurons_than_samples_and_a_kink():
    """μ is 0; β is infinite, where V = 0 too."""
    found = compiled(lambda v: near_isometry(v, normal(3, 5, 3), jax.nn.relu))(
        initialize(4, 3, 4, 1, omega2=0)
    )
    assert found.mu == 0
    assert found.smoothness == np.inf


def test_memory_of_the_singular_values_is_linear_in_the_width():
    """With square factors they asked for 2.9 GB here, 8 d_1²."""
    variables = jax.tree.map(
        lambda shape: jax.ShapeDtypeStruct(shape, jnp.float64),
        {"params": {"hidden": (1, 19_000), "output": (19_000, 1)}},
        is_leaf=lambda leaf: isinstance(leaf, tuple),
    )
    program = compiled(lambda v: near_isometry(v, jnp.ones((2, 1)), jax.nn.relu)).lower(variables)
    assert program.compile().memory_analysis().temp_size_in_bytes < 10_000_000


def test_smoothness_bounds_the_change_of_the_jacobian():
    """‖∇Φ(u) − ∇Φ(v)‖ ≤ β ‖u − v‖/√2 with χ of both ends; long inputs need their factor."""

    @compiled
    def both(u, v, x):
        def jacobian(variables):
            leaves = jax.jacrev(lambda w: predict(w, x, gelu).reshape(-1))(variables)
            return jnp.concatenate(
                [leaf.reshape(8, -1) for leaf in jax.tree.leaves(leaves)], axis=1
            )

        chi = jnp.maximum(*(jnp.linalg.norm(end["params"]["output"], 2) for end in (u, v)))
        change = jnp.linalg.norm(jacobian(v) - jacobian(u), 2)
        squares = jax.tree.map(lambda a, b: jnp.sum((a - b) ** 2), u, v)
        distance = jnp.sqrt(sum(jax.tree.leaves(squares)))
        return change / distance, near_isometry(u, x, gelu, largest_output_norm=chi).smoothness

    unit = normal(5, 4, 3) / jnp.linalg.norm(normal(5, 4, 3), axis=1)[:, None]
    for factor, omega2 in ((1.0, 0.1), (3.0, 2.0)):
        start, end = (initialize(seed, 3, 6, 2, 0.4, omega2) for seed in (6, 7))
        for step in (1.0, 1e-3):
            far = jax.tree.map(lambda a, b, s=step: a + s * (b - a), start, end)
            ratio, smoothness = both(start, far, factor * unit)
            assert 0.01 * smoothness < ratio <= smoothness / math.sqrt(2)


def test_lemma_3_in_closed_form():
    """φ = identity: μ = σ_min(X W), β = √2 σ_max(X)."""
    x, variables = normal(8, 3, 4), initialize(9, 4, 5, 2)
    hidden, output = (np.asarray(leaf) for leaf in jax.tree.leaves(variables))
    found = compiled(lambda v: near_isometry(v, x, _identity, largest_output_norm=7.0))(variables)
    singular = np.linalg.svd(np.asarray(x) @ hidden, compute_uv=False)
    longest = np.linalg.norm(x, 2)
    assert_close(found.mu, singular[-1])
    assert_close(found.nu, longest * np.linalg.norm(output, 2) + singular[0])
    assert_close(found.smoothness, math.sqrt(2) * longest)
    assert_close(data_norm(x), longest)


def _identity(z):
    return z


def test_constants_of_gelu():
    found = constants(gelu, terms=3)
    assert found.slope == pytest.approx(1.1289041, abs=5e-8)
    assert found.curvature == pytest.approx(0.7978846, abs=5e-8)  # √(2/π), at 0
    root = math.sqrt(math.pi)
    np.testing.assert_allclose(
        found.coefficients, [1 / (2 * root), 0.5, 3 / (4 * root)], rtol=1e-14
    )
    assert found.tail == pytest.approx(0.0956440, abs=5e-8)
    assert found.exponents.r2 == -np.inf
    assert found.exponents.r1 == pytest.approx(1.2945282, abs=1e-7)
    inside = []
    jax.jit(lambda s: inside.append(constants(gelu, terms=3)) or s)(1.0)  # numbers, in a trace too
    np.testing.assert_array_equal(inside[0].coefficients, found.coefficients)


def khatri_rao(x, t):
    """X^{*t}: column i is x_i ⊗ … ⊗ x_i, d_0^t numbers."""
    return np.stack([functools.reduce(np.kron, [row] * t) for row in np.asarray(x)], axis=1)


def test_powers_are_the_khatri_rao_product():
    x = normal(10, 3, 3)
    powers = range(1, 4)
    found = compiled(
        lambda: [(power_gram(x, t), power_smallest_singular_value(x, t)) for t in powers]
    )()
    for t, (matrix, smallest) in zip(powers, found, strict=True):
        explicit = khatri_rao(x, t)
        assert explicit.shape[0] == 3**t
        assert_close(matrix, explicit.T @ explicit)
        singular = np.linalg.svd(explicit, compute_uv=False)
        assert float(smallest) == pytest.approx(singular[-1], rel=1e-8)


@pytest.mark.parametrize(("d_0", "t", "rank"), [(3, 2, 6), (2, 3, 4)])
def test_rank_of_the_powers(d_0, t, rank):
    """C(d_0 + t − 1, t), below the d_0^t that the paper asks n to stay under."""
    assert power_rank(d_0, t) == rank
    x = normal(11, rank + 2, d_0)
    assert np.linalg.matrix_rank(khatri_rao(x, t)) == rank < d_0**t
    smallest = lambda n: power_smallest_singular_value(x[:n], t)  # noqa: E731
    above, at = compiled(lambda: (smallest(rank + 1), smallest(rank)))()
    assert above == 0
    assert at > 0


def test_power_zero_is_one_row():
    """X^{*0} = 1ᵀ has the Gram matrix 11ᵀ; the printed X^{*0} = 11ᵀ has n 11ᵀ."""
    x, square = normal(12, 3, 2), np.ones((3, 3))
    right, printed = compiled(lambda: (power_gram(x, 0), power_gram(x, 0, printed=True)))()
    assert right.tolist() == square.tolist()
    assert printed.tolist() == (square.T @ square).tolist()


def test_errors():
    with pytest.raises(ValueError, match="t is -1; expected a whole number greater than 0"):
        power_gram(jnp.ones((2, 2)), -1)
    with pytest.raises(ValueError, match="d_0 is 0; expected a whole number"):
        power_rank(0, 2)
    with pytest.raises(ValueError, match="activation turns an array of shape"):
        constants(jnp.sum)
    with pytest.raises(ValueError, match="scale is traced; expected a number"):
        jax.jit(lambda s: constants(gelu, scale=s))(1.0)
    with pytest.raises(ValueError, match=r"largest_output_norm is -1\.0; expected 0 or greater"):
        near_isometry(initialize(0, 2, 3, 1), np.ones((2, 2)), gelu, largest_output_norm=-1.0)
