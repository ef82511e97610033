"""The engine for runs: descent and flow, what they record, and many seeds on many devices."""

from ntkflow.training.descent import DescentState as DescentState
from ntkflow.training.descent import descend as descend
from ntkflow.training.flow import FlowState as FlowState
from ntkflow.training.flow import gradient_flow as gradient_flow
from ntkflow.training.linear import linearize as linearize
from ntkflow.training.linear import taylor_expand as taylor_expand
from ntkflow.training.losses import cross_entropy_loss as cross_entropy_loss
from ntkflow.training.losses import squared_loss as squared_loss
from ntkflow.training.mapping import over_devices as over_devices
from ntkflow.training.mapping import over_seeds as over_seeds
from ntkflow.training.observe import Snapshot as Snapshot
from ntkflow.training.observe import Trajectory as Trajectory
