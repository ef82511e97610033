"""Runs of the deep networks, loss ½ Σ_i (f(x_i) − y_i)², held against Theorems 3.1, 3.2 and 3.3.

The claims are what the proofs establish in turn, for gradient descent on all layers.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from ntkflow import checks
from ntkflow.data import check_inputs
from ntkflow.kernels.spectrum import extreme_eigenvalues
from ntkflow.systems.deep import fully_connected_bounds, residual_bounds
from ntkflow.systems.deep.activations import (
    ActivationConstants,
    activation_constants,
    check_activation,
)
from ntkflow.systems.deep.constants import InitialNorms, Patches, check, check_smooth
from ntkflow.systems.deep.initialization_bounds import (
    fully_connected_norm_width,
    initial_norms,
    patch_normalization,
    residual_norm_width,
    smallest_residual_feature,
)
from ntkflow.systems.deep.limits import limit
from ntkflow.systems.deep.networks import ConvolutionalResNet, FullyConnected
from ntkflow.systems.deep.observables import Step, step_observables
from ntkflow.systems.deep.requirements import Architecture, required_step_size, required_width
from ntkflow.systems.deep.technical_bounds import error_decay
from ntkflow.systems.records import DIVERGENCE_IS_DATA, check_history, steps_of, tightest
from ntkflow.theory import Bound, Certificate, Inequality, inequality

_NAMES = {
    "fully_connected": "fully connected network",
    "resnet": "ResNet",
    "convolutional_resnet": "convolutional ResNet",
}
# The numbers of the lemmas on: norms at initialization, G^(H)(0), features, the change of G^(H),
# the movement of weights, I_2, ‖u(k+1) − u(k)‖².
_NUMBERS = {
    "fully_connected": (1, 2, 3, 4, 5, 6, 7),
    "resnet": (8, 9, 10, 11, 12, 13, 14),
    "convolutional_resnet": (15, 16, 17, 18, 19, 20, 21),
}
_THEOREM = {"fully_connected": "3.1", "resnet": "3.2", "convolutional_resnet": "3.3"}


@DIVERGENCE_IS_DATA
def certificate_gradient_descent(
    history: Mapping[str, Any],
    steps: ArrayLike,
    data: tuple[ArrayLike, ArrayLike],
    module: nn.Module,
    step_size: ArrayLike,
    *,
    delta: float = 0.1,
    norms: InitialNorms | None = None,
) -> Certificate:
    """Hold a run of plain gradient descent against Theorem 3.1, 3.2 or 3.3, by its architecture.

    The lemmas take the constants of the proofs, corrected where the text errs: see
    `fully_connected_bounds` and `residual_bounds`; what the theorems leave open in Ω(·) and O(·) is
    1. Lemmas 3.11 and 3.18 print λ_0/2 for the change of G^(H), and the proof needs λ_0/4: both are
    claims here.

    Args:
      history: what `step_observables(module, limit, η)` recorded, with or without a leading axis
        of seeds.
      steps: of the records, from 0 on; `trajectory.steps`.
      data: (x, y) of the run, shapes (n, d), or (n, p, d_0), and (n,).
      module: the network, `FullyConnected`, `ResNet` or `ConvolutionalResNet`.
      step_size: η of the run, a number, or of each seed, shape (seeds,).
      delta: total probability of failure; a third for each of the proof's three events (norms
        of weights and of features at initialization, G^(H)(0)).
      norms: bounds of the initial network, as `measured_norms` finds them for one run; None takes
        those that hold with probability 1 − δ/3, `initial_norms`.

    Returns:
      The certificate: with seeds, `margin` and `holds` have their axis.

    Raises:
      ValueError: a record is missing, the first is not at 0; the activation is a polynomial or
        has a kink, inputs are parallel, or λ_0 is not resolved.

    Example:
      >>> import jax, optax
      >>> from ntkflow.training.descent import descend
      >>> from ntkflow.training.losses import squared_loss
      >>> module, x, y, step_size = FullyConnected(4096, 1), jnp.eye(2), jnp.zeros(2), 1e-2
      >>> observe = step_observables(module, limit(module, x).last, step_size)
      >>> run = descend(squared_loss(module.apply), optax.sgd(step_size), 20, observe=observe)
      >>> trajectory = jax.jit(run)(module.init(jax.random.key(0), x), (x, y))
      >>> certificate = certificate_gradient_descent(
      ...     trajectory.history, trajectory.steps, (x, y), module, step_size
      ... )
      >>> bool(certificate.holds), bool(certificate.applies)  # m asked for is far above 4096
      (True, False)

    References:
      Du (2019), sections 3.8 to 3.11.
    """
    run = _read(history, steps, data, module, step_size, delta, norms)
    return Certificate(
        theorem=f"Du (2019), Theorem {_THEOREM[run.architecture]}: gradient descent on a "
        f"{_NAMES[run.architecture]} of {module.depth} layers",
        hypotheses=_hypotheses(run),
        claims=(*_initial_claims(run), *_claims_along(run)),
    )


class _Run(NamedTuple):
    """A run and the numbers that the lemmas speak of; `share` is δ/3."""

    record: dict[str, np.ndarray]
    step: Step
    steps: np.ndarray
    x: np.ndarray
    module: Any
    architecture: Architecture
    patches: Patches | None
    constants: ActivationConstants
    norms: InitialNorms
    smallest_square: float | None
    lambda_0: float
    resolution: float
    eta: np.ndarray
    share: float

    def claim(self, statement: str, place: int | str, smaller: Any, larger: Any) -> Inequality:
        """An inequality in the precision of the record; `place` is a position in `_NUMBERS`."""
        if isinstance(place, int):
            place = f"Lemma 3.{_NUMBERS[self.architecture][place]}"
        dtype = self.record["squared_error"].dtype
        return inequality(statement, f"Du (2019), {place}", smaller, larger, dtype)

    def lemma(self, name: str, **arguments: Any) -> Any:
        """The value of a bound of the architecture's lemmas."""
        given = {"constants": self.constants, "norms": self.norms} | arguments
        if self.architecture == "fully_connected":
            return getattr(fully_connected_bounds, name)(**given).value
        given |= {"residual": self.module.residual, "patches": self.patches}
        return getattr(residual_bounds, name)(**given).value

    @property
    def n(self) -> int:
        return len(self.x)

    @property
    def depth(self) -> int:
        return self.module.depth

    @property
    def error(self) -> np.ndarray:
        """‖y − u(k)‖, shape (..., records)."""
        return np.sqrt(self.record["squared_error"])

    @property
    def distance(self) -> np.ndarray:
        """R', of each seed: shape (..., 1)."""
        return self.lemma(
            "largest_distance",
            n=self.n,
            m=self.module.width,
            depth=self.depth,
            lambda_0=self.lambda_0,
            residual_norm=self.error[..., :1],
        )


