"""Data y = A x* + η of a dictionary A and sparse codes x*: mixtures of Gaussians, sparse coding."""

import functools
import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, get_args

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from ntkflow import checks
from ntkflow.data.dictionaries import check_atoms

Kind = Literal["mixture_of_gaussians", "sparse_coding", "nonnegative_sparse_coding"]
Codes = Literal["rademacher", "gaussian"]


class Samples(NamedTuple):
    """Draws of a `BilinearModel`.

    Attributes:
      y: what is observed, shape (N, n), samples are rows.
      codes: x*, shape (N, m), zero off the support.
    """

    y: Array
    codes: Array


class Moments(NamedTuple):
    """What the theorems ask of the codes x* with support S.

    Attributes:
      single: p_i = P[i ∈ S], the same for all i; p_ij and p_ijl likewise.
      pair: p_ij = P[i, j ∈ S], i ≠ j.
      triple: p_ijl = P[i, j, l ∈ S], all different.
      kappa_1: κ_1 = E[x_i* | i ∈ S].
      kappa_2: κ_2 = E[x_i*² | i ∈ S].
      smallest: a_1 ≤ |x_i*| for i ∈ S.
      largest: a_2 ≥ |x_i*|, inf where there is none.
    """

    single: float
    pair: float
    triple: float
    kappa_1: Any
    kappa_2: Any
    smallest: Any
    largest: Any


@flax.struct.dataclass
class BilinearModel:
    """The law y = A x* + η, η ~ N(0, σ² I), of the three builders of this file.

    The support of x* is a uniform subset of k of the m atoms, its entries there are independent.
    A pytree: dictionary, noise and the bounds of the codes are leaves, the rest is static.

    Attributes:
      dictionary: A, shape (n, m); column i is atom A_i.
      noise: σ, standard deviation of each entry of η.
      smallest, largest: a_1 and a_2.
      sparsity: k, static.
      kind: the builder's name, static.

    Reference: Nguyen, Wong and Hegde (2019b), "On the Dynamics of Gradient Descent for
      Autoencoders", equation (3) and assumptions A1–A4.
    """

    dictionary: Any
    noise: Any
    smallest: Any
    largest: Any
    sparsity: int = flax.struct.field(pytree_node=False)
    kind: Kind = flax.struct.field(pytree_node=False)

    @property
    def moments(self) -> Moments:
        """The exact moments of the codes.

        p_i = k/m, p_ij = p_i (k−1)/(m−1), p_ijl = p_ij (k−2)/(m−2); κ is (1, 1) for mixtures,
        (0, 1) for sparse coding, ((a_1 + a_2)/2, (a_1² + a_1 a_2 + a_2²)/3) for its non-negative
        relative.
        """
        k, m = self.sparsity, self.dictionary.shape[1]
        single = k / m
        pair = single * (k - 1) / max(m - 1, 1)
        triple = pair * (k - 2) / max(m - 2, 1)
        low, high = self.smallest, self.largest
        if self.kind == "nonnegative_sparse_coding":
            kappa_1, kappa_2 = (low + high) / 2, (low**2 + low * high + high**2) / 3
        else:
            kappa_2 = jnp.ones_like(low)
            kappa_1 = kappa_2 if self.kind == "mixture_of_gaussians" else jnp.zeros_like(low)
        return Moments(single, pair, triple, kappa_1, kappa_2, low, high)

    def sample(self, key: Array, samples: int) -> Samples:
        """Draw samples, in the dictionary's dtype.

        Time O(N (n m + k²)), memory O(N (n + m)).

        Args:
          key: PRNG key.
          samples: N, static.

        Raises:
          ValueError: N is no whole number greater than 0.
        """
        return _sample(self, key, checks.positive_int("samples", samples))


def mixture_of_gaussians(
    dictionary: ArrayLike, noise: ArrayLike = 0.0, *, unit: bool = True
) -> BilinearModel:
    """Build a mixture of m spherical Gaussians of equal weights, with the atoms as means.

    x* is uniform on the canonical basis: k = 1, κ_1 = κ_2 = a_1 = a_2 = 1.

    Args:
      dictionary: A, shape (n, m), columns of norm 1.
      noise: σ ≥ 0, standard deviation of each entry of η.
      unit: False lets columns of other norms pass. The paper's experiments draw them from
        N(0, I/n); its theorems, and everything that is derived from them, ask for norm 1.

    Raises:
      ValueError: the dictionary is not of shape (n, m), or a column has not norm 1; the noise is
        negative.

    Example:
      >>> model = mixture_of_gaussians(jnp.eye(3)[:, :2])
      >>> y, codes = model.sample(jax.random.key(0), 4)
      >>> bool((y == codes @ model.dictionary.T).all()), codes.sum(axis=1).tolist()
      (True, [1.0, 1.0, 1.0, 1.0])

    Reference: Nguyen, Wong and Hegde (2019b), section 2.2.
    """
    return _model("mixture_of_gaussians", dictionary, 1, 1.0, 1.0, noise, unit)


