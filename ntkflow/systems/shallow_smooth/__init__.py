"""Two-layer smooth networks, both layers trained: Song et al. (2021), sections 5 and 6.

V φ(W x), W ~ N(0, ω₁²), V ~ N(0, ω₂²), nothing scaled by the width; the loss is Σ, without ½ or
1/n.
"""

from ntkflow.systems.shallow_smooth.assumptions import (
    broken_assumptions as broken_assumptions,
)
from ntkflow.systems.shallow_smooth.bounds import (
    expected_gram_norm as expected_gram_norm,
    expected_gram_smallest as expected_gram_smallest,
    feature_largest_singular_value as feature_largest_singular_value,
    feature_smallest_singular_value as feature_smallest_singular_value,
    higher_gram_norm as higher_gram_norm,
)
from ntkflow.systems.shallow_smooth.certificates import (
    certificate_gradient_descent as certificate_gradient_descent,
)
from ntkflow.systems.shallow_smooth.concentration import (
    gram_deviation as gram_deviation,
    gram_lipschitz as gram_lipschitz,
    neuron_feature_norm as neuron_feature_norm,
    weight_norm as weight_norm,
)
from ntkflow.systems.shallow_smooth.exponents import (
    Exponents as Exponents,
    homogeneity_exponents as homogeneity_exponents,
)
from ntkflow.systems.shallow_smooth.failure import (
    failure_probability as failure_probability,
    initial_output_failure as initial_output_failure,
    largest_gram_failure as largest_gram_failure,
    output_norm_failure as output_norm_failure,
    smallest_gram_failure as smallest_gram_failure,
    weight_norm_failure as weight_norm_failure,
)
from ntkflow.systems.shallow_smooth.gram import (
    expected_feature_gram as expected_feature_gram,
    expected_gram as expected_gram,
    feature_gram as feature_gram,
    gram as gram,
)
from ntkflow.systems.shallow_smooth.initialization import (
    Scales as Scales,
    fixed_product as fixed_product,
    he as he,
    largest_product as largest_product,
    lecun as lecun,
)
from ntkflow.systems.shallow_smooth.lazy_bounds import (
    lazy_bound as lazy_bound,
    lazy_bound_large_hidden as lazy_bound_large_hidden,
    lazy_bound_large_outputs as lazy_bound_large_outputs,
)
from ntkflow.systems.shallow_smooth.network import (
    ShallowSmooth as ShallowSmooth,
    features as features,
    gelu as gelu,
    gradients as gradients,
    predict as predict,
    weights as weights,
)
from ntkflow.systems.shallow_smooth.network_bounds import (
    initial_loss as initial_loss,
    initial_loss_of_small_scales as initial_loss_of_small_scales,
    initial_output_norm as initial_output_norm,
    near_isometry_bound as near_isometry_bound,
    smoothness as smoothness,
    tangent_largest_singular_value as tangent_largest_singular_value,
    trajectory_output_norm as trajectory_output_norm,
)
from ntkflow.systems.shallow_smooth.observables import (
    observables as observables,
    step_observables as step_observables,
)
from ntkflow.systems.shallow_smooth.requirements import (
    Requirement as Requirement,
    relaxed_width as relaxed_width,
    required_width as required_width,
    requirement as requirement,
    smallest_width as smallest_width,
    width_factor as width_factor,
    width_order as width_order,
)
from ntkflow.systems.shallow_smooth.setting import (
    DataConstants as DataConstants,
    Slack as Slack,
    data_constants as data_constants,
    order_estimates as order_estimates,
)
from ntkflow.systems.shallow_smooth.spectra import (
    ActivationConstants as ActivationConstants,
    constants as constants,
    data_norm as data_norm,
    near_isometry as near_isometry,
    power_gram as power_gram,
    power_rank as power_rank,
    power_smallest_singular_value as power_smallest_singular_value,
    slope_bounds as slope_bounds,
)
from ntkflow.systems.shallow_smooth.table import (
    Row as Row,
    table_1 as table_1,
)
