"""Functions on which gradient descent takes exponential time to escape saddle points, Du (2019),
chapter 7: warm-up, sketch, tube and octopus, escape times, what the theorems promise.
"""

from ntkflow.systems.saddles.affine import (
    gaussian_mass as gaussian_mass,
    transform as transform,
    transform_smoothness as transform_smoothness,
    transform_step as transform_step,
)
from ntkflow.systems.saddles.arguments import (
    Constants as Constants,
)
from ntkflow.systems.saddles.bounds import (
    buffer_time as buffer_time,
    distance_to_minima as distance_to_minima,
    earliest_entry as earliest_entry,
    escape_time as escape_time,
    first_entry as first_entry,
    growth_ratio as growth_ratio,
    largest_step_size as largest_step_size,
    latest_entry as latest_entry,
    stationarity_accuracy as stationarity_accuracy,
)
from ntkflow.systems.saddles.bounds_perturbed import (
    Hyperparameters as Hyperparameters,
    largest_gradient_threshold as largest_gradient_threshold,
    largest_radius as largest_radius,
    perturbed_hyperparameters as perturbed_hyperparameters,
    perturbed_iterations as perturbed_iterations,
)
from ntkflow.systems.saddles.certificates import (
    certificate_descent as certificate_descent,
    certificate_escape_times as certificate_escape_times,
    certificate_landscape as certificate_landscape,
    certificate_perturbed as certificate_perturbed,
)
from ntkflow.systems.saddles.escape import (
    Escape as Escape,
    EscapeTimes as EscapeTimes,
    escape_times as escape_times,
    perturbed_escape_times as perturbed_escape_times,
    simulate as simulate,
    simulate_perturbed as simulate_perturbed,
)
from ntkflow.systems.saddles.lipschitz import (
    smoothness as smoothness,
)
from ntkflow.systems.saddles.octopus import (
    check_domain as check_domain,
    gradient as gradient,
    in_domain as in_domain,
    minimum as minimum,
    minimum_value as minimum_value,
    multipliers as multipliers,
    octopus as octopus,
    saddle_points as saddle_points,
    stage as stage,
    tube as tube,
)
from ntkflow.systems.saddles.scaled import (
    Scaled as Scaled,
    from_scaled as from_scaled,
    log_magnitude as log_magnitude,
    multiply as multiply,
    to_scaled as to_scaled,
)
from ntkflow.systems.saddles.sketch import (
    SketchTimes as SketchTimes,
    sketch as sketch,
    sketch_escape_times as sketch_escape_times,
    sketch_second_time as sketch_second_time,
)
from ntkflow.systems.saddles.splines import (
    g_1 as g_1,
    g_1_curvature as g_1_curvature,
    g_1_slope as g_1_slope,
    g_2 as g_2,
    g_2_curvature as g_2_curvature,
    g_2_slope as g_2_slope,
    hermite_cubic as hermite_cubic,
    largest_slope as largest_slope,
    least_slope as least_slope,
    offset as offset,
)
from ntkflow.systems.saddles.warm_up import (
    FarTimes as FarTimes,
    far_start as far_start,
    far_start_times as far_start_times,
    thin_band as thin_band,
    thin_band_escape_time as thin_band_escape_time,
    thin_band_start as thin_band_start,
)
