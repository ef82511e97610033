"""Tiles against the kernel on all samples at once, and what is computed where, and in how much."""

import functools
import re
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import MLP, assert_close, compiled, samples

from ntkflow.kernels.blocks import in_blocks, plan
from ntkflow.kernels.empirical import empirical_ntk
from ntkflow.kernels.recursion import Kernels, fully_connected_relu


def gram(x1, x2=None):
    return x1 @ (x1 if x2 is None else x2).T


def empirical(outputs, module=None, method="auto"):
    return empirical_ntk((module or MLP(3)).apply, outputs=outputs, method=method)


def params(module, x):
    return compiled(module.init)(jax.random.key(1), x)


def swap(theta):
    return np.asarray(theta).transpose({2: (1, 0), 3: (1, 0, 2), 4: (1, 0, 3, 2)}[theta.ndim])


class Spy:
    """The programs as they are, and a record of them and of what they are called with."""

    def __init__(self, monkeypatch):
        self.programs, self.used, self.calls = [], set(), []
        compile_program = plan._compile

        def record(mesh, call, arrays, tile1, tile2):
            program = compile_program(mesh, call, arrays, tile1, tile2)
            self.programs.append(program)
            return Spied(program, self)

        monkeypatch.setattr(plan, "_compile", record)


class Spied:
    def __init__(self, program, spy):
        self.program, self.spy = program, spy
        self.memory_analysis = program.memory_analysis

    def __call__(self, arrays, x1, x2):
        result = self.program(arrays, x1, x2)
        devices = {shard.device for leaf in jax.tree.leaves(result) for shard in leaf.global_shards}
        self.spy.used.add(self.program)
        self.spy.calls.append((np.asarray(x1), None if x2 is None else np.asarray(x2), devices))
        return result


def bytes_of_one_pair(kernel, *args, **options):
    with pytest.raises(ValueError, match="expected at least") as error:
        in_blocks(kernel, max_bytes=1, **options)(*args)
    return int(re.search(r"at least (\d+)", str(error.value)).group(1))


def of_one_layer(outputs):
    kernel = empirical_ntk(lambda w, x: jnp.tanh(x @ w), outputs=outputs)
    return functools.partial(kernel, samples(3, 4, 3))


KERNELS = {
    "infinite": lambda x: functools.partial(fully_connected_relu, depth=1),
    "full": lambda x: of_one_layer("full"),
    "diagonal": lambda x: of_one_layer("diagonal"),
    "trace": lambda x: of_one_layer("trace"),
    "one sample": lambda x: of_one_layer("full"),
}


@pytest.mark.parametrize("name", KERNELS)
def test_equals_the_kernel_on_all_samples(name):
    x1, x2 = samples(0, 1 if name == "one sample" else 13, 4), samples(1, 6, 4)
    kernel = KERNELS[name](x1)
    blocked, whole = in_blocks(kernel), compiled(kernel)
    for other in (None, x2):
        expected, actual = whole(x1, x2=other), blocked(x1, x2=other)
        assert jax.tree.structure(actual) == jax.tree.structure(expected)
        for a, e in zip(*map(jax.tree.leaves, (actual, expected)), strict=True):
            assert isinstance(a, np.ndarray)
            assert a.dtype == e.dtype
            assert_close(a, e)
            if other is None:
                np.testing.assert_array_equal(a, swap(a))


@pytest.mark.quick
def test_any_number_of_samples_and_of_devices():
    x = np.arange(300).reshape(100, 3).astype("float32")  # sums of their products are exact
    for devices in (1, 3, jax.local_devices()[1:3], None):
        budget = 30 * bytes_of_one_pair(gram, x, devices=devices)
        for n in (2, 7, 23):
            blocked = in_blocks(gram, max_bytes=budget, devices=devices)
            np.testing.assert_array_equal(blocked(x[:n]), gram(x[:n]))
    np.testing.assert_array_equal(blocked(x[:3], x), gram(x[:3], x))
    np.testing.assert_array_equal(blocked(x, x[:1]), gram(x, x[:1]))


def test_each_tile_is_computed_once(monkeypatch):
    spy = Spy(monkeypatch)
    n = 19
    x = np.arange(1.0, n + 1)[:, None]
    budget = 20 * bytes_of_one_pair(gram, x, devices=1)
    blocked = in_blocks(gram, max_bytes=budget, devices=1)
    np.testing.assert_array_equal(blocked(x), x @ x.T)
    first = [
        (int(x1[0, 0, 0]), int((x1 if x2 is None else x2)[0, 0, 0])) for x1, x2, _ in spy.calls
    ]
    rows = spy.calls[0][0].shape[1]
    starts = range(1, n + 1, rows)
    assert len(starts) > 3
    assert sorted(first) == [(i, j) for i in starts for j in starts if i <= j]
    assert all(
        (i == j) == (x2 is None) for (i, j), (_, x2, _) in zip(first, spy.calls, strict=True)
    )


def test_all_devices_work_at_once_and_without_repeats(monkeypatch):
    spy = Spy(monkeypatch)
    x = np.arange(1.0, 33.0)[:, None]
    np.testing.assert_array_equal(in_blocks(gram)(x), x @ x.T)
    tiles = [
        (x1[d, 0, 0], (x1 if x2 is None else x2)[d, 0, 0])
        for x1, x2, _ in spy.calls
        for d in range(4)
    ]
    assert all(devices == set(jax.local_devices()) for *_, devices in spy.calls)
    assert len(tiles) == len(set(tiles)) == 8 * 9 / 2


