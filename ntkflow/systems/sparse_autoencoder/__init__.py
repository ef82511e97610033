"""Autoencoders with shared weights on generative models, of Nguyen, Wong and Hegde (2019b).

ŷ = W σ(Wᵀy + b): network and gradients, population gradients, what the theorems ask and promise,
normalized descent, what to observe, certificates, recovery, and weights to start from.
"""

from ntkflow.systems.sparse_autoencoder.bounds_codes import (
    Interval as Interval,
    bias_interval as bias_interval,
    largest_closeness as largest_closeness,
    largest_correlation as largest_correlation,
    largest_incoherence as largest_incoherence,
    largest_noise as largest_noise,
    largest_noise_level as largest_noise_level,
    largest_off_support as largest_off_support,
    largest_sparsity as largest_sparsity,
    mixture_bias_interval as mixture_bias_interval,
    noise_failure as noise_failure,
    smallest_alignment as smallest_alignment,
    smallest_on_support as smallest_on_support,
    squared_correlations as squared_correlations,
    threshold_level as threshold_level,
)
from ntkflow.systems.sparse_autoencoder.bounds_gradient import (
    Sides as Sides,
    alpha_deviation as alpha_deviation,
    beta_deviation as beta_deviation,
    bias_condition as bias_condition,
    gradient_correlation as gradient_correlation,
    nonnegative_remainder as nonnegative_remainder,
    sparse_gradient_correlation as sparse_gradient_correlation,
    sparse_remainder as sparse_remainder,
)
from ntkflow.systems.sparse_autoencoder.bounds_step import (
    contraction as contraction,
    error_decay as error_decay,
    floor as floor,
    largest_spectral_distance as largest_spectral_distance,
    lemma_step_size as lemma_step_size,
    normalized_distance as normalized_distance,
    smallest_contraction as smallest_contraction,
)
from ntkflow.systems.sparse_autoencoder.certificates import (
    certificate_code_consistency as certificate_code_consistency,
    certificate_descent as certificate_descent,
)
from ntkflow.systems.sparse_autoencoder.codes import (
    Margins as Margins,
    code_consistency as code_consistency,
    margins as margins,
)
from ntkflow.systems.sparse_autoencoder.descent import (
    geometric_bias as geometric_bias,
    gradient_bias as gradient_bias,
    largest_step_size as largest_step_size,
    learn as learn,
    normalized_descent as normalized_descent,
    step_size as step_size,
    zero_bias as zero_bias,
)
from ntkflow.systems.sparse_autoencoder.initialization import (
    Spectral as Spectral,
    perturbed as perturbed,
    principal_components as principal_components,
    project_near as project_near,
    random_weights as random_weights,
    spectral as spectral,
)
from ntkflow.systems.sparse_autoencoder.network import (
    SparseAutoencoder as SparseAutoencoder,
    approximate_gradient as approximate_gradient,
    bias_gradient as bias_gradient,
    encode as encode,
    mean_loss as mean_loss,
    normalize as normalize,
    parameters as parameters,
    reconstruct as reconstruct,
    threshold as threshold,
    variables as variables,
)
from ntkflow.systems.sparse_autoencoder.observables import (
    bias as bias,
    column_norms as column_norms,
    distances as distances,
    gradient_alignment as gradient_alignment,
    gradient_squared_norm as gradient_squared_norm,
    inner_products as inner_products,
    observables as observables,
    recovery_error as recovery_error,
    sample_observables as sample_observables,
    spectral_distance as spectral_distance,
)
from ntkflow.systems.sparse_autoencoder.population import (
    Coefficients as Coefficients,
    coefficients as coefficients,
    leading_gradient as leading_gradient,
    population_bias_gradient as population_bias_gradient,
    population_gradient as population_gradient,
)
from ntkflow.systems.sparse_autoencoder.recovery import (
    Alignment as Alignment,
    align as align,
    closeness as closeness,
    is_close as is_close,
    is_near as is_near,
)
from ntkflow.systems.sparse_autoencoder.sources import (
    Gradients as Gradients,
    batch_source as batch_source,
    fresh_source as fresh_source,
    population_source as population_source,
)