def sparse_coding(
    dictionary: ArrayLike,
    sparsity: int,
    noise: ArrayLike = 0.0,
    *,
    codes: Codes = "rademacher",
    smallest: ArrayLike | None = None,
) -> BilinearModel:
    """Build the k-sparse model with symmetric codes: κ_1 = 0, κ_2 = 1.

    "rademacher": x_i* = ±1 on the support. "gaussian": x_i* = ±√(a_1² + (1 − a_1²) z²) with
    z ~ N(0, 1), which is sub-Gaussian, of variance 1 for each a_1, and at least a_1 in size.

    Args:
      dictionary: A, shape (n, m), columns of norm 1.
      sparsity: k ≤ m, static.
      noise: σ ≥ 0, standard deviation of each entry of η.
      codes: "rademacher" or "gaussian".
      smallest: a_1 in (0, 1] of Gaussian codes; ½ by default.

    Raises:
      ValueError: as for `mixture_of_gaussians`; k is no whole number in 1..m; a_1 is not in
        (0, 1], or is given with Rademacher codes; unknown codes.

    Example:
      >>> model = sparse_coding(jnp.eye(4), sparsity=2, codes="gaussian")
      >>> y, codes = model.sample(jax.random.key(0), 5)
      >>> (codes != 0).sum(axis=1).tolist(), float(model.moments.pair).__round__(4)
      ([2, 2, 2, 2, 2], 0.1667)

    Reference: Nguyen, Wong and Hegde (2019b), section 2.2, which leaves the law of the codes open.
    """
    if codes not in get_args(Codes):
        raise ValueError(f"codes is {codes!r}; expected one of {list(get_args(Codes))}.")
    if codes == "rademacher":
        if smallest is not None:
            raise ValueError('Rademacher codes are ±1; expected smallest with codes="gaussian".')
        return _model("sparse_coding", dictionary, sparsity, 1.0, 1.0, noise)
    smallest = 0.5 if smallest is None else smallest
    _check_number(
        "smallest",
        smallest,
        lambda a_1: 0 < a_1 <= 1,
        "a number in (0, 1]: codes of variance 1 cannot all be larger than 1",
    )
    return _model("sparse_coding", dictionary, sparsity, smallest, math.inf, noise)


def nonnegative_sparse_coding(
    dictionary: ArrayLike,
    sparsity: int,
    smallest: ArrayLike,
    largest: ArrayLike,
    noise: ArrayLike = 0.0,
) -> BilinearModel:
    """Build the k-sparse model with non-negative codes, uniform on [a_1, a_2] on the support.

    Args:
      dictionary: A, shape (n, m), columns of norm 1.
      sparsity: k ≤ m, static.
      smallest, largest: 0 < a_1 ≤ a_2 < ∞.
      noise: σ ≥ 0, standard deviation of each entry of η.

    Raises:
      ValueError: as for `mixture_of_gaussians`; k is no whole number in 1..m; not
        0 < a_1 ≤ a_2 < ∞.

    Example:
      >>> model = nonnegative_sparse_coding(jnp.eye(4), 2, smallest=0.5, largest=1.5)
      >>> float(model.moments.kappa_1), float(model.moments.kappa_2).__round__(4)
      (1.0, 1.0833)

    Reference: Nguyen, Wong and Hegde (2019b), section 2.2; the uniform law is ours.
    """
    for name, number in (("smallest", smallest), ("largest", largest)):
        _check_number(name, number, lambda a: 0 < a < math.inf, "0 < a_1 ≤ a_2 < ∞")
    concrete = checks.is_concrete(smallest) and checks.is_concrete(largest)
    if concrete and np.asarray(smallest) > np.asarray(largest):
        raise ValueError(
            f"smallest is {smallest} and largest {largest}; expected 0 < a_1 ≤ a_2 < ∞."
        )
    return _model("nonnegative_sparse_coding", dictionary, sparsity, smallest, largest, noise)


