"""A study's cells are the single runs; what fails or diverges is marked, and costs nothing else."""

import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import assert_close, compiled, samples

from ntkflow import studies
from ntkflow.training.descent import Trajectory, descend
from ntkflow.training.flow import gradient_flow


def two_layer(key, x, y, width, learning_rate, steps=4):
    """A short run of a two-layer ReLU network, in the dtype of the data."""
    w = jax.random.normal(key, (width, x.shape[1]), x.dtype)
    signs = (-1.0) ** jnp.arange(width, dtype=x.dtype)

    def loss(w, data):
        x, y = data
        return 0.5 * jnp.sum((jnp.maximum(x @ w.T, 0.0) @ signs / jnp.sqrt(width) - y) ** 2)

    def distance(snapshot):
        return jnp.linalg.norm(snapshot.params - snapshot.initial_params, axis=1)

    run = descend(loss, optax.sgd(learning_rate), steps, every=2, observe={"distance": distance})
    trajectory = run(w, (x, y.astype(x.dtype)))
    return {"run": trajectory, "norms": jnp.linalg.norm(trajectory.params, axis=0)}


def of_key(key):
    """Another number for each seed, which compiles faster than a draw."""
    return jax.random.key_data(key)[-1].astype(float)


def quick(key, width=1, scale=1.0):
    return {"value": scale * jnp.full(width, of_key(key)).sum()}


def test_every_cell_is_the_single_run(dtype):
    x, y = samples(1, 5, 3, dtype=dtype), samples(2, 5, dtype=dtype)
    widths = [4, 6] if dtype == "float64" else [4]  # each compiles programs of its own
    grid = {"width": widths, "learning_rate": [0.1, 0.2]}
    study = studies.run(
        two_layer,
        seeds=7,
        grid=grid,
        args=(x, y),
        dims={"norms": ("feature",), "run_distance": ("neuron",)},
        seeds_per_cell=5,
        progress=False,
    )
    assert study["run_loss"].dims == ("seed", "width", "learning_rate", "step")
    assert study["run_distance"].dims == (*study["run_loss"].dims, "neuron")
    assert study["run_loss"].dtype == dtype
    assert not study.diverged.any()
    assert (study.error == "").all()
    single = compiled(two_layer, static_argnames="width")
    for seed, width, rate in itertools.product(range(7), grid["width"], grid["learning_rate"]):
        alone = single(jax.random.key(seed), x, y, width=width, learning_rate=rate)
        cell = study.sel(seed=seed, width=width, learning_rate=rate)
        np.testing.assert_array_equal(cell.step, alone["run"].steps)
        assert_close(cell["run_loss"], alone["run"].history["loss"])
        assert_close(cell["run_distance"][:, :width], alone["run"].history["distance"])
        assert cell["run_distance"][:, width:].isnull().all()
        assert_close(cell["norms"], alone["norms"])


def test_one_trace_per_combination_of_static_values():
    traces = []

    def experiment(key, data, width, scale, name):
        traces.append((width, name))
        return jnp.sum(data) * scale * width * of_key(key)

    grid = {"scale": [0.5, 1.0, 1.5], "width": [2, 3], "name": ["a", "b"]}
    data = (jnp.ones(3),)
    study = studies.run(experiment, seeds=7, grid=grid, args=data, seeds_per_cell=3, progress=False)
    assert sorted(traces) == [(2, "a"), (2, "b"), (3, "a"), (3, "b")]
    assert study["result"].dims == ("seed", "scale", "width", "name")


def test_a_float_of_the_grid_does_not_widen_float32():
    def experiment(key, x, scale):
        return scale * x

    study = studies.run(
        experiment,
        seeds=2,
        grid={"scale": np.linspace(0.5, 1, 2)},
        args=(jnp.ones((), "float32"),),
        progress=False,
    )
    assert study["result"].dtype == "float32"


@pytest.mark.quick
def test_seeds_are_named_and_kept_in_order():
    study = studies.run(quick, seeds=[5, 0, 2], progress=False)
    assert study.seed.values.tolist() == [5, 0, 2]
    assert_close(study["value"].sel(seed=2), quick(jax.random.key(2))["value"])


