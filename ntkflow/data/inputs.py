"""Inputs that theorems forbid: zero rows, norms other than 1, pairs of parallel rows."""

from collections.abc import Iterator
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from ntkflow.checks import is_concrete, matrix

_BLOCK = 1024  # rows on each side of a tile of the Gram matrix: 8 MB in float64
_SHOWN = 5


class Violations(NamedTuple):
    """Where inputs break what theorems ask of them; NumPy arrays of row numbers.

    Attributes:
      zero: rows that are zero, shape (a,).
      norm: other rows whose norm is not 1, shape (b,).
      parallel: pairs i < j of parallel or antiparallel rows, shape (c, 2), sorted.
    """

    zero: np.ndarray
    norm: np.ndarray
    parallel: np.ndarray

    @property
    def redundant(self) -> np.ndarray:
        """Rows whose removal leaves no zero row and no parallel pair: the later of each pair.

        >>> x = jnp.array([[1.0, 0.0], [0.0, 1.0], [-2.0, 0.0], [0.0, 0.0]])
        >>> jnp.delete(x, find_violations(x).redundant, axis=0).tolist()
        [[1.0, 0.0], [0.0, 1.0]]
        """
        return np.union1d(self.zero, self.parallel[:, 1])


def find_violations(x: ArrayLike, *, tolerance: float | None = None) -> Violations:
    """Find zero rows, rows of norm other than 1, and all pairs of parallel rows.

    Two rows count as parallel if their directions u = x/‖x‖ are close: ‖uᵢ − uⱼ‖ or ‖uᵢ + uⱼ‖
    at most `tolerance`, which is their angle in radians, for small angles. This difference is
    resolved down to rounding, whereas 1 − |cos| = angle²/2 loses angles below √eps. So small an
    angle matters: two inputs of norm 1 at angle θ bound the two-layer ReLU network's λ₀ by
    θ/(2π), to first order in θ.

    By default the tolerance is (8 + √d)·eps, with eps that of x's type: what rounding does to
    two multiples of one vector, and to the norm of a vector that was divided by its own. For
    d = 64 this is 1.9e-6 in float32 and 3.6e-15 in float64.

    Computed on the host in float64, tile by tile: O(n²d) time, and next to a tile, memory for the
    pairs that are found (if all n rows are parallel, n²/2 of them).

    Args:
      x: inputs, shape (n, d).
      tolerance: largest deviation from norm 1, and smallest angle in radians, that pass.

    Returns:
      `Violations`.

    Raises:
      ValueError: x is no finite matrix, is traced, or the tolerance is not in [0, 1).

    Example:
      >>> find_violations(jnp.array([[1.0, 0.0], [0.0, 2.0], [-1.0, 0.0]]))
      Violations(zero=array([], dtype=int64), norm=array([1]), parallel=array([[0, 2]]))
    """
    rows, tolerance = _door(x, tolerance)
    exponent, norm = _norms(rows)
    blocks = list(_parallel(rows, exponent, norm, tolerance))
    pairs = np.concatenate([np.empty((0, 2), dtype=int), *blocks])
    return Violations(*_zero_and_norm(exponent, norm, tolerance), pairs)


def check_inputs(
    x: ArrayLike,
    *,
    unit_norm: bool = True,
    largest_norm: float | None = None,
    tolerance: float | None = None,
) -> None:
    """Refuse inputs that the convergence theorems exclude, naming the rows.

    Theorems 2.2 and 2.3 ask for ‖xᵢ‖ = 1, and Theorem 2.1 for no two parallel inputs, so that
    λ₀ = λ_min(H^∞) > 0. Antiparallel inputs are parallel (Lemma 3.23: neither lies in the other's
    span), although the two-layer ReLU network's H^∞ alone is not singular there.

    With `largest_norm=1.0` this is (a) and (b) of Assumption 2.1 of Caron et al. (2023), who ask
    for 0 < ‖xᵢ‖ ≤ 1 and no two collinear inputs. Their (c) is a definition: C = max |yᵢ|.

    Args:
      x: inputs, shape (n, d).
      unit_norm: whether norms other than 1 are refused, too.
      largest_norm: all norms up to this pass instead, up to the relative tolerance.
      tolerance: as in `find_violations`, which returns the rows instead.

    Raises:
      ValueError: zero rows, norms other than 1, or parallel rows: how many, and the first few; or
        what `find_violations` refuses.

    Example:
      >>> check_inputs(jnp.eye(3))
      >>> check_inputs(jnp.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]))
      Traceback (most recent call last):
      ...
      ValueError: Inputs that the theorems exclude: 1 pair of parallel rows: (0, 2). ...

    Reference:
      S. S. Du, "Gradient Descent for Non-convex Problems in Modern Machine Learning" (2019),
      Theorems 2.1 to 2.3.
    """
    rows, tolerance = _door(x, tolerance)
    exponent, norm = _norms(rows)
    zero, off = _zero_and_norm(exponent, norm, tolerance)
    wanted = "norm 1" if unit_norm else "norm > 0"
    if largest_norm is not None:
        if not 0 < largest_norm < np.inf:
            raise ValueError(f"largest_norm is {largest_norm}; expected a number greater than 0.")
        with np.errstate(over="ignore"):
            off = np.flatnonzero(np.ldexp(norm, exponent) > largest_norm * (1 + tolerance))
        wanted = f"norm in (0, {largest_norm:g}]"
    count, first = 0, np.empty((0, 2), dtype=int)
    for pairs in _parallel(rows, exponent, norm, tolerance):
        first = np.concatenate([first, pairs])[:_SHOWN]
        count += len(pairs)

    found = []
    if len(zero):
        found.append(f"{_plural(len(zero), 'zero row')}: {_few(zero.tolist(), len(zero))}")
    if (unit_norm or largest_norm is not None) and len(off):
        norms = np.ldexp(norm[off[:_SHOWN]], exponent[off[:_SHOWN]])
        listed = [f"{i} (‖x‖ = {value:.6g})" for i, value in zip(off, norms, strict=False)]
        which = "other than 1" if largest_norm is None else f"above {largest_norm:g}"
        found.append(f"{_plural(len(off), 'row')} of norm {which}: {_few(listed, len(off))}")
    if count:
        listed = [f"({i}, {j})" for i, j in first]
        found.append(f"{_plural(count, 'pair')} of parallel rows: {_few(listed, count)}")
    if found:
        raise ValueError(
            f"Inputs that the theorems exclude: {'; '.join(found)}. Expected rows of {wanted}, no "
            f"two parallel or antiparallel (up to {tolerance:.1e}). Divide x by its rows' norms; "
            "drop find_violations(x).redundant."
        )


