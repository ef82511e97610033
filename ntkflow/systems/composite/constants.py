"""The constants of a network Φ and of a loss f in h(w) = f(Φ(w)): given, known, or measured.

Φ(w) = apply(variables, x) on fixed data x, as a vector of n·o numbers; ∇Φ*(w) is its adjoint, the
vector-Jacobian product, whose squared singular values are the eigenvalues of the empirical NTK.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jax.typing import ArrayLike

from ntkflow import checks
from ntkflow.kernels.empirical import empirical_ntk
from ntkflow.kernels.spectrum import extreme_eigenvalues
from ntkflow.parameters import Predicate, partition
from ntkflow.training.losses import Reduction, gradient_scale
from ntkflow.training.observe import Loss

Apply = Callable[[Any, Any], jax.Array]
LossBuilder = Callable[[Apply], Loss]


class NearIsometry(NamedTuple):
    """What the theorems ask of Φ: Definition 1 at the initial point, Definition 2 around it.

    Attributes:
      mu: μ_Φ ≤ σ_min(∇Φ*(w₀)).
      nu: ν_Φ ≥ σ_max(∇Φ*(w₀)).
      smoothness: β_Φ, σ_max(∇Φ(u) − ∇Φ(v)) ≤ β_Φ ‖u − v‖ on ball(w₀, μ_Φ/2β_Φ), the only place
        where the proofs use it; NaN where it is not known.
    """

    mu: ArrayLike
    nu: ArrayLike
    smoothness: ArrayLike


class LossConstants(NamedTuple):
    """What the theorems ask of f ≥ 0, a loss of the outputs.

    Attributes:
      pl: α_f, f ≤ ‖∇f‖² / (2 α_f), the Polyak–Łojasiewicz condition (7).
      smoothness: β_f, the Lipschitz constant of ∇f.
    """

    pl: ArrayLike
    smoothness: ArrayLike


def squared_loss_constants(reduction: Reduction = "sum", outputs: int = 1) -> LossConstants:
    """The constants of the squared loss, α_f = β_f: 2 for Σ, 1 for ½ Σ, 2/(n·o) for the mean.

    Args:
      reduction: that of `ntkflow.squared_loss`; the paper's is "sum".
      outputs: how many numbers the network puts out on all data, n·o; only "mean" depends on it.

    Example:
      >>> squared_loss_constants(), squared_loss_constants("mean", outputs=20)
      (LossConstants(pl=2.0, smoothness=2.0), LossConstants(pl=0.1, smoothness=0.1))

    Reference: Song et al. (2021), appendix E: "Note that α_f = β_f = 2".
    """
    scale = gradient_scale(reduction, checks.positive_int("outputs", outputs))
    return LossConstants(scale, scale)


def loss_of_outputs(loss: LossBuilder, data: Any) -> Callable[[ArrayLike], jax.Array]:
    """f of h = f ∘ Φ: the loss as a function of the outputs z, of the shape of apply(w, x).

    Args:
      loss: a builder, `loss(apply) -> (params, data) -> scalar`, e.g. `ntkflow.squared_loss`.
      data: (x, y) of the run.

    Example:
      >>> from ntkflow.training.losses import squared_loss
      >>> f = loss_of_outputs(squared_loss, (jnp.zeros((2, 3)), jnp.array([0.0, 1.0])))
      >>> float(f(jnp.array([2.0, 1.0])))
      2.0
    """
    of_outputs = build(loss, lambda outputs, x: outputs)
    return lambda z: of_outputs(jnp.asarray(z), data)


def build(loss: LossBuilder, apply: Apply) -> Loss:
    """The loss of a network; a ValueError where `loss` builds none, as one already built."""
    try:
        built = loss(apply)
    except TypeError as error:
        raise ValueError(
            f"loss is {loss!r}, and loss(apply) fails ({error}); expected a builder, e.g. "
            "ntkflow.squared_loss, and not the loss that it returns."
        ) from error
    return built


def pl_ratio(loss_of_outputs: Callable[[ArrayLike], jax.Array], z: ArrayLike) -> jax.Array:
    """‖∇f(z)‖² / (2 f(z)), of which α_f is a lower bound over all z; inf where f = 0.

    Example:
      >>> float(pl_ratio(lambda z: jnp.sum(jnp.square(z)), jnp.array([3.0, 4.0])))
      2.0

    Reference: Song et al. (2021), (7).
    """
    value, gradient = jax.value_and_grad(loss_of_outputs)(jnp.asarray(z))
    squared = jnp.sum(jnp.square(gradient))
    return jnp.where(value == 0, jnp.inf, squared / (2 * jnp.where(value == 0, 1, value)))


def measure_near_isometry(
    apply: Apply,
    variables: Any,
    x: ArrayLike,
    *,
    probe: Any = None,
    trainable: Predicate | None = None,
) -> NearIsometry:
    """Measure μ_Φ = σ_min and ν_Φ = σ_max of ∇Φ*, the tightest that Definition 1 allows.

    They are the roots of the extreme eigenvalues of the empirical NTK, a matrix of n·o rows. An
    eigenvalue that the precision does not resolve is 0, and so is σ_min wherever the network has
    fewer parameters than outputs. Give float64: σ_min² < 5e-7 σ_max² is 0 in float32.

    Args:
      apply: the network, of shape (n, o) or (n,).
      variables: w₀.
      x: inputs, shape (n, ...).
      probe: another point w; smoothness is then ‖∇Φ(w) − ∇Φ(w₀)‖ / ‖w − w₀‖, a lower estimate of
        β_Φ and no bound. It takes two Jacobians, n·o times as many numbers as parameters. None
        leaves smoothness NaN: the theorems then do not apply.
      trainable: a predicate on a parameter's path; None takes all, as in a run.

    Example:
      >>> apply = lambda w, x: x @ w
      >>> near = measure_near_isometry(apply, jnp.zeros(2), jnp.diag(jnp.array([3.0, 4.0])))
      >>> float(near.mu), float(near.nu), float(near.smoothness)
      (3.0, 4.0, nan)

    Reference: Song et al. (2021), Definitions 1 and 2.
    """
    smallest, largest = singular_values(apply, variables, x, trainable=trainable)
    smoothness = jnp.full((), jnp.nan, largest.dtype)
    if probe is not None:
        shapes, probed = (jax.tree.map(jnp.shape, point) for point in (variables, probe))
        if shapes != probed:
            raise ValueError(
                f"probe has leaves of shapes {probed}; expected another point w of the same "
                f"structure as variables, {shapes}."
            )
        start, jacobian = _jacobian(apply, variables, x, trainable)
        other, jacobian_there = _jacobian(apply, probe, x, trainable)
        change = jnp.linalg.norm(jacobian_there - jacobian, 2)
        smoothness = change / jnp.linalg.norm(other - start)
    return NearIsometry(smallest, largest, smoothness)


def singular_values(
    apply: Apply, variables: Any, x: ArrayLike, *, trainable: Predicate | None = None
) -> tuple[jax.Array, jax.Array]:
    """σ_min and σ_max of ∇Φ*(w), from one decomposition of the empirical NTK of n·o rows.

    Example:
      >>> [float(v) for v in singular_values(lambda w, x: x @ w, jnp.ones(1), jnp.array([[5.0]]))]
      [5.0, 5.0]
    """
    theta = empirical_ntk(apply, trainable=trainable)(variables, x)
    if theta.ndim == 4:
        rows = theta.shape[0] * theta.shape[2]
        theta = theta.transpose(0, 2, 1, 3).reshape(rows, rows)
    extremes = extreme_eigenvalues(theta)
    # Rounding may leave an unresolved eigenvalue negative: its root is data, and no number.
    return jnp.sqrt(jnp.maximum(extremes.smallest, 0)), jnp.sqrt(extremes.largest)


def _jacobian(apply, variables, x, trainable):
    """The trained parameters as one vector, and the Jacobian of the outputs by it."""
    selected, merge = partition(variables, trainable)
    vector, unravel = ravel_pytree(selected)
    outputs = lambda vector: apply(merge(unravel(vector)), x).reshape(-1)  # noqa: E731
    return vector, jax.jacrev(outputs)(vector)
