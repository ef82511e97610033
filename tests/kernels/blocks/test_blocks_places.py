"""A result that is spread over the devices is the one on the host, whatever divides its samples."""

import functools
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import MLP, assert_close, compiled, samples

from ntkflow.kernels.blocks import in_blocks, places
from ntkflow.kernels.empirical import empirical_ntk
from ntkflow.kernels.recursion import fully_connected_relu


def gram(x1, x2=None):
    return x1 @ (x1 if x2 is None else x2).T


@pytest.mark.quick
@pytest.mark.parametrize(
    ("n1", "n2", "grid"),
    [
        (16, 16, (4, 1)),
        (10, 10, (2, 2)),
        (9, 9, (3, 1)),
        (7, 7, (1, 1)),
        (1, 1, (1, 1)),
        (12, 5, (4, 1)),
        (5, 12, (1, 4)),
        (7, 9, (1, 3)),
    ],
)
def test_as_many_devices_as_the_samples_divide_by(n1, n2, grid):
    sharding = places._sharding((n1, n2, 5), jax.local_devices())
    assert sharding.mesh.devices.shape == grid
    assert sharding.shard_shape((n1, n2, 5)) == (n1 // grid[0], n2 // grid[1], 5)
    assert len(sharding.device_set) == grid[0] * grid[1]


@pytest.mark.parametrize(
    ("n1", "n2", "dtype"),
    [(10, None, "float64"), (9, 6, "float32"), (7, None, "float32"), (16, None, "float64")],
)
def test_any_number_of_samples(n1, n2, dtype):
    x = np.arange(48).reshape(16, 3).astype(dtype)  # sums of their products are exact
    x1, x2 = x[:n1], None if n2 is None else x[:n2]
    result = in_blocks(gram, to="devices")(x1, x2)
    assert isinstance(result, jax.Array)
    assert result.dtype == dtype
    assert len(result.addressable_shards) == {10: 4, 9: 3, 7: 1, 16: 4}[n1]
    np.testing.assert_array_equal(result, gram(x1, x2))


class Both(NamedTuple):
    trace: Any
    full: Any


def both(x1, x2=None):
    x2 = x1 if x2 is None else x2
    return Both(gram(x1, x2), jnp.einsum("ic,jd->ijcd", jnp.sin(x1), x2))


def test_the_same_bits_as_on_the_host():
    x, devices = samples(0, 10, 3), jax.local_devices()[1:3]
    on_devices, on_host = (in_blocks(both, to=to, devices=devices)(x) for to in ("devices", "host"))
    assert isinstance(on_devices, Both)
    for actual, expected in zip(on_devices, on_host, strict=True):
        assert actual.sharding.device_set == set(devices)
        np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize("name", ["infinite", "empirical"])
def test_kernels_on_the_devices(name):
    x = samples(0, 6, 4)
    kernel = functools.partial(fully_connected_relu, depth=1)
    if name == "empirical":
        params = compiled(MLP(3).init)(jax.random.key(0), x)
        kernel = functools.partial(empirical_ntk(MLP(3).apply), params)
    result = in_blocks(kernel, to="devices", devices=2)(x, x[:4])
    whole = compiled(kernel)(x, x[:4])
    for actual, expected in zip(*map(jax.tree.leaves, (result, whole)), strict=True):
        assert len(actual.sharding.device_set) == 2
        assert_close(actual, expected)


def test_the_place_is_one_of_three():
    for to in ("device", "results/kernel", "", None, 3):
        with pytest.raises(ValueError, match=r'expected "host", "devices" or a folder'):
            in_blocks(gram, to=to)
    in_blocks(gram, to=Path("host"))  # a folder, and made when the kernel is called
    assert not Path("host").exists()
