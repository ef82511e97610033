"""The autoencoder with tied weights of Nguyen, Wong and Hegde (2019a), section 6.

u = (1/m) W φ(Wᵀx) with the loss ½ Σ_i ‖x_i − u_i‖²: network and limiting kernel, the error before
any training, and what to observe along a run.
"""

from ntkflow.systems.tied_autoencoder.error import (
    ErrorTerms as ErrorTerms,
    best_variance as best_variance,
    error_terms as error_terms,
    error_variance as error_variance,
    expected_error as expected_error,
    mean_feature as mean_feature,
    required_width as required_width,
    second_moment as second_moment,
)
from ntkflow.systems.tied_autoencoder.network import (
    TiedAutoencoder as TiedAutoencoder,
    limit_kernel as limit_kernel,
    predict as predict,
    weight_gradient as weight_gradient,
    weights as weights,
)
from ntkflow.systems.tied_autoencoder.observables import (
    held_out_error as held_out_error,
    identity_distance as identity_distance,
    observables as observables,
    reconstruction_error as reconstruction_error,
    relative_movement as relative_movement,
    train_error as train_error,
)
