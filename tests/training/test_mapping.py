"""A study over seeds equals single runs, whatever the batch and the number of devices."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import assert_close, compiled, samples

from ntkflow.training.descent import descend
from ntkflow.training.losses import squared_loss
from ntkflow.training.mapping import over_devices, over_seeds

X, Y = samples(0, 8, 3), samples(1, 8)


def counted_experiment():
    traces = []

    def experiment(key, x, y):
        traces.append(1)
        w_key, v_key = jax.random.split(key)
        params = {
            "w": jax.random.normal(w_key, (3, 5), x.dtype),
            "v": jax.random.normal(v_key, (5,), x.dtype),
        }
        apply = lambda p, x: jnp.tanh(x @ p["w"]) @ p["v"]  # noqa: E731
        run = descend(squared_loss(apply), optax.sgd(0.01), 4, every=2)
        return run(params, (x, y))

    return experiment, traces


SEVEN = jax.random.split(jax.random.key(0), 7)


@functools.cache
def seven_single_runs():
    one = compiled(counted_experiment()[0])
    return jax.tree.map(lambda *leaves: np.stack(leaves), *[one(k, X, Y) for k in SEVEN])


def assert_trees_close(actual, desired):
    chex.assert_trees_all_equal_structs(actual, desired)
    jax.tree.map(assert_close, actual, desired)


@pytest.mark.quick
def test_seven_seeds_on_four_devices_equal_seven_single_runs():
    experiment, traces = counted_experiment()
    study = over_devices(over_seeds(experiment))
    result = study(SEVEN, X, Y)
    assert len(traces) == 1
    study(SEVEN, X + 1, Y)
    study(jax.random.split(jax.random.key(1), 7), X, Y)
    assert len(traces) == 1
    assert_trees_close(result, seven_single_runs())


@pytest.mark.parametrize("batch", [None, 1, 3, 100])
def test_every_batch_equals_single_runs_and_traces_once(batch):
    experiment, traces = counted_experiment()
    result = compiled(over_seeds(experiment, batch=batch))(SEVEN, X, Y)
    assert len(traces) == 1
    assert_trees_close(result, seven_single_runs())


@pytest.mark.parametrize(("seeds", "typed"), [(1, False), (8, True), (9, False)])
def test_any_number_of_seeds_and_both_kinds_of_keys(seeds, typed):
    make = jax.random.key if typed else jax.random.PRNGKey
    keys = jax.random.split(make(0), seeds)
    own = lambda key, scale: scale * jax.random.key_data(key)  # noqa: E731
    expected = 3.0 * np.asarray(jax.random.key_data(keys))
    for study in (over_seeds(own), over_seeds(own, batch=2), over_devices(over_seeds(own))):
        assert_close(study(keys, 3.0), expected)


def test_some_devices_only():
    devices = jax.local_devices()[1:3]
    study = over_devices(over_seeds(jax.random.key_data), devices=devices)
    keys = jax.random.split(jax.random.key(0), 4)
    result = study(keys)
    assert result.sharding.device_set == set(devices)
    np.testing.assert_array_equal(result, jax.random.key_data(keys))


def test_even_splits_stay_on_their_devices():
    study = over_devices(over_seeds(jax.random.key_data))
    result = study(jax.random.split(jax.random.key(0), 8))
    assert len(result.sharding.device_set) == 4
    assert [shard.data.shape for shard in result.addressable_shards] == [(2, 2)] * 4


def test_the_cpu_default_maps_large_experiments_and_batches_small_ones():
    def loops(width):
        def experiment(key, x):
            w = jax.random.normal(key, (3, width), x.dtype)
            return jnp.tanh(x @ w).sum()

        keys = jax.random.split(jax.random.key(0), 6)
        return "scan[" in str(jax.make_jaxpr(over_seeds(experiment))(keys, X))

    assert not loops(4)
    assert loops(400_000)


def test_so_many_devices_and_lists_of_keys():
    study = over_devices(over_seeds(jax.random.key_data), devices=2)
    keys = [jax.random.key(s) for s in range(4)]
    result = study(keys)
    assert len(result.sharding.device_set) == 2
    np.testing.assert_array_equal(result, np.stack([jax.random.key_data(key) for key in keys]))


class TestBadInput:
    experiment = staticmethod(lambda key: jax.random.normal(key))

    @pytest.mark.parametrize(
        "keys", [jax.random.key(0), jax.random.PRNGKey(0), jax.random.split(jax.random.key(0), 0)]
    )
    def test_keys_without_seeds(self, keys):
        for study in (over_seeds(self.experiment), over_devices(over_seeds(self.experiment))):
            with pytest.raises(ValueError, match="leading axis of at least one seed"):
                study(keys)

    def test_batch(self):
        with pytest.raises(ValueError, match="batch is 0"):
            over_seeds(self.experiment, batch=0)

    def test_devices(self):
        with pytest.raises(ValueError, match="JAX_NUM_CPU_DEVICES"):
            over_devices(self.experiment, devices=[])

    def test_what_is_no_function_or_no_device(self):
        with pytest.raises(ValueError, match="experiment is 3; expected a function"):
            over_seeds(3)
        with pytest.raises(ValueError, match="devices is 5; expected some of the 4 local devices"):
            over_devices(self.experiment, devices=5)