def _door(x: ArrayLike, tolerance: float | None) -> tuple[np.ndarray, float]:
    x = matrix("x", x)
    if not is_concrete(x):
        raise ValueError(
            "x is traced or spread over hosts, so that its values cannot be read; "
            "expected an array of this host: check the inputs outside jit and vmap."
        )
    if tolerance is None:
        tolerance = (8 + x.shape[1] ** 0.5) * float(jnp.finfo(x.dtype).eps)
    if not 0 <= tolerance < 1:
        raise ValueError(f"tolerance is {tolerance}; expected an angle in radians in [0, 1).")
    return np.asarray(x), tolerance


def _norms(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Norms as norm·2^exponent, so that squares of huge and tiny rows stay in range."""
    exponent = np.frexp(np.abs(x).max(axis=1).astype(float))[1]
    norm = np.empty(len(x))
    for start in range(0, len(x), _BLOCK):
        tile = slice(start, start + _BLOCK)
        scaled = np.ldexp(x[tile].astype(float), -exponent[tile, None])
        norm[tile] = np.sqrt(np.einsum("ij,ij->i", scaled, scaled))
    return exponent, norm


def _zero_and_norm(
    exponent: np.ndarray, norm: np.ndarray, tolerance: float
) -> tuple[np.ndarray, np.ndarray]:
    with np.errstate(over="ignore"):
        value = np.ldexp(norm, exponent)
    return np.flatnonzero(norm == 0), np.flatnonzero((norm > 0) & (np.abs(value - 1) > tolerance))


def _parallel(
    x: np.ndarray, exponent: np.ndarray, norm: np.ndarray, tolerance: float
) -> Iterator[np.ndarray]:
    """Pairs i < j of parallel rows in order, for one block of rows i after another."""
    divisor = np.where(norm > 0, norm, 1)  # zero rows stay zero, and parallel to none

    def directions(start: int) -> np.ndarray:
        tile = slice(start, start + _BLOCK)
        return np.ldexp(x[tile].astype(float), -exponent[tile, None]) / divisor[tile, None]

    # The tile of cosines selects, with room for its rounding; the difference decides.
    threshold = 1 - tolerance**2 / 2 - (x.shape[1] + 8) * np.finfo(float).eps
    for top in range(0, len(x), _BLOCK):
        rows, found = directions(top), []
        for left in range(top, len(x), _BLOCK):
            columns = rows if left == top else directions(left)
            cosine = rows @ columns.T
            for i, j in _candidates(np.abs(cosine) >= threshold, diagonal=left == top):
                sign = np.sign(cosine[i, j])[:, None]
                distance = np.linalg.norm(rows[i] - sign * columns[j], axis=1)
                close = distance <= tolerance
                found.append(np.stack([top + i[close], left + j[close]], axis=1))
        if found:
            pairs = np.concatenate(found)
            yield pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]


def _candidates(near: np.ndarray, diagonal: bool) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    if diagonal:
        near = np.triu(near, 1)
    i, j = np.nonzero(near)
    for start in range(0, len(i), _BLOCK):
        yield i[start : start + _BLOCK], j[start : start + _BLOCK]


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}{'s' * (count != 1)}"


def _few(entries: list, count: int) -> str:
    return ", ".join(map(str, entries[:_SHOWN])) + (", ..." if count > _SHOWN else "")
