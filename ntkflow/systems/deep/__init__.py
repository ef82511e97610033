"""Deep networks of Du (2019), chapter 3: all layers trained, weights N(0, 1), loss ½ Σ_i, no 1/n.

Three architectures, their Gram matrices at finite and at infinite width, the framework behind the
recursions, what the theorems ask and promise, what to observe, and certificates. The lemmas of the
two kinds of networks have the same names, in `fully_connected_bounds` and `residual_bounds`.
"""

from ntkflow.systems.deep import (
    fully_connected_bounds as fully_connected_bounds,
    residual_bounds as residual_bounds,
)
from ntkflow.systems.deep.activations import (
    ActivationConstants as ActivationConstants,
    activation_constants as activation_constants,
    check_activation as check_activation,
    normalization as normalization,
)
from ntkflow.systems.deep.certificates import (
    certificate_gradient_descent as certificate_gradient_descent,
)
from ntkflow.systems.deep.concentration import (
    FrameworkConstants as FrameworkConstants,
    InitialErrors as InitialErrors,
    concentration_width as concentration_width,
    covariance_lipschitz as covariance_lipschitz,
    error_constant as error_constant,
    framework_constants as framework_constants,
    initial_deviation as initial_deviation,
    initial_errors as initial_errors,
)
from ntkflow.systems.deep.constants import (
    InitialNorms as InitialNorms,
    Patches as Patches,
    geometric_series as geometric_series,
    layer_growth as layer_growth,
    measured_norms as measured_norms,
)
from ntkflow.systems.deep.framework import (
    Layer as Layer,
    Population as Population,
    convolution as convolution,
    population as population,
    unshared as unshared,
)
from ntkflow.systems.deep.gram import (
    last_layer_gram as last_layer_gram,
    layer_grams as layer_grams,
)
from ntkflow.systems.deep.initialization_bounds import (
    feature_variance as feature_variance,
    fully_connected_norm_deviation as fully_connected_norm_deviation,
    fully_connected_norm_width as fully_connected_norm_width,
    initial_norms as initial_norms,
    initial_residual_norm as initial_residual_norm,
    largest_residual_feature as largest_residual_feature,
    norm_growth as norm_growth,
    output_norms as output_norms,
    patch_normalization as patch_normalization,
    residual_norm_width as residual_norm_width,
    smallest_residual_feature as smallest_residual_feature,
)
from ntkflow.systems.deep.last_gram_bounds import (
    last_gram_deviation as last_gram_deviation,
    last_gram_scale as last_gram_scale,
    last_gram_width as last_gram_width,
    limit_gram_change as limit_gram_change,
)
from ntkflow.systems.deep.limits import (
    Limit as Limit,
    convolutional_resnet_limit as convolutional_resnet_limit,
    fully_connected_limit as fully_connected_limit,
    limit as limit,
    limit_smallest_eigenvalue as limit_smallest_eigenvalue,
    resnet_limit as resnet_limit,
)
from ntkflow.systems.deep.networks import (
    ConvolutionalResNet as ConvolutionalResNet,
    FullyConnected as FullyConnected,
    ResNet as ResNet,
    hidden as hidden,
    patches as patches,
)
from ntkflow.systems.deep.observables import (
    Step as Step,
    observables as observables,
    one_step as one_step,
    step_observables as step_observables,
)
from ntkflow.systems.deep.requirements import (
    error_growth as error_growth,
    initial_gram_width as initial_gram_width,
    required_step_size as required_step_size,
    required_width as required_width,
)
from ntkflow.systems.deep.technical_bounds import (
    contraction_factor as contraction_factor,
    error_decay as error_decay,
    gaussian_operator_norm as gaussian_operator_norm,
    operator_norm_failure as operator_norm_failure,
    product_change as product_change,
    squared_error_after as squared_error_after,
)