def _read(history, steps, data, module, step_size, delta, norms) -> _Run:
    x, y = data
    n = checks.same_length(x=x, y=y)
    check(delta=delta)
    needed = step_observables(module, np.eye(n), 0.0)
    check_history(history, needed, "step_observables(module, limit, step_size)")
    record = {name: np.asarray(history[name]) for name in needed if name != "one_step"}
    step = jax.tree.map(np.asarray, history["one_step"])
    steps = steps_of(steps, record["squared_error"])
    check_activation(module.activation)
    constants = activation_constants(module.activation)
    check_smooth(constants)
    check_inputs(jnp.reshape(x, (n, -1)), unit_norm=False)
    extremes = extreme_eigenvalues(limit(module, x).last)
    lambda_0 = float(extremes.smallest)
    if lambda_0 <= 0:
        raise ValueError(
            f"λ_0 of {module.depth} layers and {n} samples is 0, up to rounding: nothing can be "
            "held against it. Take fewer layers or samples further apart, in float64."
        )
    patches: Patches | None = None
    smallest_square: float | None = None
    architecture: Architecture = "resnet"
    if isinstance(module, ConvolutionalResNet):
        p = jnp.shape(x)[1]
        patches = Patches(p, module.filter_size)
        smallest_square = patch_normalization(module.activation, p)
        architecture = "convolutional_resnet"
    elif isinstance(module, FullyConnected):
        architecture = "fully_connected"
    if norms is None:
        residual = None if architecture == "fully_connected" else module.residual
        norms = initial_norms(module.width, module.depth, delta / 3, constants, residual, patches)
    return _Run(
        record=record,
        step=step,
        steps=steps,
        x=np.asarray(x),
        module=module,
        architecture=architecture,
        patches=patches,
        constants=constants,
        norms=norms,
        smallest_square=smallest_square,
        lambda_0=lambda_0,
        resolution=float(extremes.resolution),
        eta=np.asarray(step_size, float)[..., None],
        share=delta / 3,
    )


