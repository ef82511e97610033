"""Every example runs as its reader would run it, at the smallest size that means anything."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

from ntkflow import studies

FOLDER = Path(__file__).parents[2] / "examples"


def widths_approach_the_limit(study):
    """Wider networks stay closer to their start, or to their limit."""
    if "distance" in study:
        far = study["distance"].median(["seed", "network"])
    else:
        far = study["largest_weight_distance"].isel(step=-1).mean("seed")
    assert (np.diff(far) < 0).all()


def depth_sets_the_smallest_eigenvalue(study):
    assert (np.diff(study["largest_movement"].mean("seed")) < 0).all()
    scaled = study["limit_smallest_eigenvalue"] * study.depth**2
    np.testing.assert_allclose(scaled / scaled.isel(depth=0), 1, atol=0.2)  # residual networks


def descent_factorizes(study):
    last = study["objective"].sel(schedule="constant").isel(step=-1)
    assert (last < 1e-12).all()
    assert study["imbalance_change"].sel(problem="(4.1)").max() < 0.1
    assert study["distance"].isel(iteration=-1).max() < 1e-6
    assert (np.diff(study["escape_time"].mean("trial")) > 0).all()
    assert study["theorem_holds"].where(study["theorem_speaks"], True).all()


def layers_stay_as_balanced_as_they_were(study):
    change = study["difference"] - study["difference"].isel(step=0)
    assert (abs(change) < 0.01 * study["squared_norms"].max()).all()
    apart = abs(study["ratio"] - 1).sel(initial_ratio=10.0)
    assert (apart.isel(step=-1) < 0.5 * apart.isel(step=0)).all()


def joint_training_needs_less_width(study):
    kept = study["keeps_rate"].sel(width=40)
    assert kept.sel(trains="both").all()
    assert not kept.sel(trains="encoder").any()


def error_at_initialization_is_the_predicted_one(study):
    assert abs(study["deviation"]).max() < 4
    train, held_out = (study[name].isel(step=-1) for name in ("train_error", "held_out_error"))
    assert (train < 0.1 * held_out).all()


def the_start_near_the_truth_recovers_it(study):
    error = study["recovery_error"].sel(step_size=1.0, noise=0.01).isel(step=-1)
    assert (error.sel(start="near A") < error.drop_sel(start="near A").min()).all()


def the_smallest_scale_is_lazy_and_tests_worst(study):
    train, test = (study[name].isel(step=-1).mean("seed") for name in ("train_error", "test_error"))
    assert (train < 0.1).all()
    assert (np.diff(test) < 0).all()
    assert (np.diff(study["lazy_bound"]) > 0).all()
    assert study["lazy_gap"].isel(omega2=0).max() < 0.01 * study["lazy_gap"].isel(omega2=-1).min()
    assert (study["panel_remaining"].isel(panel_width=-1) < 0.01).all()


def unequal_nodes_move_their_kernel(study):
    end = study.sel(activation="relu").mean("seed").isel(step=-1)
    assert (np.diff(end["displacement"]) > 0).all()
    assert (np.diff(end["ntk_change"]) > 0).all()


def unequal_nodes_move_on_diabetes(study):
    end = study.isel(step=-1).mean("seed")
    assert (np.diff(end["kernel_change"]) > 0).all()
    far = end["displacement"]
    assert (far.isel(setting=slice(1, None)) > far.isel(setting=0)).all()


def few_unequal_nodes_are_enough(study):
    far = study["displacement"].isel(step=-1).mean("seed")
    assert (far.isel(setting=slice(1, None)) > far.isel(setting=0)).all()
    pruned = study["pruned_test_accuracy"].mean("seed").sel(importance="λ‖w‖²")
    left = pruned.sel(removed=0.95) / pruned.sel(removed=0.0)
    assert left.isel(setting=-1) > left.isel(setting=slice(0, -1)).max()


def smoother_closer_and_nearer_is_faster(study):
    far = np.log(study["sigma_distance"].isel(step=-1)).mean("seed")
    assert (np.diff(far) < 0).all()
    far = np.log(study["sigma2_distance"].isel(step=-1)).mean("seed")
    assert (np.diff(far) > 0).all()
    assert (np.diff(study["sigma_ratio"].mean("seed")) < 0).all()
    loss = study["image_relative_loss"]
    assert (loss.isel(image_step=-1) < loss.isel(image_step=0)).all()
    assert (loss.isel(image_step=-1).mean("image_seed").diff("distance") > 0).all()


def one_of_four_signs_succeeds(study):
    own = study.sel(norm=0.5)
    assert (abs(own["probability"] - own["thesis"]) < 0.05 + 4 * own["standard_error"]).all()
    assert (own["undecided"] == 0).all()
    assert (study["sign_outcome"].max("sign") == 1).all()
    assert (study["sign_outcome"].sel(ratio=0).min("sign") == -1).all()
    assert not study["elsewhere"].any()


def descent_stays_longer_at_each_saddle_point(study):
    escape = study["escape"].sel(rule="1/(4L)", saddle=slice(20, None))
    limit = 1 + np.log(2) / np.log1p(1 / (2 * study.L))
    assert abs(escape / escape.shift(saddle=1) / limit - 1).max() < 1e-6
    assert (study["perturbed_escape"].sel(saddle=5) < 360).all()
    last = study["stage"].isel(iteration=-1).sel(L=3.0)
    assert last.sel(arithmetic="scaled") == 5
    assert last.sel(arithmetic="float64") == 4


# Arguments of a small run, what the table must show, and what must hold.
CASES = {
    "seed_study": (
        "--widths 16 256 --seeds 4 --steps 40 --samples 40",
        "256",
        widths_approach_the_limit,
    ),
    "du2019_two_layer": ("--widths 25 200 --seeds 4", "200", widths_approach_the_limit),
    "infinite_width": (
        "--networks residual --widths 4 128 --seeds 4 --samples 3",
        "128",
        widths_approach_the_limit,
    ),
    "du2019_depth": (
        "--networks residual --widths 16 128 --depths 2 3 --seeds 4 --steps 60",
        "128",
        depth_sets_the_smallest_eigenvalue,
    ),
    "du2019_balance": (
        "--samples 30 --width 10 --steps 2000 --seeds 4",
        "unbalanced start",
        layers_stay_as_balanced_as_they_were,
    ),
    "du2019_factorization": (
        "--shape 12 12 --rank 2 --seeds 4 --steps 200 --trials 40 --dimensions 30 300 "
        "--iterations 300",
        "300",
        descent_factorizes,
    ),
    "nguyen2019_joint_training": (
        "--widths 40 --regimes encoder both --seeds 4 --steps 2000",
        "encoder (weak)",
        joint_training_needs_less_width,
    ),
    "nguyen2019_tied_degeneracy": (
        "--dimensions 10 --widths 50 800 --variances 1 2 --seeds 100 --train-dimensions 10 "
        "--train-widths 400 --train-seeds 2 --samples 8 --steps 100",
        "holds: (6.4)",
        error_at_initialization_is_the_predicted_one,
    ),
    "nguyen2019_recovery": (
        "--features 100 --samples 200 --seeds 2",
        "(i) A + δE",
        the_start_near_the_truth_recovers_it,
    ),
    "song2021_init_scale": (
        "--width 32 --settings 3 --seeds 1 --samples 64 --epochs 300 --panel-samples 8",
        "holds: (2)",
        the_smallest_scale_is_lazy_and_tests_worst,
    ),
    "caron2023_simulated": (
        "--samples 30 --features 15 --nodes 500 --steps 1000 --seeds 2 --draws 16",
        "holds: relu: nodes move farther",
        unequal_nodes_move_their_kernel,
    ),
    "caron2023_regression": (
        "--width 100 --seeds 2 --steps 100 --kept 10 --external-steps 20",
        "γ=.5 α=.7",
        unequal_nodes_move_on_diabetes,
    ),
    "caron2023_classification": (
        "--loss cross-entropy --width 200 --seeds 2 --steps 100",
        "γ=.5 α=.7",
        few_unequal_nodes_are_enough,
    ),
    "du2019_filter": (
        "--seeds 4 --samples 100 --moment-samples 400 --steps 50 --sigmas 0.1 5 --sigmas2 0.1 2 "
        "--patches 3 --image-seeds 2 --image-samples 40 --image-steps 50 --image-distances 0.1 0.9",
        "holds: (6.3b)",
        smoother_closer_and_nearer_is_faster,
    ),
    "du2019_spurious_minimum": (
        "--runs 300 --starts 2 --curves 2 --steps 400",
        "holds: Theorem 5.4",
        one_of_four_signs_succeeds,
    ),
    "du2019_saddles": (
        "--dimensions 5 --smoothness 1 3 --seeds 6 --steps 20000",
        "holds: perturbed descent reaches a minimum in every seed",
        descent_stays_longer_at_each_saddle_point,
    ),
}


@pytest.fixture(params=sorted(path.stem for path in FOLDER.glob("*.py")))
def example(request):
    spec = importlib.util.spec_from_file_location(request.param, FOLDER / f"{request.param}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[request.param] = module  # a study reads the source of what it runs
    spec.loader.exec_module(module)
    yield module
    del sys.modules[request.param]


def test_runs_and_leaves_table_figure_and_dataset(example, tmp_path, capsys):
    arguments, shown, holds = CASES[example.__name__]
    study = example.main([*arguments.split(), "--output", str(tmp_path)])
    assert shown in capsys.readouterr().out
    (picture,) = tmp_path.glob("*.png")
    assert picture.stat().st_size > 10_000
    (stored,) = tmp_path.glob("*.nc")
    assert studies.load(stored).identical(study)
    assert not study["diverged"].any()
    holds(study)


def test_help_explains_the_options(example, capsys):
    with pytest.raises(SystemExit, match="0"):
        example.main(["--help"])
    printed = capsys.readouterr().out
    assert "--scale" in printed
    assert "(20" in printed  # the year of a paper


def test_an_unknown_option_is_refused(example):
    with pytest.raises(SystemExit, match="2"):
        example.main(["--scale", "huge"])
