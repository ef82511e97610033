"""How near weights are to the dictionary, up to a permutation of columns, and signs if asked."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from ntkflow.systems.sparse_autoencoder.arguments import pair


class Alignment(NamedTuple):
    """Weights W brought into the order of the dictionary A, π(W).

    Attributes:
      weights: π(W), shape (n, m): column j is signs[j] times column permutation[j] of W.
      permutation: shape (m,), the hidden unit of each atom.
      signs: ±1, shape (m,); all 1 where signs were not asked for.
      error: ‖π(W) − A‖_F, a scalar.
      distances: ‖π(W)_j − A_j‖, shape (m,).
    """

    weights: jax.Array
    permutation: jax.Array
    signs: jax.Array
    error: jax.Array
    distances: jax.Array


def align(weights: ArrayLike, dictionary: ArrayLike, *, signs: bool = False) -> Alignment:
    """Find the π that minimizes ‖π(W) − A‖_F: optimal assignment, in O(m³).

    As Σ_j ‖W_π(j)‖² is the same for all π, the best maximizes Σ_j ⟨W_π(j), A_j⟩, or with signs
    Σ_j |⟨W_π(j), A_j⟩|. It may be jitted and mapped; the derivative is that of π held fixed.

    Args:
      weights: W, shape (n, m); columns of any norm.
      dictionary: A, shape (n, m).
      signs: whether π may flip columns, as in the recovery of the sparse coding model.

    Returns:
      The `Alignment`. Where W holds NaN or infinite values, so do the error and some distances.

    Raises:
      ValueError: the shapes are not (n, m) and the same; A holds NaN.

    Example:
      >>> dictionary = jnp.eye(3)
      >>> found = align(-dictionary[:, jnp.array([2, 0, 1])], dictionary, signs=True)
      >>> found.permutation.tolist(), found.signs.tolist(), float(found.error)
      ([1, 2, 0], [-1.0, -1.0, -1.0], 0.0)

    Reference: Nguyen, Wong and Hegde (2019b), definition 2 and section 6.
    """
    return _align(*pair(weights, dictionary), signs)


def closeness(weights: ArrayLike, dictionary: ArrayLike, *, signs: bool = False) -> jax.Array:
    """Compute the smallest δ for which W is δ-close to A: min over π of max_j ‖π(W)_j − A_j‖.

    A bottleneck assignment, which the π of `align` need not attain. The largest distance of that
    π bounds it from above, the largest distance of a column to its nearest one from below; where
    the two differ, bisection over the m² distances between them asks for perfect matchings. Near
    the truth they agree and the time is that of `align`; far from it, up to 2 log₂ m times more.

    Args:
      weights, dictionary, signs: as for `align`.

    Returns:
      A scalar, NaN where W holds NaN or infinite values.

    Raises:
      ValueError: as for `align`.

    Example:
      >>> float(closeness(jnp.array([[0.0, 0.5], [1.0, 0.0]]), jnp.eye(2)))
      0.5

    Reference: Nguyen, Wong and Hegde (2019b), definition 2.
    """
    return _closeness(*pair(weights, dictionary), signs)


def is_close(
    weights: ArrayLike, dictionary: ArrayLike, delta: ArrayLike, *, signs: bool = False
) -> jax.Array:
    """Whether W is δ-close to A: ‖π(W)_j − A_j‖ ≤ δ for all j and some π.

    Reference: Nguyen, Wong and Hegde (2019b), definition 2.
    """
    return closeness(weights, dictionary, signs=signs) <= delta


def is_near(
    weights: ArrayLike,
    dictionary: ArrayLike,
    delta: ArrayLike,
    xi: ArrayLike = 2.0,
    *,
    signs: bool = False,
) -> jax.Array:
    """Whether W is (δ, ξ)-near to A: δ-close by some π with ‖π(W) − A‖ ≤ ξ‖A‖, spectral norms.

    Of the π that δ-closeness allows, the one with the smallest ‖π(W) − A‖_F is tried. It is the
    only one if 2δ is less than the smallest distance of two atoms (and of A_i and −A_j, with
    signs); else the answer may be a false no, never a false yes.

    Example:
      >>> bool(is_near(0.9 * jnp.eye(3), jnp.eye(3), delta=0.2, xi=0.05))
      False

    Reference: Nguyen, Wong and Hegde (2019b), definition 2; theorem 4 has ξ = 2.
    """
    return _is_near(*pair(weights, dictionary), delta, xi, signs)


# Compiled here, since the assignment's own loops would be compiled anew at each eager call.
@functools.partial(jax.jit, static_argnums=2)
def _align(weights: jax.Array, dictionary: jax.Array, signs: bool) -> Alignment:
    inner = jnp.matmul(weights.T, dictionary, precision=jax.lax.Precision.HIGHEST)
    return _aligned(weights, dictionary, _assign(-jnp.abs(inner) if signs else -inner), signs)


@functools.partial(jax.jit, static_argnums=2)
def _closeness(weights: jax.Array, dictionary: jax.Array, signs: bool) -> jax.Array:
    distances = _distances(weights, dictionary, signs)
    diverged = ~jnp.all(jnp.isfinite(distances))
    distances = jax.lax.stop_gradient(jnp.where(diverged, 0, distances))
    ordered = jnp.sort(distances.reshape(-1))
    nearest = jnp.maximum(distances.min(axis=0).max(), distances.min(axis=1).max())
    reached = _chosen(distances, _assign(jnp.square(distances))).max()

    def undecided(bounds):
        return bounds[0] < bounds[1]

    def bisect(bounds):
        low, high = bounds
        middle = (low + high) // 2
        forbidden = (distances > ordered[middle]).astype(distances.dtype)
        possible = _chosen(forbidden, _assign(forbidden)).sum() == 0
        return jnp.where(possible, low, middle + 1), jnp.where(possible, middle, high)

    bounds = jnp.searchsorted(ordered, nearest), jnp.searchsorted(ordered, reached)
    _, place = jax.lax.while_loop(undecided, bisect, bounds)
    return jnp.where(diverged, jnp.nan, ordered[place])


@functools.partial(jax.jit, static_argnums=4)
def _is_near(
    weights: jax.Array, dictionary: jax.Array, delta: ArrayLike, xi: ArrayLike, signs: bool
) -> jax.Array:
    distances = _distances(weights, dictionary, signs)
    unit = jnp.maximum(jnp.asarray(delta, distances.dtype), jnp.finfo(distances.dtype).tiny)
    # One forbidden pair costs more than all allowed ones together.
    cost = jnp.where(distances <= delta, jnp.square(distances / unit), 1.0 + distances.shape[1])
    permutation = _assign(cost)
    aligned = _aligned(weights, dictionary, permutation, signs)
    difference = jnp.linalg.norm(aligned.weights - dictionary, ord=2)
    near = difference <= xi * jnp.linalg.norm(dictionary, ord=2)
    return near & jnp.all(_chosen(distances, permutation) <= delta)


def _distances(weights: jax.Array, dictionary: jax.Array, signs: bool) -> jax.Array:
    """‖W_i − A_j‖ at [i, j], with signs the smaller of ‖±W_i − A_j‖."""

    # By differences, atom after atom: norms and inner products would lose what is below √eps.
    def to_atom(atom):
        distances = jnp.linalg.norm(weights - atom[:, None], axis=0)
        if signs:
            distances = jnp.minimum(distances, jnp.linalg.norm(weights + atom[:, None], axis=0))
        return distances

    return jax.lax.map(to_atom, dictionary.T).T


def _assign(cost: jax.Array) -> jax.Array:
    """The row of each column in the assignment of least cost; any where costs are not finite."""
    cost = jax.lax.stop_gradient(cost)
    cost = jnp.where(jnp.all(jnp.isfinite(cost)), cost, 0)
    rows, columns = optax.assignment.hungarian_algorithm(cost)
    return jnp.zeros_like(rows).at[columns].set(rows)


def _chosen(matrix: jax.Array, permutation: jax.Array) -> jax.Array:
    return jnp.take_along_axis(matrix, permutation[None, :], axis=0)[0]


def _aligned(
    weights: jax.Array, dictionary: jax.Array, permutation: jax.Array, signs: bool
) -> Alignment:
    taken = jnp.take(weights, permutation, axis=1)
    ones = jnp.ones(weights.shape[1], taken.dtype)
    flips = jnp.where(jnp.sum(taken * dictionary, axis=0) < 0, -ones, ones) if signs else ones
    taken = flips[None, :] * taken
    squares = jnp.sum(jnp.square(taken - dictionary), axis=0)
    return Alignment(taken, permutation, flips, _root(jnp.sum(squares)), _root(squares))


def _root(squares: jax.Array) -> jax.Array:
    """√q with derivative 0 at 0, where W = A; NaN stays NaN."""
    zero = squares == 0
    return jnp.where(zero, 0, jnp.sqrt(jnp.where(zero, 1, squares)))