def _norm_width(run: _Run) -> Bound:
    """The width above which features have norms within c_{x,0} at initialization."""
    if run.architecture == "fully_connected":
        return fully_connected_norm_width(run.n, run.depth, run.share, run.constants)
    if run.patches is None:
        return residual_norm_width(run.n, run.share, run.constants)
    return residual_norm_width(
        run.n,
        run.share,
        run.constants,
        pixels=run.patches.pixels,
        smallest_square=run.smallest_square,
    )


def _hypotheses(run: _Run) -> tuple[Inequality, ...]:
    n, m, theorem = run.n, float(run.module.width), f"Theorem {_THEOREM[run.architecture]}"
    pixels: dict[str, Any] = {} if run.patches is None else {"pixels": run.patches.pixels}
    width = required_width(run.architecture, n, run.depth, run.lambda_0, 3 * run.share, **pixels)
    step = required_step_size(run.architecture, n, run.depth, run.lambda_0, **pixels)
    norm = _norm_width(run)
    deviation = np.abs(np.linalg.norm(run.x.reshape(n, -1), axis=1) - 1).max()
    radius = run.lemma("stable_radius", n=n, depth=run.depth, lambda_0=run.lambda_0)
    largest = run.lemma(
        "largest_step_size",
        n=n,
        m=run.module.width,
        depth=run.depth,
        lambda_0=run.lambda_0,
        residual_norm=run.error[..., :1],
    )
    return (
        run.claim("‖x_i‖ = 1, to 10⁻⁶", theorem, deviation, 1e-6),
        run.claim("0 < λ_0, up to rounding", "section 3.13", run.resolution, run.lambda_0),
        inequality(f"{width.formula.removeprefix('m = ')} ≤ m", width.source, width.value, m),
        inequality(f"{norm.formula.removeprefix('m = ')} ≤ m", norm.source, norm.value, m),
        inequality(f"η ≤ {step.formula.removeprefix('η = ')}", step.source, run.eta, step.value),
        run.claim("η ≤ what the proof's constants allow", 5, run.eta, largest),
        run.claim("R' ≤ R", f"proof of {theorem}", run.distance, radius),
    )


def _initial_claims(run: _Run) -> tuple[Inequality, ...]:
    record = run.record
    lower: Any = 0.5
    if run.architecture != "fully_connected":
        lower = smallest_residual_feature(
            run.depth,
            run.module.residual,
            run.constants,
            run.norms.weight,
            patches=run.patches,
            smallest_square=run.smallest_square,
        ).value
    smallest = record["smallest_feature"].min(axis=-1)[..., :1]
    largest = record["largest_feature"].max(axis=-1)[..., :1]
    least = record["last_gram_smallest_eigenvalue"][..., :1]
    return (
        run.claim("the lower bound ≤ ‖x^(h)(0)‖", 0, lower, smallest),
        run.claim("‖x^(h)(0)‖ ≤ c_{x,0}", 0, largest, run.norms.feature),
        run.claim(
            "‖G^(H)(0) − K^(H)‖ ≤ λ_0/4",
            "Lemma 3.22",
            record["last_gram_error"][..., :1],
            run.lambda_0 / 4,
        ),
        run.claim("¾ λ_0 ≤ λ_min(G^(H)(0))", 1, 0.75 * run.lambda_0, least),
    )


