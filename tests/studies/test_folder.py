"""A study that was stopped goes on, equal to the last bit; a folder is never another study's."""

import functools
import itertools
import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import xarray

from ntkflow import files, studies
from ntkflow.studies import folder as folders

GRID = {"width": [2, 3], "scale": [0.5, 1.0]}
DATA = (jnp.arange(3.0),)
counter = itertools.count()  # its value is no part of what the study's fingerprint sees


def experiment(key, x, width=1, scale=1.0):
    next(counter)
    own = jax.random.key_data(key)[-1] + jnp.arange(3.0 * width)  # compiles faster than a draw
    return {"value": scale * x @ jnp.sqrt(own).reshape(3, width), "count": 2 * width}


def run(folder=None, **changes):
    choices = {"seeds": 5, "grid": GRID, "args": DATA, "seeds_per_cell": 2, "progress": False}
    function = changes.pop("experiment", experiment)
    return studies.run(function, folder=folder, **(choices | changes))


@pytest.fixture(scope="module")
def whole():
    """The study without a folder, never stopped."""
    return run()


def traces(action):
    before = next(counter)
    action()
    return next(counter) - before - 1


@pytest.mark.quick
def test_a_stopped_study_goes_on_without_loss(tmp_path, monkeypatch, whole):
    """Within a setting, after two others: of three cells each."""
    cells, stored, store = 7, itertools.count(1), folders.store

    def stop_after(*arguments):
        store(*arguments)
        if next(stored) == cells:
            raise KeyboardInterrupt

    monkeypatch.setattr(folders, "store", stop_after)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "study")
    monkeypatch.setattr(folders, "store", store)
    assert len(list((tmp_path / "study" / "cells").iterdir())) == cells
    xarray.testing.assert_equal(run(tmp_path / "study"), whole)
    assert traces(lambda: run(tmp_path / "study")) == 0


def test_more_seeds_and_values_compute_only_what_is_new(tmp_path, whole):
    run(tmp_path, seeds=3, grid={"width": [2], "scale": [1.0]})
    assert traces(lambda: run(tmp_path, seeds=3, grid=GRID | {"width": [2]})) == 1
    before = set((tmp_path / "cells").iterdir())
    more = run(tmp_path)
    assert before < set((tmp_path / "cells").iterdir())
    xarray.testing.assert_allclose(more, whole, rtol=1e-13)
    # Fewer are a part of what is there.
    assert traces(lambda: run(tmp_path, seeds=[3, 1])) == 0
    xarray.testing.assert_equal(run(tmp_path, seeds=[3, 1]), more.sel(seed=[3, 1]))


def test_axes_can_be_named_later(tmp_path):
    small = {"seeds": 2, "grid": {"width": [2]}}
    run(tmp_path, **small)
    study = run(tmp_path, dims={"value": ("neuron",)}, **small)
    assert study["value"].dims == ("seed", "width", "neuron")


def test_a_damaged_cell_is_computed_anew(tmp_path):
    small = {"seeds": 3, "grid": {"width": [2]}}
    whole = run(tmp_path, **small)
    damaged, _ = (tmp_path / "cells").iterdir()
    damaged.write_bytes(damaged.read_bytes()[:1000])
    with pytest.warns(UserWarning, match=f"{damaged.name} cannot be read.*computes its seeds anew"):
        again = run(tmp_path, **small)
    xarray.testing.assert_equal(again, whole)
    xarray.testing.assert_equal(run(tmp_path, **small), whole)


def test_a_cell_that_failed_is_tried_again(tmp_path):
    def fails(key, width):
        if width == 3 and not (tmp_path / "repaired").exists():
            raise RuntimeError("not yet")
        return jax.random.normal(key, (width,)).sum()

    def attempt():
        folder = tmp_path / "study"
        return studies.run(fails, seeds=2, grid={"width": [2, 3]}, folder=folder, progress=False)

    assert attempt().error.values.tolist() == ["", "RuntimeError: not yet"]
    (tmp_path / "repaired").touch()
    assert attempt().error.values.tolist() == ["", ""]


def other(key, x, width):
    return {"value": jnp.zeros(width)}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"args": (jnp.arange(3.0).at[1].set(9.0),)}, "What differs: args"),
        ({"experiment": other}, "What differs: experiment"),
        ({"grid": {"scale": [0.5]}, "args": (*DATA, 1.0)}, "args.*grid names"),
    ],
)
def test_the_folder_of_another_study_is_refused(tmp_path, changes, message):
    run(tmp_path, seeds=1, grid={"width": [2]})
    with pytest.raises(ValueError, match=message):
        run(tmp_path, **({"grid": {"width": [2]}} | changes))


class Network(nn.Module):
    width: int = 2


@pytest.mark.parametrize(
    ("value", "changed"),
    [
        (lambda: np.ones(2), lambda: np.zeros(2)),
        (lambda: {"a": 1.0}, lambda: {"a": 2.0}),
        (lambda: optax.sgd(0.1), lambda: optax.sgd(0.2)),
        (lambda: Network(2), lambda: Network(3)),
        (lambda: jax.random.key(1), lambda: jax.random.key(2)),
    ],
)
def test_what_the_experiment_closes_over_is_part_of_it(value, changed):
    def described(used):
        return folders.describe(lambda key: (key, used), (), [])

    before, same, after = described(value()), described(value()), described(changed())
    assert before == same
    assert {name for name in before if before[name] != after[name]} == {"the value of used"}


def helper(key):
    return jax.random.normal(key) + 1


def caller(key):
    return helper(key)


def test_the_code_that_the_experiment_calls_is_part_of_it(monkeypatch):
    before = folders.describe(caller, (), [])

    def changed(key):
        return jax.random.normal(key) + 2

    monkeypatch.setitem(caller.__globals__, "helper", changed)
    after = folders.describe(caller, (), [])
    assert {name for name in before if before[name] != after[name]} == {"the code of helper"}


def test_a_folder_with_other_files_is_refused(tmp_path):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(ValueError, match="holds files but no study"):
        run(tmp_path)
    with pytest.raises(ValueError, match="a file; expected a folder"):
        run(tmp_path / "thesis.tex")
    (tmp_path / "thesis.tex").rename(tmp_path / files.MANIFEST)
    with pytest.raises(ValueError, match="is damaged"):
        run(tmp_path)


def test_partial_arguments_are_part_of_the_study():
    first, second = (functools.partial(experiment, width=width) for width in (2, 3))
    described = [folders.describe(function, (), ["scale"]) for function in (first, second)]
    differs = {name for name in described[0] if described[0][name] != described[1][name]}
    assert differs == {"bound arguments"}
    assert json.dumps(described[0])