@functools.partial(jax.jit, static_argnums=2)
def _sample(model: BilinearModel, key: Array, samples: int) -> Samples:
    (n, m), k, dtype = model.dictionary.shape, model.sparsity, model.dictionary.dtype
    key_support, key_values, key_noise = jax.random.split(key, 3)
    support = _subsets(key_support, samples, m, k)
    rows = jnp.arange(samples)[:, None]
    values = _values(model, key_values, (samples, k))
    codes = jnp.zeros((samples, m), dtype).at[rows, support].set(values)
    signal = jnp.matmul(codes, model.dictionary.T, precision=jax.lax.Precision.HIGHEST)
    return Samples(signal + model.noise * jax.random.normal(key_noise, (samples, n), dtype), codes)


def _values(model: BilinearModel, key: Array, shape: tuple[int, int]) -> Array:
    dtype = model.dictionary.dtype
    if model.kind == "mixture_of_gaussians":
        return jnp.ones(shape, dtype)
    if model.kind == "nonnegative_sparse_coding":
        return jax.random.uniform(key, shape, dtype, model.smallest, model.largest)
    key_sign, key_size = jax.random.split(key)
    squares = jnp.square(jax.random.normal(key_size, shape, dtype))
    floor = model.smallest**2
    # Rounding must not bring a code below a_1: the supports' margins are measured from there.
    size = jnp.maximum(jnp.sqrt(floor + (1 - floor) * squares), model.smallest)
    return size * jax.random.rademacher(key_sign, shape).astype(dtype)


def _subsets(key: Array, samples: int, m: int, k: int) -> Array:
    """Draw uniform k-subsets of 0..m−1 by Floyd's algorithm, shape (samples, k)."""
    tops = jnp.arange(m - k, m)
    drawn = jax.random.randint(key, (k, samples), 0, tops[:, None] + 1)

    def step(chosen, number_top_drawn):
        number, top, drawn = number_top_drawn
        taken = jnp.any(chosen == drawn[None, :], axis=0)
        return chosen.at[number].set(jnp.where(taken, top, drawn)), None

    nothing = jnp.full((k, samples), -1, drawn.dtype)
    chosen, _ = jax.lax.scan(step, nothing, (jnp.arange(k), tops.astype(drawn.dtype), drawn))
    return chosen.T


def _model(
    kind: Kind,
    dictionary: ArrayLike,
    sparsity: int,
    smallest: ArrayLike,
    largest: ArrayLike,
    noise: ArrayLike,
    unit: bool = True,
) -> BilinearModel:
    array = check_atoms(dictionary)
    if unit and checks.is_concrete(array):
        _check_unit(np.asarray(array))
    m = array.shape[1]
    sparsity = checks.positive_int("sparsity", sparsity)
    if sparsity > m:
        raise ValueError(
            f"sparsity is {sparsity}, but the dictionary of shape {array.shape} has {m} atoms "
            "(columns); expected k ≤ m. If atoms are rows, pass dictionary.T."
        )
    _check_number(
        "noise",
        noise,
        lambda sigma: 0 <= sigma < math.inf,
        "a standard deviation, 0 or greater, the same for all entries",
    )
    return BilinearModel(
        dictionary=array,
        noise=jnp.asarray(noise, array.dtype),
        smallest=jnp.asarray(smallest, array.dtype),
        largest=jnp.asarray(largest, array.dtype),
        sparsity=sparsity,
        kind=kind,
    )


def _check_number(name: str, value: Any, is_valid: Callable[[float], bool], expected: str) -> None:
    """Refuse what is no scalar, and a scalar that can be read and is not valid."""
    if checks.is_concrete(value):
        try:
            valid = is_valid(float(value))
        except (TypeError, ValueError):
            valid = False
    else:
        valid = jnp.ndim(value) == 0
    if not valid:
        raise ValueError(f"{name} is {value}; expected {expected}.")


def _check_unit(dictionary: np.ndarray) -> None:
    # A dictionary of single precision is one in double precision, too.
    eps = max(jnp.finfo(dictionary.dtype).eps, jnp.finfo(jnp.float32).eps)
    tolerance = 100 * max(dictionary.shape) ** 0.5 * float(eps)
    norms = np.linalg.norm(dictionary.astype(float), axis=0)
    wrong = np.flatnonzero(~(np.abs(norms - 1) <= tolerance))
    if not wrong.size:
        return
    rows = np.linalg.norm(dictionary.astype(float), axis=1)
    if np.all(np.abs(rows - 1) <= tolerance):
        hint = (
            "Its rows have norm 1: if they are the atoms, n and m are swapped; pass dictionary.T."
        )
    else:
        hint = "Columns are atoms: divide by jnp.linalg.norm(dictionary, axis=0, keepdims=True)."
    raise ValueError(
        f"dictionary of shape {dictionary.shape} has {wrong.size} columns whose norm is not 1, the "
        f"first at {wrong[0]} with norm {norms[wrong[0]]:.6g}. {hint}"
    )
