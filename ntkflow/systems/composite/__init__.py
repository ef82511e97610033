"""Any network and loss, h(w) = f(Φ(w)), as Song et al. (2021), sections 2 to 4, treat them.

Convergence of flow and descent from near-isometry at the start, and how lazy a run is.
"""

from ntkflow.systems.composite.bounds import (
    ball_radius as ball_radius,
    descent_length as descent_length,
    descent_rate as descent_rate,
    flow_length as flow_length,
    flow_rate as flow_rate,
    gradient_bound as gradient_bound,
    largest_initial_loss as largest_initial_loss,
    largest_step_size as largest_step_size,
    output_change as output_change,
    singular_values_in_ball as singular_values_in_ball,
    step_decrease as step_decrease,
)
from ntkflow.systems.composite.certificates import (
    certificate_gradient_descent as certificate_gradient_descent,
    certificate_gradient_flow as certificate_gradient_flow,
)
from ntkflow.systems.composite.constants import (
    LossConstants as LossConstants,
    NearIsometry as NearIsometry,
    loss_of_outputs as loss_of_outputs,
    measure_near_isometry as measure_near_isometry,
    pl_ratio as pl_ratio,
    singular_values as singular_values,
    squared_loss_constants as squared_loss_constants,
)
from ntkflow.systems.composite.lazy import (
    LazyGap as LazyGap,
    lazy_gap as lazy_gap,
    lazy_ratio as lazy_ratio,
)
from ntkflow.systems.composite.observables import (
    observables as observables,
    step_observables as step_observables,
)
from ntkflow.systems.composite.path_length import (
    PathLength as PathLength,
    accumulate_length as accumulate_length,
    flow_path_length as flow_path_length,
    path_length as path_length,
)
