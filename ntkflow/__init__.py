"""How over-parameterized networks learn: kernels, training of many seeds, and theory, in JAX."""

from ntkflow import data as data
from ntkflow import kernels as kernels
from ntkflow import layers as layers
from ntkflow import prediction as prediction
from ntkflow import studies as studies
from ntkflow import systems as systems
from ntkflow import training as training
from ntkflow.kernels.dual import dual_activation as dual_activation
from ntkflow.kernels.empirical import empirical_nngp as empirical_nngp
from ntkflow.kernels.empirical import empirical_ntk as empirical_ntk
from ntkflow.kernels.empirical import ntk_product as ntk_product
from ntkflow.kernels.spectrum import extreme_eigenvalues as extreme_eigenvalues
from ntkflow.nnx import from_nnx as from_nnx
from ntkflow.theory import Bound as Bound
from ntkflow.theory import Certificate as Certificate
from ntkflow.training.descent import descend as descend
from ntkflow.training.flow import gradient_flow as gradient_flow
from ntkflow.training.linear import linearize as linearize
from ntkflow.training.linear import taylor_expand as taylor_expand
from ntkflow.training.losses import cross_entropy_loss as cross_entropy_loss
from ntkflow.training.losses import squared_loss as squared_loss
from ntkflow.training.mapping import over_devices as over_devices
from ntkflow.training.mapping import over_seeds as over_seeds
from ntkflow.training.observe import Snapshot as Snapshot
from ntkflow.training.observe import Trajectory as Trajectory
