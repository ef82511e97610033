"""One convolutional filter, any input distribution: Du (2019), chapter 6.

Network, gradient by regions, the quantities γ(φ), L(φ), β and L_cross, step sizes, theorems.
"""

from ntkflow.systems.convolutional_filter.bounds import (
    adaptive_iterations as adaptive_iterations,
    contraction as contraction,
    curvature as curvature,
    gradient_factor as gradient_factor,
    iterations as iterations,
    largest_angle as largest_angle,
    largest_step_size as largest_step_size,
)
from ntkflow.systems.convolutional_filter.bounds_stochastic import (
    StochasticSetting as StochasticSetting,
    failure_probability as failure_probability,
    largest_good_angle as largest_good_angle,
    middle_radius as middle_radius,
    sampled_gradient_bound as sampled_gradient_bound,
    stochastic_conditions as stochastic_conditions,
    stochastic_iterations as stochastic_iterations,
    stochastic_step_size as stochastic_step_size,
)
from ntkflow.systems.convolutional_filter.certificates import (
    certificate_gradient_descent as certificate_gradient_descent,
    certificate_recovery as certificate_recovery,
    certificate_stochastic_descent as certificate_stochastic_descent,
)
from ntkflow.systems.convolutional_filter.close_patches import (
    certificate_close_patches as certificate_close_patches,
    patch_cross as patch_cross,
    patch_gamma as patch_gamma,
)
from ntkflow.systems.convolutional_filter.curves import (
    over_angles as over_angles,
)
from ntkflow.systems.convolutional_filter.filters import (
    gabor_filter as gabor_filter,
    random_filter as random_filter,
)
from ntkflow.systems.convolutional_filter.gaussian import (
    angle_mixture_moments as angle_mixture_moments,
    gaussian_beta as gaussian_beta,
    gaussian_cross as gaussian_cross,
    gaussian_gamma as gaussian_gamma,
    gaussian_moments as gaussian_moments,
    gaussian_smoothness as gaussian_smoothness,
    sphere_moments as sphere_moments,
)
from ntkflow.systems.convolutional_filter.initialization import (
    corollary_probability as corollary_probability,
    exact_initialization_probability as exact_initialization_probability,
    initialization_probability as initialization_probability,
    initialize_in_ball as initialize_in_ball,
    restarts as restarts,
    starts_well as starts_well,
)
from ntkflow.systems.convolutional_filter.moments import (
    Moments as Moments,
    at_angle as at_angle,
    cone_directions as cone_directions,
    estimate_beta as estimate_beta,
    estimate_cross as estimate_cross,
    estimate_gamma as estimate_gamma,
    estimate_moments as estimate_moments,
    estimate_smoothness as estimate_smoothness,
)
from ntkflow.systems.convolutional_filter.network import (
    ConvolutionalFilter as ConvolutionalFilter,
    loss as loss,
    predict as predict,
    sampled_gradient as sampled_gradient,
)
from ntkflow.systems.convolutional_filter.observables import (
    observables as observables,
)
from ntkflow.systems.convolutional_filter.population import (
    DescentTerms as DescentTerms,
    GradientTerms as GradientTerms,
    Regions as Regions,
    angle as angle,
    descent_terms as descent_terms,
    gaussian_gradient as gaussian_gradient,
    gaussian_loss as gaussian_loss,
    gradient_terms as gradient_terms,
    population_gradient as population_gradient,
    population_loss as population_loss,
    regions as regions,
)
from ntkflow.systems.convolutional_filter.schedules import (
    adaptive_step as adaptive_step,
    angle_of as angle_of,
    constant_step as constant_step,
    scale_by_adaptive_step as scale_by_adaptive_step,
    two_phase_schedule as two_phase_schedule,
)
from ntkflow.systems.convolutional_filter.search import (
    Estimate as Estimate,
)
from ntkflow.systems.convolutional_filter.stochastic_lemmas import (
    rate_conditions as rate_conditions,
    stay_conditions as stay_conditions,
)
