import math

import helpers
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ntkflow.kernels.infinite.windows import Window, slide

# sizes, window, strides, padding, base dilation, window dilation; one entry per axis
WINDOWS = {
    "plain": Window((7,), (3,), (1,), ((1, 1),), (1,), (1,)),
    "valid_stride": Window((8,), (3,), (2,), ((0, 0),), (1,), (1,)),
    "uneven_padding": Window((6,), (2,), (1,), ((0, 3),), (1,), (1,)),
    "cropped": Window((9,), (2,), (2,), ((-1, -2),), (1,), (1,)),
    "transposed": Window((4,), (3,), (1,), ((2, 1),), (2,), (1,)),
    "dilated": Window((9,), (3,), (2,), ((2, 1),), (1,), (2,)),
    "one": Window((1,), (3,), (1,), ((1, 1),), (1,), (1,)),
    "images": Window((5, 4), (3, 2), (2, 1), ((1, 0), (1, 1)), (1, 2), (1, 2)),
}


def samples(seed, *shape):
    """Drawn by NumPy: no program is compiled for each shape."""
    return np.random.default_rng(seed).normal(size=shape)


def patches(x, window):
    """(n, *positions) to (n, results, offsets), entry by entry."""
    found = np.zeros((len(x), *window.results, *window.sizes))
    for index in np.ndindex(found.shape[1:]):
        rank, source = len(window.sizes), []
        for i in range(rank):
            q, o, low = index[i], index[rank + i], window.padding[i][0]
            steps = q * window.strides[i] + o * window.window_dilation[i] - low
            p, between = divmod(steps, window.base_dilation[i])
            source.append(p if between == 0 and 0 <= p < window.shape[i] else None)
        if None not in source:
            found[(slice(None), *index)] = x[(slice(None), *source)]
    return found.reshape(len(x), math.prod(window.results), -1)


@pytest.mark.parametrize("name", WINDOWS)
def test_sums_over_both_windows_are_products_of_patches(name):
    window = WINDOWS[name]
    x, y = samples(0, 2, *window.shape), samples(1, 3, *window.shape)
    pairs = np.multiply.outer(x, y)  # (2, *positions, 3, *positions)
    pairs = jnp.asarray(np.moveaxis(pairs, 1 + len(window.shape), 1))
    expected = np.einsum("npo,mqo->nmpq", patches(x, window), patches(y, window))
    helpers.assert_close(
        jax.jit(lambda a: slide(a, window, 2, full=True))(pairs),
        expected.reshape(2, 3, *window.results, *window.results),
    )


@pytest.mark.parametrize("name", WINDOWS)
def test_equal_positions_are_summed_alike(name, dtype):
    window = WINDOWS[name]
    x = samples(2, 3, *window.shape).astype(dtype)
    found = jax.jit(lambda a: slide(a, window, 1, full=False))(x)
    assert found.dtype == dtype
    helpers.assert_close(found, patches(x, window).sum(-1).reshape(3, *window.results))


@pytest.mark.parametrize("name", WINDOWS)
def test_results_are_those_of_a_convolution(name):
    window = WINDOWS[name]
    shapes = [(1, 1, *sizes) for sizes in (window.shape, window.sizes)]
    convolved = jax.eval_shape(
        lambda x, w: jax.lax.conv_general_dilated(
            x,
            w,
            window.strides,
            window.padding,
            lhs_dilation=window.base_dilation,
            rhs_dilation=window.window_dilation,
        ),
        *(jax.ShapeDtypeStruct(shape, "float64") for shape in shapes),
    )
    assert convolved.shape == (1, 1, *window.results)


@pytest.mark.quick
def test_a_window_of_one_changes_nothing():
    window = Window((4, 3), (1, 1), (1, 1), ((0, 0), (0, 0)), (1, 1), (1, 1))
    x = samples(3, 2, 4, 3, 4, 3)
    np.testing.assert_array_equal(slide(jnp.asarray(x), window, 1, full=True), x)
    np.testing.assert_array_equal(
        slide(jnp.asarray(x[..., 0, 0]), window, 1, full=False), x[..., 0, 0]
    )
