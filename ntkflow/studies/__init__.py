"""Studies: an experiment × seeds × a grid of settings, as one labelled dataset."""

from ntkflow.studies.files import load as load, save as save
from ntkflow.studies.plot import against as against, learning_curve as learning_curve
from ntkflow.studies.runner import run as run
