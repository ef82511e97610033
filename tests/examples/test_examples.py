"""Every example runs as its reader would run it, at the smallest size that means anything."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

from ntkflow import studies

FOLDER = Path(__file__).parents[2] / "examples"
SMALL = {
    "seed_study": "--widths 16 256 --seeds 4 --steps 40 --samples 40",
    "du2019_two_layer": "--widths 25 200 --seeds 4",
    "infinite_width": "--widths 4 128 --seeds 4 --samples 3",
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
    arguments = [*SMALL[example.__name__].split(), "--output", str(tmp_path)]
    study = example.main(arguments)
    printed = capsys.readouterr().out
    assert str(study.width.values[-1]) in printed
    (picture,) = tmp_path.glob("*.png")
    assert picture.stat().st_size > 10_000
    (stored,) = tmp_path.glob("*.nc")
    assert studies.load(stored).identical(study)
    assert not study["diverged"].any()
    # What the examples are about: wider networks stay closer to their start, or to their limit.
    if "distance" in study:
        far = study["distance"].median(["seed", "network"])
    else:
        far = study["largest_weight_distance"].isel(step=-1).mean("seed")
    assert (np.diff(far) < 0).all()


def test_help_explains_the_options(example, capsys):
    with pytest.raises(SystemExit, match="0"):
        example.main(["--help"])
    printed = capsys.readouterr().out
    assert "--scale" in printed
    assert "(20" in printed  # the year of a paper


def test_an_unknown_option_is_refused(example):
    with pytest.raises(SystemExit, match="2"):
        example.main(["--scale", "huge"])