@pytest.mark.parametrize("symmetric", [True, False])
def test_memory_is_within_the_budget_and_used(monkeypatch, symmetric):
    spy = Spy(monkeypatch)
    x = samples(0, 600, 5)
    weights = params(MLP(1, width=50), x)
    held = sum(leaf.nbytes for leaf in jax.tree.leaves(weights))
    budget = 3_000_000
    kernel = empirical("trace", MLP(1, width=50), method="jacobian")
    in_blocks(kernel, max_bytes=budget, devices=1)(weights, x, None if symmetric else x[:99])
    needed = []
    for program in spy.used:
        stats = program.memory_analysis()
        tile = stats.argument_size_in_bytes + stats.output_size_in_bytes + stats.temp_size_in_bytes
        needed.append(held + 2 * (tile - held))
    assert budget / 2 < max(needed) <= budget
    assert len(spy.programs) <= 8
    assert len(spy.calls) > 10


def test_the_programs_are_kept():
    traces = 0

    def kernel(weights, x1, x2=None):
        nonlocal traces
        traces += 1
        return (x1 * weights[None]) @ (x1 if x2 is None else x2).T

    blocked = in_blocks(kernel)
    x = samples(0, 40, 3)
    assert_close(blocked(jnp.ones(3), x), x @ x.T)
    first = traces
    assert first <= 4  # the shape of the result, and two programs for the only candidate
    assert_close(blocked(2 * jnp.ones(3), x + 1), 2 * (x + 1) @ (x + 1).T)
    assert traces == first


def test_other_arguments_are_arrays_or_constants():
    x = samples(0, 9, 3)
    blocked = in_blocks(fully_connected_relu, devices=1)
    for depth, b_std in ((1, 0.5), (2, jnp.asarray(0.5)), (2, np.array(0.1))):
        actual, expected = (k(x, None, depth, b_std=b_std) for k in (blocked, fully_connected_relu))
        assert isinstance(actual, Kernels)
        assert_close(actual.ntk, expected.ntk)


def test_constants_that_are_equal_but_of_other_types():
    blocked = in_blocks(lambda x1, x2, power: (x1**power) @ (x1 if x2 is None else x2).T)
    x = jnp.array([[1], [2]])
    assert blocked(x, None, 1).dtype == jnp.int64
    assert blocked(x, None, 1.0).dtype == jnp.float64


def test_images():
    x1, x2 = samples(0, 9, 6, 6, 2), samples(1, 5, 6, 6, 2)

    def correlation(x1, x2):
        return jnp.einsum("ihwc,jhwd->ijcd", x1, x1 if x2 is None else x2)

    for other in (None, x2):
        assert_close(in_blocks(correlation)(x1, other), correlation(x1, other))


def test_integers_and_lists():
    def same_word(x1, x2=None):
        return (x1[:, None] == (x1 if x2 is None else x2)[None, :]).astype(jnp.float32)

    words = [3, 1, 3, 2, 1]
    np.testing.assert_array_equal(
        in_blocks(same_word)(words), np.equal.outer(words, words).astype("float32")
    )


def test_keys_are_arguments():
    def noisy(key, x1, x2=None):
        return jax.random.normal(key) * gram(x1, x2)

    x, key = samples(0, 5, 2), jax.random.key(3)
    assert_close(in_blocks(noisy)(key, x), noisy(key, x))


def test_a_budget_that_suffices_for_one_pair():
    x = samples(0, 5, 300)
    needed = bytes_of_one_pair(gram, x)
    assert needed >= 2 * (300 + 300 + 1) * 8
    assert_close(in_blocks(gram, max_bytes=needed)(x), gram(x))
    with pytest.raises(ValueError, match="one pair of samples"):
        in_blocks(gram, max_bytes=needed - 1)(x)


def test_progress(capsys, monkeypatch):
    assert in_blocks(gram, progress=True)(samples(0, 5, 2)).shape == (5, 5)
    captured = capsys.readouterr()
    assert "100%" in captured.err
    assert not captured.out
    monkeypatch.setitem(sys.modules, "rich.progress", None)
    with pytest.raises(ImportError, match="pip install"):
        in_blocks(gram, progress=True)(samples(0, 5, 2))


def test_errors_at_the_door():
    x = samples(0, 4, 2)
    with pytest.raises(ValueError, match="arguments named x1 and x2"):
        in_blocks(lambda a, b: a @ b.T)
    with pytest.raises(ValueError, match="arguments named x1 and x2"):
        in_blocks(MLP())
    with pytest.raises(ValueError, match="max_bytes is 0"):
        in_blocks(gram, max_bytes=0)
    for devices in (0, 5, [], ["gpu"]):
        with pytest.raises(ValueError, match="of the 4 local devices"):
            in_blocks(gram, devices=devices)
    with pytest.raises(ValueError, match="x2 holds NaN"):
        in_blocks(gram)(x, x.at[1, 0].set(jnp.nan))
    with pytest.raises(ValueError, match="no samples"):
        in_blocks(gram)(x[:0])
    with pytest.raises(ValueError, match="outside of jit"):
        jax.jit(in_blocks(gram))(x)
    with pytest.raises(ValueError, match="outside of jit"):
        jax.jit(lambda w: in_blocks(lambda w, x1, x2: w * x1 @ x2.T)(w, x, x))(2.0)
    with pytest.raises(ValueError, match=r"shape \(4,\) for 4 and 4 samples"):
        in_blocks(lambda x1, x2: x1[:, 0])(x, None)
    with pytest.raises(ValueError, match="can be mirrored"):
        in_blocks(lambda x1, x2: jnp.ones((4, 4, 2, 3)))(x, None)
