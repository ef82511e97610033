"""Shallow networks with asymmetrical node scaling, Caron et al. (2023): Σ_j √λ_j a_j σ(w_j·x/√d).

Scales, network, tangent kernels and their limits, what the theorems promise, certificates.
"""

from ntkflow.systems.node_scaling.assumptions import (
    assumptions_on_activation as assumptions_on_activation,
    assumptions_on_data as assumptions_on_data,
    assumptions_on_network as assumptions_on_network,
)
from ntkflow.systems.node_scaling.bounds import (
    Setting as Setting,
    expected_initial_error as expected_initial_error,
    gradient_norm as gradient_norm,
    initial_error as initial_error,
    loss_decay as loss_decay,
    measure_setting as measure_setting,
    node_distance as node_distance,
    run_smallest_eigenvalue as run_smallest_eigenvalue,
)
from ntkflow.systems.node_scaling.bounds_descent import (
    contraction_factor as contraction_factor,
    descent_smallest_eigenvalue as descent_smallest_eigenvalue,
    error_decay_descent as error_decay_descent,
    euler_error as euler_error,
    largest_step_size as largest_step_size,
    required_width_descent as required_width_descent,
    squared_change as squared_change,
    step_size_conditions as step_size_conditions,
    weight_distance_descent as weight_distance_descent,
    width_conditions_descent as width_conditions_descent,
)
from ntkflow.systems.node_scaling.bounds_perturbation import (
    eigenvalue_drop as eigenvalue_drop,
    eigenvalue_drop_relu as eigenvalue_drop_relu,
    gate_flip_probability as gate_flip_probability,
    gram_change_by_gradients as gram_change_by_gradients,
    gram_perturbation as gram_perturbation,
    gram_perturbation_relu as gram_perturbation_relu,
)
from ntkflow.systems.node_scaling.bounds_relu import (
    confined_gram_change_relu as confined_gram_change_relu,
    confined_width_conditions_relu as confined_width_conditions_relu,
    gram_change_relu as gram_change_relu,
    proof_radii_relu as proof_radii_relu,
    required_width_relu as required_width_relu,
    stable_radius_relu as stable_radius_relu,
    weight_distance_relu as weight_distance_relu,
    width_conditions_relu as width_conditions_relu,
)
from ntkflow.systems.node_scaling.bounds_smooth import (
    confined_gram_change as confined_gram_change,
    confined_width_conditions as confined_width_conditions,
    gram_change as gram_change,
    proof_radii as proof_radii,
    required_width as required_width,
    stable_radius as stable_radius,
    weight_distance as weight_distance,
    width_conditions as width_conditions,
)
from ntkflow.systems.node_scaling.certificates import (
    certificate_gradient_descent as certificate_gradient_descent,
    certificate_gradient_flow as certificate_gradient_flow,
)
from ntkflow.systems.node_scaling.concentration import (
    chernoff_lower as chernoff_lower,
    chernoff_upper as chernoff_upper,
    initial_failure as initial_failure,
    initial_smallest_eigenvalue as initial_smallest_eigenvalue,
    initial_width as initial_width,
)
from ntkflow.systems.node_scaling.drift import (
    expected_gram_drift as expected_gram_drift,
    expected_weight_drift as expected_weight_drift,
    g_1 as g_1,
    g_2 as g_2,
)
from ntkflow.systems.node_scaling.gram import (
    gram as gram,
)
from ntkflow.systems.node_scaling.lemmas import (
    certificate_lemmas as certificate_lemmas,
)
from ntkflow.systems.node_scaling.limits import (
    expected_squared_deviation as expected_squared_deviation,
    gram_variance as gram_variance,
    largest_second_moment as largest_second_moment,
    largest_second_moment_upper as largest_second_moment_upper,
    limit_distance as limit_distance,
    limit_gram as limit_gram,
    limit_smallest_eigenvalue as limit_smallest_eigenvalue,
    mean_gram as mean_gram,
    sample_limit as sample_limit,
)
from ntkflow.systems.node_scaling.network import (
    NodeScaledNetwork as NodeScaledNetwork,
    hidden as hidden,
    preactivations as preactivations,
    predict as predict,
    slopes as slopes,
    weight_gradient as weight_gradient,
    weights as weights,
)
from ntkflow.systems.node_scaling.observables import observables as observables
from ntkflow.systems.node_scaling.predictor import limit_predictor as limit_predictor
from ntkflow.systems.node_scaling.scales import (
    block as block,
    inverse_squares as inverse_squares,
    kernel_departure as kernel_departure,
    node_scales as node_scales,
    power_sum as power_sum,
    power_sum_limit as power_sum_limit,
    power_sum_lower as power_sum_lower,
    power_sum_upper as power_sum_upper,
    root_sum_lower as root_sum_lower,
    root_sum_upper as root_sum_upper,
    scale_parts as scale_parts,
    zipf as zipf,
)
from ntkflow.systems.node_scaling.third_order import third_order_kernel as third_order_kernel
