"""Weights to start from: perturbed truth, principal components, random, spectral; a projection."""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from ntkflow import checks
from ntkflow.data.dictionaries import check_atoms, random_dictionary
from ntkflow.systems.sparse_autoencoder.arguments import pair
from ntkflow.systems.sparse_autoencoder.network import product

_SWEEPS = 10_000  # of Dykstra's projections; they stop by themselves where rounding stops them


class Spectral(NamedTuple):
    """What `spectral` found.

    Attributes:
      weights: shape (n, m), columns of norm 1, of either sign; zero from column `found` on.
      found: number of columns found, m at best.
      attempts: number of pairs of samples tried.
    """

    weights: jax.Array
    found: jax.Array
    attempts: jax.Array


def perturbed(
    key: jax.Array, dictionary: ArrayLike, delta: ArrayLike, *, std: float | None = None
) -> jax.Array:
    """Draw A + δE with independent normal entries of E, columns δ-close to A, roughly.

    Args:
      key: PRNG key.
      dictionary: A, shape (n, m).
      delta: δ.
      std: of the entries of E: 1/√n by default, columns of norm about 1. The paper writes
        N(0, 1/√n): as a variance, std = n^(−1/4), columns have norm n^(1/4).

    Raises:
      ValueError: the dictionary is not of shape (n, m), or holds NaN.

    Example:
      >>> perturbed(jax.random.key(0), jnp.eye(3, 2), delta=0.0).tolist()
      [[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]]

    Reference: Nguyen, Wong and Hegde (2019b), section 6, initialization (i).
    """
    dictionary = check_atoms(dictionary)
    n, m = dictionary.shape
    return dictionary + delta * random_weights(key, n, m, std=std, dtype=dictionary.dtype)


def random_weights(
    key: jax.Array, n: int, m: int, *, std: float | None = None, dtype: Any = float
) -> jax.Array:
    """Draw weights (n, m) with entries N(0, 1/n), or of the standard deviation `std`.

    Raises:
      ValueError: n or m is no whole number greater than 0.

    Reference: Nguyen, Wong and Hegde (2019b), section 6, initialization (iii).
    """
    return random_dictionary(key, n, m, normalize=False, std=std, dtype=dtype)


def principal_components(samples: ArrayLike, m: int, *, center: bool = False) -> jax.Array:
    """Compute the top m right singular vectors of the data, as columns of norm 1.

    A singular vector has no sign of its own: the entry of largest size is made positive. Time
    O(N n² + n³), by the eigenvectors of YᵀY.

    Args:
      samples: Y, shape (N, n).
      m: number of components, static.
      center: whether the mean of the samples is taken off first. The paper has "PCA of the data
        samples" and "singular vectors", and leaves this open; of a mixture, the second moments
        span all m means, the centred ones only their differences.

    Returns:
      Shape (n, m), the largest singular value first.

    Raises:
      ValueError: samples are not of shape (N, n), m > n or m > N (m ≥ N if centred).

    Example:
      >>> principal_components(jnp.array([[3.0, 0.0, 0.0], [0.0, 0.0, -4.0]]), 2).tolist()
      [[0.0, 1.0], [0.0, 0.0], [1.0, 0.0]]

    Reference: Nguyen, Wong and Hegde (2019b), section 6, initialization (ii).
    """
    samples, m = checks.matrix("samples", samples), checks.positive_int("m", m)
    count, n = samples.shape
    if m > min(n, count - center):
        raise ValueError(
            f"m is {m} and samples has shape {samples.shape}, (N, n); expected m ≤ n and m ≤ N"
            f"{' − 1' if center else ''}: there are no more components."
        )
    if center:
        samples = samples - jnp.mean(samples, axis=0, keepdims=True)
    _, vectors = jnp.linalg.eigh(product(samples.T, samples))
    top = vectors[:, ::-1][:, :m]
    largest = jnp.take_along_axis(top, jnp.argmax(jnp.abs(top), axis=0)[None, :], axis=0)
    return jnp.where(largest < 0, -top, top)


