"""Two layers with weight normalization and patches that do not overlap: Du (2019), chapter 5.

Network, population loss, minima and saddles, the reduction to five numbers, success probabilities,
and every theorem and lemma of the chapter as bounds and certificates.
"""

from ntkflow.systems.weight_normalized_filter.bounds import (
    alignment_time as alignment_time,
    contraction_step_size as contraction_step_size,
    exact_sine_contraction as exact_sine_contraction,
    largest_overlap as largest_overlap,
    largest_signal as largest_signal,
    next_angle as next_angle,
    output_alignment as output_alignment,
    overlap_step_size as overlap_step_size,
    sharp_largest_overlap as sharp_largest_overlap,
    signal as signal,
    sine_contraction as sine_contraction,
    smallest_overlap as smallest_overlap,
    sum_step_size as sum_step_size,
    turn_step_size as turn_step_size,
)
from ntkflow.systems.weight_normalized_filter.bounds_descent import (
    angle_decay as angle_decay,
    initial_progress as initial_progress,
    largest_filter_norm as largest_filter_norm,
    largest_step_size as largest_step_size,
    phase_one_overlap as phase_one_overlap,
    phase_one_time as phase_one_time,
    theorem_step_size as theorem_step_size,
)
from ntkflow.systems.weight_normalized_filter.bounds_initialization import (
    initial_cosine as initial_cosine,
    initial_overlap as initial_overlap,
    initialization_probability as initialization_probability,
    largest_spurious_ratio as largest_spurious_ratio,
    spurious_probability as spurious_probability,
)
from ntkflow.systems.weight_normalized_filter.bounds_phase_two import (
    fast_rate as fast_rate,
    final_loss as final_loss,
    output_error_decay as output_error_decay,
    output_time as output_time,
    phase_two_time as phase_two_time,
    sum_error_decay as sum_error_decay,
    sum_time as sum_time,
)
from ntkflow.systems.weight_normalized_filter.bounds_spurious import (
    largest_spurious_level as largest_spurious_level,
    largest_spurious_step_size as largest_spurious_step_size,
    least_negative_overlap as least_negative_overlap,
    most_negative_overlap as most_negative_overlap,
    smallest_spurious_loss as smallest_spurious_loss,
    spurious_rate as spurious_rate,
    supplement_bounds as supplement_bounds,
)
from ntkflow.systems.weight_normalized_filter.certificates import (
    certificate_convergence as certificate_convergence,
)
from ntkflow.systems.weight_normalized_filter.certificates_spurious import (
    certificate_spurious as certificate_spurious,
)
from ntkflow.systems.weight_normalized_filter.initialization import (
    Learned as Learned,
    initialize as initialize,
    initialize_reduced as initialize_reduced,
    learn_filter as learn_filter,
    sign_trials as sign_trials,
)
from ntkflow.systems.weight_normalized_filter.landscape import (
    Conditions as Conditions,
    best_output as best_output,
    global_minimum as global_minimum,
    has_spurious_minimum as has_spurious_minimum,
    in_basin as in_basin,
    saddle_angle as saddle_angle,
    spurious_conditions as spurious_conditions,
    spurious_loss as spurious_loss,
    spurious_minimum as spurious_minimum,
    success_conditions as success_conditions,
)
from ntkflow.systems.weight_normalized_filter.lemmas import (
    certificate_lemmas as certificate_lemmas,
)
from ntkflow.systems.weight_normalized_filter.limits import (
    Limit as Limit,
    certificate_limit as certificate_limit,
    limit as limit,
)
from ntkflow.systems.weight_normalized_filter.network import (
    Teacher as Teacher,
    WeightNormalizedFilter as WeightNormalizedFilter,
    draw_patches as draw_patches,
    make_teacher as make_teacher,
    predict as predict,
    sampled_loss as sampled_loss,
    teacher_outputs as teacher_outputs,
)
from ntkflow.systems.weight_normalized_filter.observables import (
    observables as observables,
)
from ntkflow.systems.weight_normalized_filter.phases import (
    Phases as Phases,
    Rates as Rates,
    phase_rates as phase_rates,
    phases as phases,
)
from ntkflow.systems.weight_normalized_filter.population import (
    angle as angle,
    cross_matrix as cross_matrix,
    half_space_mean as half_space_mean,
    half_space_product as half_space_product,
    inverse_overlap as inverse_overlap,
    moment_matrix as moment_matrix,
    overlap_function as overlap_function,
    population_gradients as population_gradients,
    population_loss as population_loss,
    relu_product as relu_product,
    wedge_moments as wedge_moments,
    wedge_product as wedge_product,
)
from ntkflow.systems.weight_normalized_filter.reduction import (
    Problem as Problem,
    Reduced as Reduced,
    advance as advance,
    reduce as reduce,
    reduce_teacher as reduce_teacher,
    reduced_loss as reduced_loss,
    reduced_observables as reduced_observables,
    simulate as simulate,
    table_problem as table_problem,
)
from ntkflow.systems.weight_normalized_filter.success import (
    Decision as Decision,
    Success as Success,
    limit_success_probability as limit_success_probability,
    outcome as outcome,
    run_until_decided as run_until_decided,
    success_probability as success_probability,
    usual_step_size as usual_step_size,
)
