"""The two-layer ReLU autoencoder of Nguyen, Wong and Hegde (2019a): u = (1/√(md)) A φ(Wᵀx), ½ Σ_i.

Network, kernels, one step and the frozen limit, the theorems' quantities, observers, certificates.
"""

from ntkflow.systems.autoencoder.arguments import check_data as check_data
from ntkflow.systems.autoencoder.bounds import (
    error_decay_descent as error_decay_descent,
    error_decay_flow as error_decay_flow,
    expected_initial_error as expected_initial_error,
    initial_error as initial_error,
    kernel_term as kernel_term,
)
from ntkflow.systems.autoencoder.bounds_joint import (
    decoder_gram_perturbation as decoder_gram_perturbation,
    joint_decoder_distance as joint_decoder_distance,
    joint_decoder_gradient_norm as joint_decoder_gradient_norm,
    joint_distances as joint_distances,
    joint_encoder_distance as joint_encoder_distance,
    joint_encoder_gradient_norm as joint_encoder_gradient_norm,
)
from ntkflow.systems.autoencoder.bounds_joint_step import (
    joint_contraction_factor as joint_contraction_factor,
    joint_second_order_term as joint_second_order_term,
    joint_squared_change_term as joint_squared_change_term,
    joint_unstable_change_term as joint_unstable_change_term,
    joint_unstable_gram_norm as joint_unstable_gram_norm,
    joint_unstable_gram_term as joint_unstable_gram_term,
)
from ntkflow.systems.autoencoder.bounds_weak import (
    contraction_factor as contraction_factor,
    gram_perturbation as gram_perturbation,
    neuron_distance as neuron_distance,
    neuron_gradient_norm as neuron_gradient_norm,
    pattern_change_probability as pattern_change_probability,
    pattern_flips as pattern_flips,
    pattern_flips_failure as pattern_flips_failure,
    squared_change_term as squared_change_term,
    unstable_change_term as unstable_change_term,
    unstable_gram_norm as unstable_gram_norm,
    unstable_gram_term as unstable_gram_term,
)
from ntkflow.systems.autoencoder.certificates import (
    certificate_gradient_descent as certificate_gradient_descent,
    certificate_gradient_flow as certificate_gradient_flow,
)
from ntkflow.systems.autoencoder.concentration import (
    decoder_gram_tail as decoder_gram_tail,
    decoder_gram_width as decoder_gram_width,
    encoder_gram_tail as encoder_gram_tail,
    encoder_gram_width as encoder_gram_width,
    feature_gram_deviation as feature_gram_deviation,
    feature_gram_norm as feature_gram_norm,
    feature_gram_variance as feature_gram_variance,
    initial_decoder_norm as initial_decoder_norm,
    initial_features_norm as initial_features_norm,
    initial_weight_norm as initial_weight_norm,
    initial_weight_norm_failure as initial_weight_norm_failure,
    limit_gram_norm as limit_gram_norm,
    printed_decoder_gram_failure as printed_decoder_gram_failure,
    squared_neuron_norm as squared_neuron_norm,
)
from ntkflow.systems.autoencoder.constants import WeightNorms as WeightNorms
from ntkflow.systems.autoencoder.frozen import (
    predict_descent as predict_descent,
    predict_flow as predict_flow,
)
from ntkflow.systems.autoencoder.gaussian import (
    SteinSides as SteinSides,
    activation_norm_moment as activation_norm_moment,
    activation_probability as activation_probability,
    activation_second_moment as activation_second_moment,
    feature_product as feature_product,
    half_moment as half_moment,
    stein_sides as stein_sides,
)
from ntkflow.systems.autoencoder.gram import (
    boundary_term as boundary_term,
    data_norm as data_norm,
    decoder_gram as decoder_gram,
    encoder_gram as encoder_gram,
    gram as gram,
    kronecker as kronecker,
    limit_gram as limit_gram,
    limit_smallest_eigenvalue as limit_smallest_eigenvalue,
    perpendicular_gram as perpendicular_gram,
)
from ntkflow.systems.autoencoder.network import (
    Autoencoder as Autoencoder,
    append_constant as append_constant,
    decoder_gradient as decoder_gradient,
    encoder_gradient as encoder_gradient,
    encoder_inputs as encoder_inputs,
    patterns as patterns,
    predict as predict,
    trains_of as trains_of,
    weights as weights,
)
from ntkflow.systems.autoencoder.observables import (
    decoder_distance as decoder_distance,
    decoder_gradient_norm as decoder_gradient_norm,
    decoder_gram_change as decoder_gram_change,
    decoder_gram_error as decoder_gram_error,
    decoder_gram_smallest_eigenvalue as decoder_gram_smallest_eigenvalue,
    decoder_norm as decoder_norm,
    encoder_distance as encoder_distance,
    encoder_gradient_norm as encoder_gradient_norm,
    encoder_norm as encoder_norm,
    gram_change as gram_change,
    gram_error as gram_error,
    gram_smallest_eigenvalue as gram_smallest_eigenvalue,
    hidden_norm as hidden_norm,
    largest_decoder_distance as largest_decoder_distance,
    largest_encoder_distance as largest_encoder_distance,
    largest_encoder_gradient as largest_encoder_gradient,
    observables as observables,
    pattern_changes as pattern_changes,
    squared_error as squared_error,
    step_observables as step_observables,
)
from ntkflow.systems.autoencoder.requirements import (
    confined_width as confined_width,
    joint_confined_width as joint_confined_width,
    joint_stable_radius as joint_stable_radius,
    largest_step_size as largest_step_size,
    required_width as required_width,
    stable_radius as stable_radius,
    sufficient_width as sufficient_width,
)
from ntkflow.systems.autoencoder.step import (
    OneStep as OneStep,
    Terms as Terms,
    one_step as one_step,
)
from ntkflow.systems.autoencoder.table import (
    Row as Row,
    du_joint_width as du_joint_width,
    eigenvalue_from_separation as eigenvalue_from_separation,
    smallest_separation as smallest_separation,
    table_1 as table_1,
    width_ratio as width_ratio,
)