def test_steps_of_different_settings_are_united():
    def experiment(key, steps):
        records = jnp.arange(0, steps + 1, 2)
        return Trajectory(None, None, records, {"loss": records / 2.0, "count": records})

    study = studies.run(
        experiment, seeds=2, grid={"steps": [4, 8]}, time_axis="time", progress=False
    )
    assert study.time.values.tolist() == [0, 2, 4, 6, 8]
    np.testing.assert_array_equal(
        study["loss"].isel(seed=1), [[0, 1, 2, np.nan, np.nan], [0, 1, 2, 3, 4]]
    )
    assert study.diverged.sum() == 0
    assert (
        studies.run(experiment, seeds=2, grid={"steps": [8]}, progress=False)["count"].dtype.kind
        == "i"
    )


def test_two_trajectories_have_their_own_steps():
    def experiment(key):
        slow = Trajectory(None, None, jnp.arange(3), {"loss": jnp.zeros(3)})
        fast = Trajectory(None, None, jnp.array([0.0, 0.5]), {"loss": jnp.zeros(2)})
        return {"descent": slow, "flow": fast}

    study = studies.run(experiment, seeds=2, progress=False)
    assert study["descent_loss"].dims == ("seed", "descent_step")
    assert study["flow_loss"].dims == ("seed", "flow_time")
    assert study.flow_time.values.tolist() == [0.0, 0.5]


def test_a_setting_that_fails_leaves_the_others():
    def experiment(key, width, scale):
        if width == 3:
            raise RuntimeError("no such width")
        return {"value": scale * width * of_key(key), "odd": width % 2 == 1}

    grid = {"width": [2, 3, 4], "scale": [0.5, 1.0]}
    study = studies.run(experiment, seeds=3, grid=grid, progress=False)
    assert study.error.sel(width=3).values.tolist() == ["RuntimeError: no such width"] * 2
    assert (study.error.sel(width=[2, 4]) == "").all()
    assert study["value"].sel(width=3).isnull().all()
    others = studies.run(experiment, seeds=3, grid=grid | {"width": [2, 4]}, progress=False)
    np.testing.assert_array_equal(study["value"].sel(width=[2, 4]), others["value"])
    assert others["odd"].dtype == bool


def test_a_diverging_seed_is_marked():
    def experiment(key, rate):
        start = of_key(key) / 5
        return {"loss": jnp.where((start > 0.5) & (rate > 1), jnp.inf, start), "steps": 3}

    study = studies.run(experiment, seeds=6, grid={"rate": [0.5, 2.0]}, progress=False)
    starts = np.arange(6) / 5
    np.testing.assert_array_equal(study.diverged, np.stack([starts < 0, starts > 0.5], axis=1))
    assert 0 < study.diverged.sum() < 6
    assert study["steps"].dtype.kind == "i"


def test_only_a_study_without_any_result_raises():
    def experiment(key, width):
        raise RuntimeError(f"width {width}")

    with pytest.raises(RuntimeError, match="width 2"):
        studies.run(experiment, seeds=3, grid={"width": [2, 3]}, progress=False)


def test_results_that_have_another_rank_are_that_settings_failure():
    def experiment(key, width):
        return {"value": jnp.zeros((width,) if width > 2 else ())}

    study = studies.run(experiment, seeds=2, grid={"width": [2, 3]}, progress=False)
    assert "has the axes" in study.error.sel(width=3).item()


def test_units_and_provenance():
    study = studies.run(
        quick, seeds=[3, 1], grid={"scale": [0.5]}, units={"value": "1/step"}, progress=False
    )
    assert study["value"].attrs["units"] == "1/step"
    assert study.scale.attrs["units"] == "1"
    assert json.loads(study.attrs["seeds"]) == [3, 1]
    assert json.loads(study.attrs["grid"]) == {"scale": [0.5]}
    assert study.attrs["experiment"].endswith("test_runner.quick")
    assert study.attrs["devices"] == 4


