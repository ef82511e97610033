"""Dictionaries of random unit atoms, the columns of an (n, m) matrix, and their incoherence."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from ntkflow import checks
from ntkflow.data.synthetic import sphere

_SWEEPS = 2000  # of alternating projections; what is feasible with room takes some hundred
_MARGIN = 0.98  # aim below the bound, or projections approach it from above without end


def random_dictionary(
    key: Array,
    n: int,
    m: int,
    *,
    incoherence: float | None = None,
    normalize: bool = True,
    std: float | None = None,
    dtype: Any = float,
) -> Array:
    """Draw a dictionary of m random atoms in n dimensions.

    Args:
      key: PRNG key.
      n, m: dimension and number of atoms, static.
      incoherence: μ of |⟨A_i, A_j⟩| ≤ μ/√n, static; None leaves the atoms as drawn, uniform on the
        sphere. For m ≤ n, their inner products are shrunk to the bound; for m > n they are pushed
        apart by alternating projections, an eigendecomposition of (m, m) each, which closes in
        on the Welch bound μ/√n ≥ √((m−n)/(n(m−1))) but for few (n, m) cannot attain it.
      normalize: False leaves columns of random norm.
      std: of each entry, without normalization: 1/√n by default, atoms of norm about 1. The paper
        writes N(0, I/√n): as a variance, std = n^(−1/4), atoms have norm n^(1/4).
      dtype: floating-point type.

    Returns:
      A, shape (n, m).

    Raises:
      ValueError: n or m is no whole number greater than 0; μ is no number, below the Welch bound,
        or was not reached; μ without normalization, or `std` with it.

    Example:
      >>> dictionary = random_dictionary(jax.random.key(0), n=4, m=3, incoherence=0.5)
      >>> dictionary.shape, float(incoherence(dictionary).round(6))
      ((4, 3), 0.5)

    References:
      Nguyen, Wong and Hegde (2019b), definition 1 and section 6; Tropp, Dhillon, Heath and Strohmer
      (2005), "Designing structured tight frames via an alternating projection method".
    """
    n, m = checks.positive_int("n", n), checks.positive_int("m", m)
    if not normalize:
        if incoherence is not None:
            raise ValueError("incoherence is of unit columns; expected normalize=True with it.")
        std = 1 / math.sqrt(n) if std is None else std
        return std * jax.random.normal(key, (m, n), dtype).T
    if std is not None:
        raise ValueError(f"std is {std}, but columns are normalized; expected normalize=False.")
    welch = math.sqrt((m - n) / (n * (m - 1))) if m > n else 0.0
    cosine = math.inf if incoherence is None else _number(incoherence) / math.sqrt(n)
    if not cosine >= welch:
        raise ValueError(
            f"incoherence is {incoherence}; expected a number known before tracing, at least "
            f"{welch * math.sqrt(n):.4g}, the Welch bound of {m} atoms in {n} dimensions."
        )
    atoms = sphere(key, m, n, dtype).T
    if incoherence is None:
        return atoms
    if m <= n:
        return _shrink(atoms, cosine)
    aim = max(welch, _MARGIN * cosine)
    atoms, reached = _push_apart(jax.random.fold_in(key, 1), atoms, cosine, aim)
    if checks.is_concrete(reached) and reached > cosine:
        raise ValueError(
            f"incoherence {incoherence} was not reached in {_SWEEPS} alternating projections, but "
            f"{float(reached) * math.sqrt(n):.4g}; expected more than the Welch bound "
            f"{welch * math.sqrt(n):.4g}, which few pairs (n, m) attain."
        )
    return atoms


def incoherence(dictionary: ArrayLike) -> Array:
    """Compute μ = √n max_{i≠j} |⟨A_i, A_j⟩|, the smallest for which A is μ-incoherent.

    Args:
      dictionary: A, shape (n, m), columns of norm 1.

    Returns:
      A scalar; 0 for a single atom.

    Raises:
      ValueError: the dictionary is not of shape (n, m).

    Example:
      >>> float(incoherence(jnp.array([[1.0, 0.6], [0.0, 0.8]])).__round__(4))
      0.8485

    Reference: Nguyen, Wong and Hegde (2019b), definition 1.
    """
    dictionary = check_atoms(dictionary)
    return math.sqrt(dictionary.shape[0]) * _coherence(dictionary)


def check_atoms(dictionary: ArrayLike) -> Array:
    """A dictionary as a floating-point array of shape (n, m), finite where it can be read."""
    array = jnp.asarray(dictionary)
    if array.ndim != 2 or 0 in array.shape:
        raise ValueError(
            f"dictionary has shape {array.shape}; expected (n, m), each column an atom."
        )
    return checks.matrix("dictionary", array)


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError, jax.errors.ConcretizationTypeError):
        return math.nan


def _coherence(atoms: Array) -> Array:
    gram = jnp.matmul(atoms.T, atoms, precision=jax.lax.Precision.HIGHEST)
    return jnp.max(jnp.abs(gram - jnp.diag(jnp.diag(gram))))


@jax.jit
def _shrink(atoms: Array, cosine: Any) -> Array:
    # Unit atoms with Gram matrix I + t (AᵀA − I), as close to A as their span allows.
    m, eps = atoms.shape[1], jnp.finfo(atoms.dtype).eps
    scale = jnp.minimum(1, cosine * (1 - 8 * m * eps) / jnp.maximum(_coherence(atoms), eps))
    left, singular, right = jnp.linalg.svd(atoms, full_matrices=False)
    shrunk = jnp.sqrt(1 + scale * (jnp.square(singular) - 1))
    atoms = jnp.where(scale < 1, (left * shrunk[None, :]) @ right, atoms)
    return atoms / jnp.linalg.norm(atoms, axis=0, keepdims=True)


@jax.jit
def _push_apart(key: Array, atoms: Array, cosine: Any, aim: Any) -> tuple[Array, Array]:
    n, m = atoms.shape

    def unfinished(state):
        _, reached, sweep = state
        return (reached > cosine) & (sweep < _SWEEPS)

    def sweep(state):
        atoms, _, sweep = state
        gram = jnp.clip(atoms.T @ atoms, -aim, aim).astype(atoms.dtype)
        gram = jnp.where(jnp.eye(m, dtype=bool), 1, gram)
        values, vectors = jnp.linalg.eigh(gram)
        scales = jnp.sqrt(jnp.maximum(values[-n:], 0))
        atoms = scales[:, None] * vectors[:, -n:].T
        atoms = atoms / jnp.linalg.norm(atoms, axis=0, keepdims=True)
        return atoms, _coherence(atoms), sweep + 1

    atoms, reached, sweeps = jax.lax.while_loop(unfinished, sweep, (atoms, _coherence(atoms), 0))
    # Eigenvectors have no direction of their own: a random rotation makes the law isotropic.
    rotation, triangle = jnp.linalg.qr(jax.random.normal(key, (n, n), atoms.dtype))
    rotated = (rotation * jnp.sign(jnp.diag(triangle))[None, :]) @ atoms
    return jnp.where(sweeps > 0, rotated, atoms), reached
