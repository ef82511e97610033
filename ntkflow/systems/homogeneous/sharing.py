"""Layers whose weights are missing or shared: the maps g_h of Du (2019), section 4.2.2."""

import dataclasses

import numpy as np

from ntkflow import checks


@dataclasses.dataclass(frozen=True, eq=False)
class WeightSharing:
    """The map g: [n_out] × [n_in] → {0, …, d} of a layer, W[i, j] = v[g(i, j)], and 0 where g is 0.

    Any sparsity pattern and any sharing of weights within a layer is such a map; d, the number of
    free parameters, is the largest entry.

    Attributes:
      indices: g, whole numbers, shape (n_out, n_in).

    Raises:
      ValueError: not a matrix of whole numbers from 0 on, or without any connection.

    Example:
      >>> WeightSharing(np.array([[1, 2, 0], [0, 1, 2]])).parameters  # a filter of two entries
      2

    Reference: Du (2019), section 4.2.2.
    """

    indices: np.ndarray

    def __post_init__(self) -> None:
        indices = np.asarray(self.indices)
        if indices.ndim != 2 or not np.issubdtype(indices.dtype, np.integer):
            raise ValueError(
                f"indices has shape {indices.shape} and dtype {indices.dtype}; expected whole "
                "numbers of shape (outputs, inputs)."
            )
        if not indices.size or indices.min() < 0 or indices.max() == 0:
            raise ValueError(
                "indices holds negative numbers or no connection; expected 0 for a missing weight "
                "and k > 0 for the k-th free parameter."
            )
        object.__setattr__(self, "indices", indices)

    @property
    def parameters(self) -> int:
        """d, the number of free parameters."""
        return int(self.indices.max())

    @property
    def fan_in(self) -> int:
        """The largest number of connections that enter one output."""
        return int(np.count_nonzero(self.indices, axis=1).max())


def convolution(
    length: int,
    channels: int,
    filters: int,
    size: int,
    padding: str = "VALID",
) -> WeightSharing:
    """Build g of a one-dimensional convolution, d = size · channels · filters.

    Inputs (length, channels) and outputs (positions, filters) are flattened, channels last, so
    that convolutions follow one another. `v.reshape(size, channels, filters)` is the kernel of
    `flax.linen.Conv`.

    Args:
      length: positions of the input.
      channels: of the input.
      filters: k, channels of the output.
      size: r, positions under one filter.
      padding: "VALID" has length − size + 1 positions of output, "SAME" as many as the input,
        which is surrounded by zeros.

    Raises:
      ValueError: a number that is not positive, a filter longer than the input, unknown padding.

    Example:
      >>> convolution(length=4, channels=1, filters=1, size=3).indices.tolist()
      [[1, 2, 3, 0], [0, 1, 2, 3]]
    """
    named = {"length": length, "channels": channels, "filters": filters, "size": size}
    length, channels, filters, size = (checks.positive_int(*item) for item in named.items())
    if padding not in ("VALID", "SAME"):
        raise ValueError(f"padding is {padding!r}; expected one of ['VALID', 'SAME'].")
    if size > length:
        raise ValueError(f"size is {size}, and the input has only {length} positions.")
    before, positions = (0, length - size + 1) if padding == "VALID" else ((size - 1) // 2, length)
    tap = np.arange(length)[None, :] - np.arange(positions)[:, None] + before
    tap = tap[:, None, :, None]  # (positions, filters, length, channels)
    channel = np.arange(channels)[None, None, None, :]
    number = 1 + (tap * channels + channel) * filters + np.arange(filters)[None, :, None, None]
    indices = np.where((tap >= 0) & (tap < size), number, 0)
    return WeightSharing(indices.reshape(positions * filters, length * channels))
