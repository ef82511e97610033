"""An experiment over many seeds, and over the devices of this machine.

An experiment is `experiment(key, *args) -> pytree`: one run, a function of one key.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from ntkflow import checks
from ntkflow.devices import local_devices

Experiment = Callable[..., Any]
Study = Callable[..., Any]

# Per step of one seed, in floating-point operations as XLA counts them with a loop's body once.
# Below, a batched operation saves more in overhead than it loses in speed: benchmarks/seeds.py.
_CPU_VMAP_LIMIT = 1e6


def over_seeds(experiment: Experiment, *, batch: int | None = None) -> Study:
    """Map an experiment over seeds.

    On an accelerator all seeds run at once, as a `vmap`. On a CPU a batched matrix product is
    slower than the same products one after another, unless they are tiny: there the default is
    `vmap` for small experiments and `lax.map` for the rest, by the counted operations of one seed.

    The study is a pure function: build it once and `jax.jit` it once.

    Args:
      experiment: `experiment(key, *args) -> pytree of arrays`.
      batch: how many seeds run at once; memory grows with it. None chooses by the backend and the
        size of one seed's work; 1 runs them one after another.

    Returns:
      `study(keys, *args)`: `keys` has a leading axis of seeds, `jax.random.split(key, seeds)` say,
      typed or not; `args` are shared by all. The result has the leading axis of seeds, and entry
      s equals `experiment(keys[s], *args)` up to rounding.

    Raises:
      ValueError: `batch` is not positive; and from the study: `keys` without a seed axis, or empty.

    Example:
      >>> study = over_seeds(lambda key, scale: scale * jax.random.normal(key, (2,)))
      >>> jax.jit(study)(jax.random.split(jax.random.key(0), 5), 3.0).shape
      (5, 2)
    """
    _check_function("experiment", experiment)
    if batch is not None:
        batch = checks.positive_int("batch", batch)
    # One inner jit: its trace serves the count of operations, the map, and what is left over.
    experiment = jax.jit(experiment)

    def study(keys: jax.Array, *args: Any) -> Any:
        keys = _stacked(keys)
        seeds = _seed_count(keys)
        size = batch if batch is not None else _choose_batch(experiment, keys, args)
        if size >= seeds > 1:
            return jax.vmap(lambda key: experiment(key, *args))(keys)
        if size == 1 or seeds == 1:  # lax.map(batch_size=1) would be a vmap of one: half as fast
            return jax.lax.map(lambda key: experiment(key, *args), keys)
        # A remainder would be traced and compiled apart: fill the last batch, and drop the filling.
        padded = _pad(keys, -seeds % size)
        results = jax.lax.map(lambda key: experiment(key, *args), padded, batch_size=size)
        return jax.tree.map(lambda leaf: leaf[:seeds], results)

    return study


def over_devices(study: Study, *, devices: int | Sequence[jax.Device] | None = None) -> Study:
    """Split the seeds of a study over the local devices, by `pmap`.

    Any number of seeds: the first ones are repeated to fill the devices, and dropped from the
    result. The number of CPU devices is chosen before JAX starts, by the environment variable
    `JAX_NUM_CPU_DEVICES`. Build it once and call it often: each `over_devices` compiles anew.

    `args` are copied to every device at each call, unless they lie there already:
    `jax.device_put(x, jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec()))`.

    Across hosts, every process passes all keys, and computes and returns its own block of them:
    block p of `jax.process_count()` equal ones, the last ones shorter.

    Args:
      study: `study(keys, *args)`, as from `over_seeds`.
      devices: local devices to use, or how many; None takes all.

    Returns:
      `study(keys, *args)`, to be called outside of `jit`. Its result is split over the devices
      along the seeds where their number divides by that of devices, and lies on the first device
      otherwise.

    Raises:
      ValueError: no devices, or one that is not local; and from the study: `keys` without a seed
        axis, or empty.

    Example:
      >>> study = over_devices(over_seeds(lambda key: jax.random.normal(key, (2,))))
      >>> study(jax.random.split(jax.random.key(0), 7)).shape
      (7, 2)
    """
    _check_function("study", study)
    chosen = local_devices(devices)
    count = len(chosen)
    mapped = jax.pmap(lambda keys, args: study(keys, *args), in_axes=(0, None), devices=chosen)
    merge = jax.jit(lambda tree: jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), tree))

    def split_study(keys: jax.Array, *args: Any) -> Any:
        keys = _stacked(keys)
        _seed_count(keys)
        keys = _process_block(keys)
        seeds = len(keys)
        padding = -seeds % count
        keys = _pad(keys, padding)
        results = merge(mapped(keys.reshape(count, -1, *keys.shape[1:]), args))
        if not padding:
            return results
        # An uneven split has no sharding, and slicing one in place would copy it to every device.
        return jax.tree.map(lambda leaf: jax.device_put(leaf, chosen[0])[:seeds], results)

    return split_study


def _check_function(name: str, function: Any) -> None:
    if not callable(function):
        raise ValueError(
            f"{name} is {function!r}; expected a function of PRNG keys and of arrays, {name}(key, "
            "*args). What is no array (a width, a string) is closed over, or comes from a study's "
            "grid."
        )


def _stacked(keys: Any) -> Any:
    return jnp.stack(keys) if isinstance(keys, list | tuple) and keys else keys


def _seed_count(keys: Any) -> int:
    typed = isinstance(keys, jax.Array) and jnp.issubdtype(keys.dtype, jax.dtypes.prng_key)
    shape = jnp.shape(keys)
    if len(shape) != (1 if typed else 2) or shape[0] == 0:
        raise ValueError(
            f"keys has shape {shape}; expected a leading axis of at least one seed, "
            "e.g. jax.random.split(jax.random.key(0), seeds)."
        )
    return shape[0]


def _pad(keys: jax.Array, count: int) -> jax.Array:
    # The first keys again, as often as needed: the last batch may be larger than the rest.
    repeats = jnp.arange(len(keys) + count) % len(keys)
    return keys[repeats] if count else keys


def _process_block(keys: jax.Array) -> jax.Array:
    block = math.ceil(len(keys) / jax.process_count())
    first = jax.process_index() * block
    own = keys[first : first + block]
    if not len(own):
        raise ValueError(
            f"{len(keys)} seeds leave process {jax.process_index()} of {jax.process_count()} "
            "none; use at least as many seeds as processes."
        )
    return own


def _choose_batch(experiment: Experiment, keys: jax.Array, args: tuple[Any, ...]) -> int:
    """All seeds on an accelerator, and on a CPU where one seed's work is small; else one."""
    seeds = len(keys)
    if jax.default_backend() != "cpu":
        return seeds
    cost = experiment.lower(keys[0], *args).cost_analysis()  # type: ignore[attr-defined]
    return seeds if cost is not None and cost.get("flops", 0.0) < _CPU_VMAP_LIMIT else 1