def test_functions_in_the_grid_go_by_their_names():
    def experiment(key, activation):
        return activation(of_key(key))

    study = studies.run(experiment, seeds=2, grid={"activation": [jnp.sin, jnp.cos]})
    assert study.activation.values.tolist() == ["sin", "cos"]
    assert_close(study["result"][1, 1], np.cos(1.0))


def test_progress_says_what_was_done(capsys):
    def experiment(key, width):
        return jnp.where(width > 2, jnp.nan, 1.0)

    studies.run(experiment, seeds=2, grid={"width": [2, 3]})
    output = capsys.readouterr()
    assert output.out == ""
    assert "[2/2] width=3 seeds 0..1" in output.err
    assert "2 of 4 runs diverged" in output.err


BAD = {
    "no seeds": ({"seeds": 0}, "seeds is 0; expected a whole number"),
    "negative seeds": ({"seeds": [1, -1]}, "seeds is .* whole numbers ≥ 0"),
    "empty seeds": ({"seeds": []}, "seeds is \\[\\]"),
    "repeated seeds": ({"seeds": [1, 2, 1]}, "seeds holds \\[1\\] more than once"),
    "unknown name": ({"grid": {"depth": [1]}}, "'depth'.*its arguments are .*'width'"),
    "key in the grid": ({"grid": {"key": [1]}}, "are not filled"),
    "empty axis": ({"grid": {"width": []}}, "grid\\['width'\\] is empty"),
    "one value": ({"grid": {"width": 3}}, "write grid="),
    "a string": ({"grid": {"width": "abc"}}, "expected a sequence"),
    "repeated value": ({"grid": {"scale": [1, 1.0]}}, "\\[1.0\\] more than once"),
    "NaN in the grid": ({"grid": {"scale": [1.0, np.nan]}}, "holds NaN"),
    "arrays in the grid": ({"grid": {"scale": [np.ones(2)]}}, "belongs into args"),
    "too many args": ({"args": (1, 2, 3)}, "are not filled"),
    "NaN in args": ({"args": (jnp.array([1, jnp.nan]),)}, "args.* holds NaN"),
    "function in args": ({"args": (jnp.sin,)}, "expected arrays"),
    "cells": ({"seeds_per_cell": 0}, "seeds_per_cell is 0"),
    "batch": ({"batch": 0}, "batch is 0"),
    "unknown dims": ({"dims": {"loss": ("a",)}}, "dims and units name \\['loss'\\]"),
    "unknown units": ({"units": {"loss": "s"}}, "dims and units name \\['loss'\\]"),
    "dims of a scalar": ({"dims": {"value": ("a",)}}, "expected 0 distinct names"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused(case):
    arguments, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        studies.run(quick, **({"seeds": 2, "progress": False} | arguments))


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (None, "returns no arrays"),
        ({"name": "relu"}, "holds a str"),
        ({"error": 1.0}, "\\['error'\\] are named like"),
        ({"a": {"b": 1.0}, "a_b": 2.0}, "Two results are named 'a_b'"),
        ((1.0, 2.0), "Two results are named 'result'"),
        ({"key": jax.random.key(0)}, "holds an array of key"),
    ],
)
def test_results_that_cannot_be_named_are_refused(result, message):
    with pytest.raises(ValueError, match=message):
        studies.run(lambda key: result, seeds=2, progress=False)


def test_an_experiment_is_a_function():
    with pytest.raises(ValueError, match="expected a function"):
        studies.run(3, seeds=2)
    with pytest.raises(ValueError, match="needs itself"):
        studies.run(lambda key, step: step, seeds=2, grid={"step": [1]})


def test_records_of_a_flow_lie_along_the_time():
    flow = gradient_flow(lambda w, data: jnp.sum(w**2), [0.0, 0.5])
    study = studies.run(lambda key: flow(jnp.full(2, of_key(key)), None), seeds=2, progress=False)
    assert study["loss"].dims == ("seed", "time")
    assert study["time"].values.tolist() == [0.0, 0.5]
