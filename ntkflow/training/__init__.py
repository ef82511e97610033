"""The engine for runs: descent and flow, what they record, and many seeds on many devices."""

from ntkflow.training.descent import DescentState as DescentState, descend as descend
from ntkflow.training.flow import FlowState as FlowState, gradient_flow as gradient_flow
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