def _claims_along(run: _Run) -> tuple[Inequality, ...]:
    record, n, depth, lambda_0, eta = run.record, run.n, run.depth, run.lambda_0, run.eta
    squared, error = record["squared_error"], run.error
    moved = record["movement"].max(axis=-1)  # the R of Lemmas 3.3, 3.10 and 3.17, as it was
    later = np.s_[..., 1:]  # what is 0 at the first record has rounding only to tell there
    features = record["feature_movement"][..., 1:, :]
    if run.architecture == "fully_connected":
        layers = np.arange(1, depth + 1)
        allowed = run.lemma("feature_change", layer=layers, radius=moved[later][..., None])
    else:
        allowed = run.lemma("feature_change", radius=moved[later])[..., None]
    drift = run.lemma("gram_change", n=n, depth=depth, radius=moved[later])
    gradient = run.lemma("gradient_norm", n=n, depth=depth, residual_norm=error)
    step = {"n": n, "depth": depth, "step_size": eta, "residual_norm": error}
    second = run.lemma("second_order_change", m=run.module.width, **step)
    change = run.lemma("squared_change", **step)
    remainder = np.linalg.norm(run.step.remainder, axis=-1)
    identity = "section 3.8"
    halved: tuple[Inequality, ...] = ()
    if run.architecture != "fully_connected":
        halved = (
            run.claim("‖G^(H)(k) − G^(H)(0)‖ ≤ λ_0/2", 3, record["last_gram_change"], lambda_0 / 2),
        )
    decay = error_decay(run.steps, lambda_0, eta).value
    return (
        run.claim("‖W(k) − W(0)‖_F / √m ≤ R', of every layer and a", 4, moved, run.distance),
        run.claim(
            "‖W(k+1) − W(k)‖_F ≤ η Q'(k), of every layer and a",
            4,
            run.step.movement.max(axis=-1),
            eta * gradient,
        ),
        run.claim("‖x^(h)(k) − x^(h)(0)‖ within c R", 2, *tightest(features, allowed)),
        run.claim("‖G^(H)(k) − G^(H)(0)‖ ≤ B n R", 3, record["last_gram_change"][later], drift),
        run.claim("‖G^(H)(k) − G^(H)(0)‖ ≤ λ_0/4", 3, record["last_gram_change"], lambda_0 / 4),
        *halved,
        run.claim(
            "λ_0/2 ≤ λ_min(G^(H)(k))",
            identity,
            lambda_0 / 2,
            record["last_gram_smallest_eigenvalue"],
        ),
        run.claim(
            "λ_0/2 ≤ λ_min(G(k))", identity, lambda_0 / 2, record["gram_smallest_eigenvalue"]
        ),
        run.claim("‖I_2(k)‖ ≤ ½ η² √n κ Q'²", 5, remainder, second),
        run.claim("‖I_2(k)‖ ≤ ⅛ ηλ_0 ‖y − u(k)‖", 5, remainder, eta * lambda_0 / 8 * error),
        run.claim("‖u(k+1) − u(k)‖² ≤ ν η² n Q'²", 6, run.step.squared_change, change),
        run.claim(
            "‖u(k+1) − u(k)‖² ≤ ⅛ ηλ_0 ‖y − u(k)‖²",
            6,
            run.step.squared_change,
            eta * lambda_0 / 8 * squared,
        ),
        run.claim(
            "‖y − u(k+1)‖² ≤ (1 − ηλ_0/2) ‖y − u(k)‖²",
            "Condition 3.3",
            run.step.squared_error,
            (1 - eta * lambda_0 / 2) * squared,
        ),
        # From the second record on: at 0 it is an equality, and its margin says nothing.
        run.claim(
            "‖y − u(k)‖² ≤ (1 − ηλ_0/2)ᵏ ‖y − u(0)‖²",
            f"Theorem {_THEOREM[run.architecture]}",
            squared[later],
            (decay * squared[..., :1])[later],
        ),
    )