def spectral(
    key: jax.Array,
    samples: ArrayLike,
    m: int,
    sparsity: int,
    *,
    attempts: int = 1000,
    first: float = 0.5,
    second: float = 0.5,
    separation: float = 1.0,
) -> Spectral:
    """Find atoms of the sparse coding model by the spectra of pairwise reweighted moments.

    For two samples u, v, M = (1/N) Σ_s ⟨y_s, u⟩⟨y_s, v⟩ y_s y_sᵀ. Where u and v share exactly one
    atom, M is nearly of rank one, ± that atom being the singular vector. It is taken if
    σ_1(M) ≥ c_1 k/m and σ_2(M) < c_2 k/(m log m), and no column taken before is within
    c_3 / log m of ± it. Ends with m columns, or after `attempts` pairs.

    The theorem is asymptotic: it asks for an incoherent dictionary, and many samples. Fewer than m
    columns are returned as data: look at `found`. The original projects onto the set of
    `project_near` at the end, which needs A.

    Time O(N n² + n³) for each attempt. It may be jitted and mapped.

    Args:
      key: PRNG key.
      samples: shape (N, n), of the sparse coding model: κ_1 = 0, κ_2 = 1.
      m: number of atoms, static.
      sparsity: k.
      attempts: the largest number of pairs.
      first, second, separation: c_1, c_2 and c_3, which the original leaves open.

    Returns:
      `Spectral(weights, found, attempts)`.

    Raises:
      ValueError: samples are not of shape (N, n) with N ≥ 2; m or `attempts` is no whole number
        greater than 0; not 1 ≤ k ≤ m.

    Example:
      >>> atoms, (i, j) = jnp.eye(12), jnp.triu_indices(12, 1)
      >>> y = jnp.concatenate([atoms[i] + atoms[j], atoms[i] - atoms[j]])
      >>> found = spectral(jax.random.key(0), y, m=12, sparsity=2)
      >>> int(found.found), bool(jnp.all(jnp.abs(found.weights).max(axis=0) > 0.95))
      (12, True)

    References:
      Arora, Ge, Ma and Moitra (2015), "Simple, efficient, and neural algorithms for sparse coding",
      algorithm 3; Nguyen, Wong and Hegde (2019b), section 3, which cites it.
    """
    samples, m = checks.matrix("samples", samples), checks.positive_int("m", m)
    attempts = checks.positive_int("attempts", attempts)
    if samples.shape[0] < 2:
        raise ValueError(f"samples has shape {samples.shape}; expected two samples or more.")
    if checks.is_concrete(sparsity) and not 1 <= np.asarray(sparsity) <= m:
        raise ValueError(f"sparsity is {sparsity}; expected 1 ≤ k ≤ m = {m}.")
    constants = first, second, separation
    return _spectral(key, samples, m, sparsity, attempts, constants)


def project_near(
    weights: ArrayLike, dictionary: ArrayLike, delta: ArrayLike, factor: ArrayLike = 2.0
) -> jax.Array:
    """Project W onto B = {W : ‖W_i − A_i‖ ≤ δ for all i, ‖W‖ ≤ c‖A‖}, to its nearest point.

    ‖W‖ is the spectral norm. Dykstra's algorithm, between the balls of the columns and the clipping
    of singular values. B is convex, being about the identity permutation: `align` first. Weights
    that lie in B are returned as they are.

    Args:
      weights: W, shape (n, m).
      dictionary: A, shape (n, m).
      delta: δ ≥ 0.
      factor: c > 1.

    Returns:
      Shape (n, m), in B up to rounding.

    Raises:
      ValueError: the shapes are not (n, m) and the same; δ < 0 or c ≤ 1.

    Example:
      >>> project_near(jnp.diag(jnp.array([5.0, 1.2])), jnp.eye(2), delta=0.5).tolist()
      [[1.5, 0.0], [0.0, 1.2]]

    References:
      Nguyen, Wong and Hegde (2019b), appendix B.3; Boyle and Dykstra (1986), "A method for finding
      projections onto the intersection of convex sets in Hilbert spaces".
    """
    weights, dictionary = pair(weights, dictionary)
    if checks.is_concrete(delta) and not np.all(np.asarray(delta) >= 0):
        raise ValueError(f"delta is {delta}; expected a distance, 0 or greater.")
    if checks.is_concrete(factor) and not np.all(np.asarray(factor) > 1):
        raise ValueError(f"factor is {factor}; expected a number greater than 1.")
    weights = weights.astype(jnp.result_type(weights, dictionary))
    delta, factor = (jnp.asarray(number, weights.dtype) for number in (delta, factor))
    return _project_near(weights, dictionary, delta, factor)


