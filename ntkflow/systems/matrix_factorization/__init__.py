"""Asymmetric matrix factorization of Du (2019), chapter 4: ½ ‖UVᵀ − M*‖_F², without regularization.

Objectives and schedules, what the theorems ask and promise, saddles, and the case of rank one.
"""

from ntkflow.systems.matrix_factorization.bounds import (
    balanced_factor_norm as balanced_factor_norm,
    factor_norm as factor_norm,
    imbalance_growth as imbalance_growth,
    initial_objective as initial_objective,
    initial_variance as initial_variance,
    largest_initial_step as largest_initial_step,
    largest_step_size as largest_step_size,
    largest_step_square_sum as largest_step_square_sum,
    next_factor_norm as next_factor_norm,
    saddle_curvature as saddle_curvature,
    smoothness as smoothness,
)
from ntkflow.systems.matrix_factorization.certificates import (
    certificate_gradient_descent as certificate_gradient_descent,
)
from ntkflow.systems.matrix_factorization.landscape import (
    Landscape as Landscape,
    certificate_stationary_point as certificate_stationary_point,
    escape_direction as escape_direction,
    hessian_eigenvalues as hessian_eigenvalues,
    hessian_form as hessian_form,
    landscape as landscape,
    procrustes as procrustes,
    stationary_point as stationary_point,
)
from ntkflow.systems.matrix_factorization.observables import (
    gradient_norm as gradient_norm,
    imbalance_change as imbalance_change,
    imbalance_norm as imbalance_norm,
    observables as observables,
    product_norm as product_norm,
    step_observables as step_observables,
    target_norm as target_norm,
    u_norm as u_norm,
    v_norm as v_norm,
)
from ntkflow.systems.matrix_factorization.problem import (
    TwoLayerLinear as TwoLayerLinear,
    gradient as gradient,
    gradient_step as gradient_step,
    imbalance as imbalance,
    imbalance_step as imbalance_step,
    initialize as initialize,
    low_rank_target as low_rank_target,
    objective as objective,
    regularized_gradient as regularized_gradient,
    regularized_objective as regularized_objective,
    residual as residual,
)
from ntkflow.systems.matrix_factorization.rank_one import (
    RankOne as RankOne,
    StageTimes as StageTimes,
    advance as advance,
    complement as complement,
    complement_time as complement_time,
    escape_time as escape_time,
    next_complement as next_complement,
    next_signal_error as next_signal_error,
    product_error as product_error,
    rank_one_std as rank_one_std,
    reduce as reduce,
    signal_constant as signal_constant,
    signal_error as signal_error,
    signal_time as signal_time,
    simulate as simulate,
    stage_times as stage_times,
)
from ntkflow.systems.matrix_factorization.rank_one_certificate import (
    certificate_rank_one as certificate_rank_one,
)
from ntkflow.systems.matrix_factorization.schedules import (
    constant_schedule as constant_schedule,
    power_schedule as power_schedule,
    theorem_schedule as theorem_schedule,
)
