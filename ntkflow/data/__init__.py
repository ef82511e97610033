"""Inputs and labels: drawn at random, from installed sets, from files, and held against theory."""

from ntkflow.data.dataset import Dataset as Dataset
from ntkflow.data.dictionaries import (
    incoherence as incoherence,
    random_dictionary as random_dictionary,
)
from ntkflow.data.generative import (
    BilinearModel as BilinearModel,
    Moments as Moments,
    Samples as Samples,
    mixture_of_gaussians as mixture_of_gaussians,
    nonnegative_sparse_coding as nonnegative_sparse_coding,
    sparse_coding as sparse_coding,
)
from ntkflow.data.inputs import (
    Violations as Violations,
    check_inputs as check_inputs,
    find_violations as find_violations,
)
from ntkflow.data.loading import load as load
from ntkflow.data.patches import (
    angle_mixture as angle_mixture,
    close_patches as close_patches,
    image_patches as image_patches,
)
from ntkflow.data.splits import split as split, standardize as standardize
from ntkflow.data.synthetic import (
    sine_labels as sine_labels,
    sphere as sphere,
    sphere_gaussian_labels as sphere_gaussian_labels,
)
from ntkflow.data.uci import load_uci as load_uci
