"""The balance of layers in homogeneous networks, Du (2019), chapter 4.

Networks, also with sparse and shared weights, what gradient flow preserves in them, the drift of
gradient descent, observers and certificates. They work on any chain of Flax layers.
"""

from ntkflow.systems.homogeneous.certificates import (
    certificate_gradient_descent as certificate_gradient_descent,
    certificate_gradient_flow as certificate_gradient_flow,
)
from ntkflow.systems.homogeneous.invariants import (
    Balance as Balance,
    Sides as Sides,
    imbalance as imbalance,
    products as products,
    squared_norms as squared_norms,
)
from ntkflow.systems.homogeneous.layers import layer_names as layer_names
from ntkflow.systems.homogeneous.network import (
    HomogeneousNetwork as HomogeneousNetwork,
    SharedDense as SharedDense,
    Slopes as Slopes,
    average_loss as average_loss,
    half_squared_error as half_squared_error,
    slopes as slopes,
)
from ntkflow.systems.homogeneous.observables import (
    DriftState as DriftState,
    Sizes as Sizes,
    accumulate_drift as accumulate_drift,
    drift as drift,
    observables as observables,
)
from ntkflow.systems.homogeneous.sharing import (
    WeightSharing as WeightSharing,
    convolution as convolution,
)
