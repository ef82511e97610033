"""A saved study is the study; a failure leaves the older file; damage is said."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray

from ntkflow import studies


def experiment(key, width, activation):
    if width == 3:
        raise RuntimeError("no 3 – „naïve“")
    value = jax.random.normal(key, (width,), "float32")
    return {"value": value, "positive": value.sum() > 0, "count": width, "phase": value[0] * 1j}


@pytest.fixture(scope="module")
def study():
    grid = {"width": [2, 3], "activation": ["relu", "tanh"]}
    return studies.run(
        experiment, seeds=3, grid=grid, units={"value": "s"}, dims={"value": ["t"]}, progress=False
    )


@pytest.mark.quick
def test_what_is_loaded_is_what_was_saved(study, tmp_path):
    path = tmp_path / "new" / "study.nc"
    studies.save(study, path)
    xarray.testing.assert_identical(studies.load(path), study)
    whole = study.sel(width=[2]).drop_vars("error")
    whole["positive"] = whole["positive"].astype(bool)
    studies.save(whole, path)
    loaded = studies.load(path)
    xarray.testing.assert_identical(loaded, whole)
    assert {k: loaded[k].dtype for k in whole} == {k: whole[k].dtype for k in whole}
    assert [entry.name for entry in path.parent.iterdir()] == ["study.nc"]


def test_a_failure_leaves_the_older_file(study, tmp_path):
    path = tmp_path / "study.nc"
    studies.save(study, path)
    unwritable = study.assign(bad=("seed", np.array([object()] * 3)))
    with pytest.raises((TypeError, ValueError)):
        studies.save(unwritable, path)
    xarray.testing.assert_identical(studies.load(path), study)
    assert [entry.name for entry in tmp_path.iterdir()] == ["study.nc"]


@pytest.mark.parametrize("damage", [lambda b: b[: len(b) // 2], lambda b: b"", lambda b: b"a,b\n1"])
def test_a_damaged_file_is_named(study, tmp_path, damage):
    path = tmp_path / "study.nc"
    studies.save(study, path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=r"study\.nc cannot be read"):
        studies.load(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no file"):
        studies.load(tmp_path / "study.nc")


@pytest.mark.parametrize(
    ("module", "action"),
    [
        ("xarray", lambda: studies.run(lambda key: jnp.ones(()), seeds=1, progress=False)),
        ("h5netcdf", lambda: studies.load("study.nc")),
        ("rich", lambda: studies.run(lambda key: jnp.ones(()), seeds=1)),
    ],
)
def test_a_missing_extra_says_how_to_install_it(monkeypatch, module, action):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=r"pip install 'ntkflow\[study\]'"):
        action()
