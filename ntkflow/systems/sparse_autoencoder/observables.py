"""What to observe along a run of the shared-weight autoencoder, and what its certificates read.

Columns are compared one by one, π the identity, as the theorems do once W⁰ is near A: align the
start where it is not. The recovery error alone is taken after the optimal assignment.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from ntkflow.data.generative import BilinearModel, Samples
from ntkflow.systems.sparse_autoencoder.arguments import check, pair
from ntkflow.systems.sparse_autoencoder.codes import code_consistency as _consistency
from ntkflow.systems.sparse_autoencoder.network import Activation, encode, mean_loss, parameters
from ntkflow.systems.sparse_autoencoder.population import population_gradient
from ntkflow.systems.sparse_autoencoder.recovery import align
from ntkflow.training.observe import Observer, Snapshot


def distances(model: BilinearModel, snapshot: Snapshot) -> jax.Array:
    """‖W_i − A_i‖, shape (m,)."""
    weights, dictionary = _columns(model, snapshot)
    return jnp.linalg.norm(weights - dictionary, axis=0)


def spectral_distance(model: BilinearModel, snapshot: Snapshot) -> jax.Array:
    """‖W − A‖, the spectral norm; (δ, ξ)-nearness asks for at most ξ ‖A‖."""
    weights, dictionary = _columns(model, snapshot)
    return jnp.linalg.norm(weights - dictionary, 2)


def inner_products(model: BilinearModel, snapshot: Snapshot) -> jax.Array:
    """λ_i = ⟨W_i, A_i⟩, shape (m,); 1 − ‖W_i − A_i‖²/2 for unit columns."""
    weights, dictionary = _columns(model, snapshot)
    return jnp.sum(weights * dictionary, axis=0)


def column_norms(model: BilinearModel, snapshot: Snapshot) -> jax.Array:
    """‖W_i‖, shape (m,); 1 in every theorem."""
    del model
    weights, _ = parameters(snapshot.params)
    return jnp.linalg.norm(weights, axis=0)


def bias(model: BilinearModel, snapshot: Snapshot) -> jax.Array:
    """b_i, shape (m,)."""
    del model
    return parameters(snapshot.params)[1]


def recovery_error(model: BilinearModel, snapshot: Snapshot) -> jax.Array:
    """‖π(W) − A‖_F under the optimal assignment; with signs for sparse coding.

    Reference: Nguyen, Wong and Hegde (2019b), Definition 2 and section 6.
    """
    weights, _ = parameters(snapshot.params)
    return align(weights, model.dictionary, signs=_signed(model)).error


def gradient_alignment(model: BilinearModel, snapshot: Snapshot) -> jax.Array:
    """2⟨g_i, W_i − A_i⟩ with the population gradient g, shape (m,).

    What Lemmas 1, 2 and 4 bound from below: with it and ‖g_i‖², the distance before
    normalization is ‖W_i − ζg_i − A_i‖² = ‖W_i − A_i‖² − ζ 2⟨g_i, W_i − A_i⟩ + ζ²‖g_i‖².
    """
    weights, bias = parameters(snapshot.params)
    gradient = population_gradient(weights, bias, model)
    return 2 * jnp.sum(gradient * (weights - model.dictionary), axis=0)


def gradient_squared_norm(model: BilinearModel, snapshot: Snapshot) -> jax.Array:
    """‖g_i‖² of the population gradient, shape (m,)."""
    weights, bias = parameters(snapshot.params)
    return jnp.sum(jnp.square(population_gradient(weights, bias, model)), axis=0)


def observables(
    model: BilinearModel,
    samples: Samples | None = None,
    activation: Activation = jax.nn.relu,
) -> dict[str, Observer]:
    """All observers of this module, by name, for `learn` and for `ntkflow.descend`.

    Args:
      model: the generative model, whose dictionary A is to be recovered.
      samples: y (N, n) and their codes (N, m); adds reconstruction_loss, the mean over samples of
        ½ ‖y − ŷ‖², and code_consistency, the share of samples whose code has the support of the
        true one (its signs, too, for sparse coding). Each costs a product of (N, n) with (n, m).
      activation: of the encoder, for these two.

    Returns:
      Names → observers of parameters {"params": {"weights": (n, m), "bias": (m,)}}.

    Raises:
      ValueError: model and samples are not such; from a run: shapes that do not fit.

    Example:
      >>> from ntkflow.data.generative import mixture_of_gaussians
      >>> model = mixture_of_gaussians(jnp.eye(4, 2))
      >>> sorted(observables(model))  # doctest: +NORMALIZE_WHITESPACE
      ['bias', 'column_norms', 'distances', 'gradient_alignment', 'gradient_squared_norm',
       'inner_products', 'recovery_error', 'spectral_distance']
      >>> samples = model.sample(jax.random.key(0), 3)
      >>> sorted(set(observables(model, samples)) - set(observables(model)))
      ['code_consistency', 'reconstruction_loss']
    """
    check(model=model)
    chosen: tuple[Callable[..., jax.Array], ...] = (
        distances,
        spectral_distance,
        inner_products,
        column_norms,
        bias,
        recovery_error,
        gradient_alignment,
        gradient_squared_norm,
    )
    # Pytrees, so that a compiled run takes model and samples as arguments, not as constants.
    observers: dict[str, Observer] = {f.__name__: Partial(f, model) for f in chosen}
    if samples is not None:
        observers |= sample_observables(samples, activation, signs=_signed(model))
    return observers


def sample_observables(
    samples: Samples, activation: Activation = jax.nn.relu, *, signs: bool = False
) -> dict[str, Observer]:
    """The observers on data alone, reconstruction_loss and code_consistency.

    Args:
      samples: y (N, n) and their codes (N, m).
      activation: of the encoder.
      signs: whether a code's signs must agree, too, and not its support alone.

    Raises:
      ValueError: `samples` is no `Samples`, σ is no elementwise function; from a run: shapes that
        do not fit.
    """
    if not isinstance(samples, Samples):
        raise ValueError(
            f"samples is of type {type(samples).__name__}; expected samples with their codes, "
            "model.sample(key, N), or data.Samples(y, codes)."
        )
    loss = mean_loss(activation)

    def reconstruction_loss(y, snapshot):
        return loss(snapshot.params, (y, y))

    def code_consistency(samples, snapshot):
        codes = encode(*parameters(snapshot.params), samples.y, activation)
        return _consistency(codes, samples.codes, signs=signs)

    return {
        "reconstruction_loss": Partial(reconstruction_loss, samples.y),
        "code_consistency": Partial(code_consistency, samples),
    }


def _columns(model: BilinearModel, snapshot: Snapshot) -> tuple[jax.Array, jax.Array]:
    return pair(parameters(snapshot.params)[0], model.dictionary)


def _signed(model: BilinearModel) -> bool:
    return model.kind == "sparse_coding"
