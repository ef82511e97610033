"""Parts of a data set drawn at random, and standardized by what the first of them is."""

import operator
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from ntkflow.checks import finite, floating, prng_key, same_length
from ntkflow.data.dataset import Dataset


def split(key: Array | int, dataset: Any, fractions: Sequence[float | int]) -> tuple[Dataset, ...]:
    """Shuffle a data set, and cut it into parts of given fractions.

    Part k ends at row round(n · (f_1 + ... + f_k)), so that fractions which sum to 1 leave no row
    out; what is beyond a smaller sum belongs to no part.

    Args:
      key: PRNG key, or a seed, a whole number, for `jax.random.key(seed)`.
      dataset: the pair (x, y).
      fractions: of the rows, each positive, sum at most 1; static.

    Returns:
      A `Dataset` for each fraction, without rows in common.

    Raises:
      ValueError: x and y of different lengths, fractions that are not positive or sum to more
        than 1, or one so small that it gets no row; a key that is none, and no seed.

    Example:
      >>> x, y = jnp.arange(10.0)[:, None], jnp.arange(10)
      >>> train, test, held_out = split(0, (x, y), (0.4, 0.2, 0.4))
      >>> len(train.y), len(test.y), len(held_out.y)
      (4, 2, 4)
      >>> sorted([*train.y.tolist(), *test.y.tolist(), *held_out.y.tolist()])
      [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
    """
    x, y = _pair("dataset", dataset)
    n = same_length(x=x, y=y)
    try:
        shares = [float(fraction) for fraction in fractions]
    except TypeError:  # a number alone, or traced ones
        shares = []
    # 0.4 + 0.2 + 0.4 exceeds 1 by a rounding.
    if not shares or not all(share > 0 for share in shares) or sum(shares) > 1 + 1e-9:
        raise ValueError(
            f"fractions is {fractions}; expected positive numbers whose sum is at most 1, e.g. "
            "(0.4, 0.2, 0.4), known before tracing."
        )
    ends = [round(n * min(sum(shares[: k + 1]), 1.0)) for k in range(len(shares))]
    starts = [0, *ends[:-1]]
    for share, start, end in zip(shares, starts, ends, strict=True):
        if start == end:
            raise ValueError(f"The fraction {share} of {n} rows holds none; expected at least one.")
    if key is None:
        raise ValueError("key is None; expected a PRNG key, or a seed, a whole number.")
    try:
        key = jax.random.key(operator.index(key))
    except TypeError:  # no seed
        prng_key(key)
    order = jax.random.permutation(key, n)
    x, y = jnp.asarray(x), jnp.asarray(y)
    return tuple(
        Dataset(x[order[start:end]], y[order[start:end]])
        for start, end in zip(starts, ends, strict=True)
    )


def standardize(train: Any, *others: Any, labels: bool = True) -> tuple[Dataset, ...]:
    """Shift and scale each column to mean 0 and standard deviation 1 on the training set.

    (x − mean)/std and, of real labels, (y − mean)/std, with mean and std (over n, not n − 1) of the
    training set for all sets. The null predictor then has a mean squared error of 1 in training. A
    column that is constant in training becomes 0 there, by a division by 1.

    Args:
      train: the pair (x, y), x of shape (n, ...), y of shape (n,) or (n, o).
      *others: more pairs, with columns alike.
      labels: whether y is standardized too; not for classes.

    Returns:
      A tuple of `Dataset`s, as many as were given.

    Raises:
      ValueError: lengths that differ, columns of another shape than in training, NaN, whole
        numbers as labels (class numbers) unless `labels=False`.

    Example:
      >>> train, test = standardize((jnp.array([[0.0], [2.0]]), jnp.array([1.0, 5.0])),
      ...                           (jnp.array([[3.0]]), jnp.array([3.0])))
      >>> train.x.tolist(), train.y.tolist(), test.x.tolist(), test.y.tolist()
      ([[-1.0], [1.0]], [-1.0, 1.0], [[2.0]], [0.0])
    """
    sets = [_pair(f"data set {k + 1}", given) for k, given in enumerate((train, *others))]
    for x, y in sets:
        same_length(x=x, y=y)
        finite("A data set", (x, y))
        if (jnp.shape(x)[1:], jnp.shape(y)[1:]) != tuple(jnp.shape(a)[1:] for a in sets[0]):
            raise ValueError(
                f"A data set has x of shape {jnp.shape(x)} and y of shape {jnp.shape(y)}, and the "
                f"training set {jnp.shape(sets[0][0])} and {jnp.shape(sets[0][1])}; expected the "
                "same but for the first axis."
            )
    if labels and not all(jnp.issubdtype(jnp.result_type(y), jnp.floating) for _, y in sets):
        raise ValueError(
            "The labels are whole numbers; expected real ones, or labels=False for class numbers, "
            "which leaves y as it is."
        )
    x_train, y_train = map(jnp.asarray, sets[0])
    return tuple(
        Dataset(_standardized(x, x_train), _standardized(y, y_train) if labels else jnp.asarray(y))
        for x, y in sets
    )


@jax.jit
def _standardized(array: Any, train: Any) -> Array:
    array, train = floating(array), floating(train)
    # From the first row on, a constant column is exactly 0, and an offset costs no digits.
    first = train[:1]
    moved = train - first
    largest = jnp.max(jnp.abs(moved), axis=0, keepdims=True)
    # In units of the largest, squares neither overflow nor vanish.
    unit = jnp.where(largest > 0, largest, jnp.ones_like(largest))
    moved = moved / unit
    mean, std = (f(moved, axis=0, keepdims=True) for f in (jnp.mean, jnp.std))
    return ((array - first) / unit - mean) / jnp.where(largest > 0, std, jnp.ones_like(std))


def _pair(name: str, data: Any) -> tuple[Any, Any]:
    if not isinstance(data, tuple | list) or len(data) != 2:
        raise ValueError(f"{name} is of type {type(data).__name__}; expected a pair (x, y).")
    x, y = data
    return x, y
