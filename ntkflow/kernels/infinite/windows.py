"""What a convolution with fresh weights does to covariances: sums over a sliding window."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array


class Window(NamedTuple):
    """The geometry of a convolution, one entry per position axis.

    Attributes:
      shape: sizes of the positions.
      sizes: of the kernel.
      strides, padding, base_dilation, window_dilation: as in `lax.conv_general_dilated`.
    """

    shape: tuple[int, ...]
    sizes: tuple[int, ...]
    strides: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    base_dilation: tuple[int, ...]
    window_dilation: tuple[int, ...]

    @property
    def touched(self) -> list[int]:
        """Along which axes the windows do not give back what they are given."""
        idle = (1, 1, (0, 0), 1)
        padding = map(tuple, self.padding)
        entries = zip(self.sizes, self.strides, padding, self.base_dilation, strict=True)
        return [i for i, entry in enumerate(entries) if entry != idle]

    def along(self, axes: Sequence[int]) -> "Window":
        """The geometry along some of the axes alone."""

        def chosen(entries):
            return tuple(entries[i] for i in axes)

        return Window(*map(chosen, self))

    @property
    def results(self) -> tuple[int, ...]:
        """Sizes of the positions of the convolution's result."""
        return tuple(
            (sum(padding) + (n - 1) * base + 1 - (size - 1) * dilation - 1) // stride + 1
            for n, size, stride, padding, base, dilation in zip(*self, strict=True)
        )


def slide(array: Array, window: Window, samples: int, full: bool) -> Array:
    """Σₒ array[q + o, q' + o] over the offsets o of the window, both positions moved alike.

    Args:
      array: axes (samples, positions) or, with `full`, (samples, positions, positions).
      window: the geometry.
      samples: the number of axes of the samples.
      full: whether both positions stand there, or equal ones alone.

    Returns:
      The sums, over the positions of the convolution's result.
    """
    rank = len(window.sizes)
    for i in range(rank):
        here, there, along = samples + i, samples + rank + i, window.along([i])
        if full:
            array = _slide_both(array, (here, there), along)
        else:  # one axis after another is three times faster than all at once
            array = window_sums(array, [here], along)
    return array


def window_sums(array: Array, axes: Sequence[int], window: Window) -> Array:
    """Σₒ array[q + o] over the offsets o of the window, which has an entry for each of `axes`."""

    def whole(entries, neutral):
        given = dict(zip(axes, entries, strict=True))
        return [given.get(i, neutral) for i in range(array.ndim)]

    return jax.lax.reduce_window(
        array,
        np.zeros((), array.dtype),  # concrete, or there is no derivative
        jax.lax.add,
        whole(window.sizes, 1),
        whole(window.strides, 1),
        whole(map(tuple, window.padding), (0, 0)),
        whole(window.base_dilation, 1),
        whole(window.window_dilation, 1),
    )


def _slide_both(array: Array, axes: tuple[int, int], window: Window) -> Array:
    """The same axis of both positions at once."""
    _, (size,), (stride,), (padding,), (base_dilation,), (window_dilation,) = window
    config = [(0, 0, 0)] * array.ndim
    for axis in axes:
        config[axis] = (*padding, base_dilation - 1)
    if any(entry != (0, 0, 0) for entry in config):
        array = jax.lax.pad(array, jnp.zeros((), array.dtype), config)
    reach = (size - 1) * window_dilation + 1
    count = (array.shape[axes[0]] - reach) // stride + 1

    def offset(o):
        start, limit, strides = [0] * array.ndim, list(array.shape), [1] * array.ndim
        for axis in axes:
            start[axis] = o * window_dilation
            limit[axis] = start[axis] + (count - 1) * stride + 1
            strides[axis] = stride
        return jax.lax.slice(array, start, limit, strides)

    total = offset(0)
    for o in range(1, size):
        total = total + offset(o)
    return total