# Compiled here and below, since the loops would be compiled anew at each eager call.
@functools.partial(jax.jit, static_argnums=2)
def _spectral(
    key: jax.Array,
    samples: jax.Array,
    m: int,
    sparsity: Any,
    attempts: Any,
    constants: tuple[Any, Any, Any],
) -> Spectral:
    (count, n), (first, second, separation) = samples.shape, constants
    scale, log = sparsity / m, math.log(max(m, 3))

    def unfinished(state):
        return (state.found < m) & (state.attempts < attempts)

    def attempt(state):
        offsets = jnp.array([0, 1]), jnp.array([count, count])  # the second is not the first
        drawn = jax.random.randint(jax.random.fold_in(key, state.attempts), (2,), *offsets)
        along = product(samples, samples[jnp.cumsum(drawn) % count].T)
        reweighted = (along[:, 0] * along[:, 1])[:, None] * samples
        values, vectors = jnp.linalg.eigh(product(reweighted.T, samples) / count)
        sizes = jnp.abs(values)
        place = jnp.argmax(sizes)
        vector = vectors[:, place]
        others = jnp.max(sizes.at[place].set(0))
        cosines = jnp.abs(product(state.weights.T, vector[:, None])[:, 0])
        distance = jnp.sqrt(jnp.maximum(2 - 2 * jnp.max(cosines), 0))  # of unit vectors, up to sign
        taken = (
            (sizes[place] >= first * scale)
            & (others < second * scale / log)
            & (distance > separation / log)
        )
        weights = state.weights.at[:, state.found].set(
            jnp.where(taken, vector, state.weights[:, state.found])
        )
        return Spectral(weights, state.found + taken, state.attempts + 1)

    zero = jnp.zeros((), jnp.int32)
    nothing = Spectral(jnp.zeros((n, m), samples.dtype), zero, zero)
    return jax.lax.while_loop(unfinished, attempt, nothing)


@jax.jit
def _project_near(
    weights: jax.Array, dictionary: jax.Array, delta: jax.Array, factor: jax.Array
) -> jax.Array:
    norm = jnp.linalg.norm(dictionary, ord=2)
    limit = factor * norm
    tolerance = 10 * jnp.finfo(weights.dtype).eps * (limit + jnp.linalg.norm(weights))

    def to_balls(point):
        difference = point - dictionary
        distance = jnp.linalg.norm(difference, axis=0, keepdims=True)
        outside = distance > delta
        return jnp.where(
            outside, dictionary + difference * (delta / jnp.where(outside, distance, 1)), point
        )

    def clip(point):
        left, singular, right = jnp.linalg.svd(point, full_matrices=False)
        clipped = product(left * jnp.minimum(singular, limit)[None, :], right)
        return jnp.where(singular[0] > limit, clipped, point)

    def unfinished(state):
        *_, moved, sweep = state
        return (moved > tolerance) & (sweep < _SWEEPS)

    # The corrections are followed, not the point: it may rest for a while and move on later.
    def sweep(state):
        point, ball_correction, clip_correction, _, sweep = state
        clipped = clip(point + clip_correction)
        new_clip = point + clip_correction - clipped
        inside = to_balls(clipped + ball_correction)
        new_ball = clipped + ball_correction - inside
        moved = jnp.linalg.norm(new_clip - clip_correction) + jnp.linalg.norm(
            new_ball - ball_correction
        )
        return inside, new_ball, new_clip, moved, sweep + 1

    zero = jnp.zeros_like(weights)
    start = (weights, zero, zero, jnp.full((), jnp.inf, weights.dtype), 0)
    point = jax.lax.while_loop(unfinished, sweep, start)[0]
    # What is left of the other condition goes by a step towards A, which lies inside of both.
    excess = jnp.linalg.norm(point, ord=2) - norm
    share = jnp.where(excess > limit - norm, (limit - norm) / excess, 1)
    return jnp.where(share < 1, dictionary + share * (point - dictionary), point)
