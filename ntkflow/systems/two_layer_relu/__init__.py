"""The two-layer ReLU network of Du (2019), chapter 2: (1/√m) Σ_r a_r σ(w_r·x), loss ½ Σ_i, no 1/n.

Network and Gram matrices, what the theorems ask and promise, what to observe, and certificates.
"""

from ntkflow.systems.two_layer_relu.bounds import contraction_factor as contraction_factor
from ntkflow.systems.two_layer_relu.bounds import error_decay_descent as error_decay_descent
from ntkflow.systems.two_layer_relu.bounds import error_decay_flow as error_decay_flow
from ntkflow.systems.two_layer_relu.bounds import expected_initial_error as expected_initial_error
from ntkflow.systems.two_layer_relu.bounds import gradient_norm as gradient_norm
from ntkflow.systems.two_layer_relu.bounds import gram_perturbation as gram_perturbation
from ntkflow.systems.two_layer_relu.bounds import (
    initial_gram_entry_deviation as initial_gram_entry_deviation,
)
from ntkflow.systems.two_layer_relu.bounds import largest_distance as largest_distance
from ntkflow.systems.two_layer_relu.bounds import (
    pattern_change_probability as pattern_change_probability,
)
from ntkflow.systems.two_layer_relu.bounds import squared_change as squared_change
from ntkflow.systems.two_layer_relu.bounds import unstable_change as unstable_change
from ntkflow.systems.two_layer_relu.bounds import unstable_gram_norm as unstable_gram_norm
from ntkflow.systems.two_layer_relu.bounds import unstable_neurons as unstable_neurons
from ntkflow.systems.two_layer_relu.certificates import (
    certificate_gradient_descent as certificate_gradient_descent,
)
from ntkflow.systems.two_layer_relu.certificates import (
    certificate_gradient_flow as certificate_gradient_flow,
)
from ntkflow.systems.two_layer_relu.network import OneStep as OneStep
from ntkflow.systems.two_layer_relu.network import TwoLayerReLU as TwoLayerReLU
from ntkflow.systems.two_layer_relu.network import gram as gram
from ntkflow.systems.two_layer_relu.network import limit_gram as limit_gram
from ntkflow.systems.two_layer_relu.network import (
    limit_smallest_eigenvalue as limit_smallest_eigenvalue,
)
from ntkflow.systems.two_layer_relu.network import one_step as one_step
from ntkflow.systems.two_layer_relu.network import patterns as patterns
from ntkflow.systems.two_layer_relu.network import predict as predict
from ntkflow.systems.two_layer_relu.network import relu as relu
from ntkflow.systems.two_layer_relu.network import unstable_gram as unstable_gram
from ntkflow.systems.two_layer_relu.network import unstable_patterns as unstable_patterns
from ntkflow.systems.two_layer_relu.network import weight_gradient as weight_gradient
from ntkflow.systems.two_layer_relu.observables import gram_change as gram_change
from ntkflow.systems.two_layer_relu.observables import gram_entry_error as gram_entry_error
from ntkflow.systems.two_layer_relu.observables import gram_error as gram_error
from ntkflow.systems.two_layer_relu.observables import (
    gram_smallest_eigenvalue as gram_smallest_eigenvalue,
)
from ntkflow.systems.two_layer_relu.observables import (
    largest_gradient_norm as largest_gradient_norm,
)
from ntkflow.systems.two_layer_relu.observables import (
    largest_weight_distance as largest_weight_distance,
)
from ntkflow.systems.two_layer_relu.observables import observables as observables
from ntkflow.systems.two_layer_relu.observables import pattern_changes as pattern_changes
from ntkflow.systems.two_layer_relu.observables import residuals as residuals
from ntkflow.systems.two_layer_relu.observables import squared_error as squared_error
from ntkflow.systems.two_layer_relu.observables import step_observables as step_observables
from ntkflow.systems.two_layer_relu.requirements import confined_width as confined_width
from ntkflow.systems.two_layer_relu.requirements import initial_gram_width as initial_gram_width
from ntkflow.systems.two_layer_relu.requirements import largest_step_size as largest_step_size
from ntkflow.systems.two_layer_relu.requirements import required_width as required_width
from ntkflow.systems.two_layer_relu.requirements import stable_radius as stable_radius
from ntkflow.systems.two_layer_relu.requirements import sufficient_constant as sufficient_constant
