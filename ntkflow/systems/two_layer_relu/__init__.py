"""The two-layer ReLU network of Du (2019), chapter 2: (1/√m) Σ_r a_r σ(w_r·x), loss ½ Σ_i, no 1/n.

Network and Gram matrices, what the theorems ask and promise, what to observe, and certificates.
"""

from ntkflow.systems.two_layer_relu.bounds import (
    contraction_factor as contraction_factor,
    error_decay_descent as error_decay_descent,
    error_decay_flow as error_decay_flow,
    expected_initial_error as expected_initial_error,
    gradient_norm as gradient_norm,
    gram_perturbation as gram_perturbation,
    initial_gram_entry_deviation as initial_gram_entry_deviation,
    largest_distance as largest_distance,
    pattern_change_probability as pattern_change_probability,
    squared_change as squared_change,
    unstable_change as unstable_change,
    unstable_gram_norm as unstable_gram_norm,
    unstable_neurons as unstable_neurons,
)
from ntkflow.systems.two_layer_relu.certificates import (
    certificate_gradient_descent as certificate_gradient_descent,
    certificate_gradient_flow as certificate_gradient_flow,
)
from ntkflow.systems.two_layer_relu.network import (
    OneStep as OneStep,
    TwoLayerReLU as TwoLayerReLU,
    gram as gram,
    limit_gram as limit_gram,
    limit_smallest_eigenvalue as limit_smallest_eigenvalue,
    one_step as one_step,
    patterns as patterns,
    predict as predict,
    relu as relu,
    unstable_gram as unstable_gram,
    unstable_patterns as unstable_patterns,
    weight_gradient as weight_gradient,
)
from ntkflow.systems.two_layer_relu.observables import (
    gram_change as gram_change,
    gram_entry_error as gram_entry_error,
    gram_error as gram_error,
    gram_smallest_eigenvalue as gram_smallest_eigenvalue,
    largest_gradient_norm as largest_gradient_norm,
    largest_weight_distance as largest_weight_distance,
    observables as observables,
    pattern_changes as pattern_changes,
    residuals as residuals,
    squared_error as squared_error,
    step_observables as step_observables,
)
from ntkflow.systems.two_layer_relu.requirements import (
    confined_width as confined_width,
    initial_gram_width as initial_gram_width,
    largest_step_size as largest_step_size,
    required_width as required_width,
    stable_radius as stable_radius,
    sufficient_constant as sufficient_constant,
)
