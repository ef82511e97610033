"""What a data set is: for the user a pair of arrays, for the readers of files some more."""

from typing import NamedTuple

import numpy as np
from jax import Array


class Dataset(NamedTuple):
    """Inputs and labels: the pair `(x, y)` that losses and runs take as `data`.

    Arrays only, so that it passes through `jit`, `vmap` and `pmap` as it is.

    Attributes:
      x: inputs, shape (n, ...).
      y: labels, shape (n,) or (n, o).
    """

    x: Array
    y: Array


class Samples(NamedTuple):
    """What a reader of files hands on, as it lies in the file.

    Attributes:
      x: shape (n, ...); unsigned bytes are pixels.
      y: shape (n,), whole numbers where they are classes; or real numbers, (n,) or (n, o).
      names: the classes' names, if there are any: class k is `names[k]`.
      train_labels: the labels of the training set to which a test set belongs, if it lies
        beside: they tell which classes there are, and how to standardize.
    """

    x: np.ndarray
    y: np.ndarray
    names: tuple[str, ...] = ()
    train_labels: np.ndarray | None = None
