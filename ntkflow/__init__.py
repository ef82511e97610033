"""How over-parameterized networks learn: kernels, training of many seeds, and theory, in JAX."""

from ntkflow import (
    data as data,
    features as features,
    kernels as kernels,
    layers as layers,
    prediction as prediction,
    stationarity as stationarity,
    studies as studies,
    systems as systems,
    training as training,
)
from ntkflow.kernels.derivative import (
    ntk_derivative as ntk_derivative,
    ntk_time_derivative as ntk_time_derivative,
)
from ntkflow.kernels.dual import dual_activation as dual_activation
from ntkflow.kernels.empirical import (
    empirical_nngp as empirical_nngp,
    empirical_ntk as empirical_ntk,
    ntk_by_group as ntk_by_group,
    ntk_diagonal as ntk_diagonal,
    ntk_product as ntk_product,
)
from ntkflow.kernels.infinite import infinite_width as infinite_width
from ntkflow.kernels.monte_carlo import monte_carlo_kernel as monte_carlo_kernel
from ntkflow.kernels.spectrum import extreme_eigenvalues as extreme_eigenvalues
from ntkflow.nnx import from_nnx as from_nnx
from ntkflow.theory import Bound as Bound, Certificate as Certificate
from ntkflow.training.descent import descend as descend
from ntkflow.training.flow import gradient_flow as gradient_flow
from ntkflow.training.kernel_observers import kernel_observer as kernel_observer
from ntkflow.training.linear import linearize as linearize, taylor_expand as taylor_expand
from ntkflow.training.losses import (
    cross_entropy_loss as cross_entropy_loss,
    squared_loss as squared_loss,
)
from ntkflow.training.mapping import over_devices as over_devices, over_seeds as over_seeds
from ntkflow.training.observe import Snapshot as Snapshot, Trajectory as Trajectory
from ntkflow.training.perturbed import (
    perturbed_gradient_descent as perturbed_gradient_descent,
)
