"""Figures show the median over the seeds that did not diverge, with names and units."""

import sys

import jax.numpy as jnp
import numpy as np
import pytest
import xarray

from ntkflow import studies
from ntkflow.training.descent import Trajectory


def experiment(key, width, rate, method="a"):
    if width == 9:
        raise RuntimeError("no 9")
    seed = key_data(key)
    steps = jnp.arange(0, 20, 2 if width == 4 else 3)
    loss = (1.0 + seed) * (1 - rate) ** steps
    return Trajectory(
        None, None, steps, {"loss": jnp.where((seed == 4) & (rate > 1), jnp.inf, loss)}
    )


def key_data(key):
    import jax

    return jax.random.key_data(key)[1].astype(float)  # threefry: the seed itself


@pytest.fixture(scope="module")
def study():
    grid = {"width": [4, 6, 9], "rate": [0.25, 1.5]}
    return studies.run(
        experiment, seeds=5, grid=grid, units={"loss": "J", "step": "s"}, progress=False
    )


def legend(axes):
    return [text.get_text() for text in axes.get_legend().get_texts()]


@pytest.mark.quick
def test_lines_are_medians_at_each_settings_own_steps(study):
    axes = studies.learning_curve(study.sel(rate=0.25))
    assert legend(axes) == ["4", "6", "9 (failed)"]
    assert axes.get_legend().get_title().get_text() == "width"
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("step (s)", "loss (J)")
    assert axes.get_yscale() == "log"
    for line, spacing in zip(axes.get_lines(), (2, 3), strict=False):
        steps = np.arange(0, 20, spacing)
        np.testing.assert_array_equal(line.get_xdata(), steps)
        np.testing.assert_allclose(line.get_ydata(), 3 * 0.75**steps)  # the median of 1, ..., 5
    band = axes.collections[0].get_paths()[0].vertices
    assert band[:, 1].max() == pytest.approx(4.6)  # the 0.9 quantile of 1, ..., 5


def test_diverged_seeds_are_left_out_and_counted(study):
    axes = studies.learning_curve(study.sel(width=4), hue="rate")
    assert legend(axes) == ["0.25", "1.5 (1 of 5 diverged)"]
    steps = np.arange(0, 20, 2)
    np.testing.assert_allclose(axes.get_lines()[1].get_ydata(), 2.5 * 0.5**steps)
    only = studies.learning_curve(study.sel(width=4, rate=1.5, seed=[4]))
    assert legend(only) == ["(1 of 1 diverged)"]


def test_the_figure_needs_no_display_and_no_global_state(study, tmp_path):
    loaded = "matplotlib.pyplot" in sys.modules
    axes = studies.learning_curve(study.isel(rate=0, width=0))
    assert axes.get_legend() is None
    axes.figure.savefig(tmp_path / "figure.png")
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")
    assert loaded == ("matplotlib.pyplot" in sys.modules)


def test_references_are_drawn_beside(study):
    chosen = study.isel(rate=0, width=[0, 1])
    predicted = xarray.DataArray([5.0, -1.0], {"step": [0, 10]}, ["step"])
    axes = studies.learning_curve(chosen, reference={"theory": predicted, "zero": 0 * chosen.step})
    assert legend(axes) == ["4", "6", "theory", "zero"]
    np.testing.assert_array_equal(axes.get_lines()[2].get_xydata(), [[0, 5], [10, -1]])
    assert axes.get_yscale() == "linear"  # something drawn is not positive


def test_against_an_axis_of_the_grid(study):
    final = study.sel(step=18, width=[4, 6])
    axes = studies.against(final, "width", "loss", reference={"1/m": 1 / final.width})
    assert legend(axes) == ["0.25", "1.5 (1 of 5 diverged)", "1/m"]
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["4", "6"]
    np.testing.assert_allclose(
        axes.get_lines()[0].get_xydata(), [[4, 3 * 0.75**18], [6, 3 * 0.75**18]]
    )
    one = final.isel(width=[0])
    alone = studies.against(one, "width", "loss", reference={"1/m": 1 / one.width})
    np.testing.assert_allclose(alone.get_lines()[-1].get_xydata(), [[4, 0.25]])


def test_a_hue_without_an_order_and_given_axes(study):
    renamed = study.sel(rate=0.25, width=[4, 6]).assign_coords(width=["sgd", "adam"])
    axes = studies.learning_curve(renamed)
    assert legend(studies.learning_curve(renamed, ax=axes)) == ["sgd", "adam", "sgd", "adam"]


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda s: studies.learning_curve(s, "accuracy"), r"no result 'accuracy'; it has \['loss'"),
        (lambda s: studies.learning_curve(s), r"dimensions .*'rate'.*isel\(rate=0\)"),
        (lambda s: studies.learning_curve(s, hue="depth"), r"no dimension \['depth'\]"),
        (lambda s: studies.learning_curve(s.isel(step=0)), r"no dimension \['step'\]"),
        (
            lambda s: studies.learning_curve(s.isel(rate=0), reference={"a": [1.0]}),
            r"reference\['a'\] has shape \(1,\)",
        ),
    ],
)
def test_bad_choices_are_refused(study, draw, message):
    with pytest.raises(ValueError, match=message):
        draw(study)
