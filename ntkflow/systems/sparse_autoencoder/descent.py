"""Normalized gradient descent of the shared-weight autoencoder, with the bias on a schedule.

W ← normalize(W − ζ g), b ← schedule(b), with g from a population, fresh samples or one batch.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.tree_util import Partial
from jax.typing import ArrayLike

from ntkflow import checks
from ntkflow.data.generative import BilinearModel
from ntkflow.systems.sparse_autoencoder.arguments import check, pair
from ntkflow.systems.sparse_autoencoder.bounds_step import lemma_step_size
from ntkflow.systems.sparse_autoencoder.network import (
    normalize as normalize_columns,
    parameters,
    variables,
)
from ntkflow.systems.sparse_autoencoder.sources import Source, check_gradients
from ntkflow.training.descent import DescentState
from ntkflow.training.observe import (
    Observers,
    Snapshot,
    Trajectory,
    check_observers,
    check_state,
    record,
)
from ntkflow.training.recording import scan_recorded

BiasSchedule = Callable[[jax.Array, jax.Array], jax.Array]
StepSize = ArrayLike | Callable[[jax.Array], ArrayLike]


def geometric_bias(factor: ArrayLike) -> BiasSchedule:
    """Build the schedule b ← factor · b, with |factor| < 1 a bias that diminishes.

    The paper has three: 1/C with C > 1 (Theorem 4), √(1 − τ) from b⁰ = −1/ln n (its proof), ½ from
    b⁰ = −2.5 δ (section 6). ReLU needs a diminishing bias: the proof has codes consistent while
    b_i ≤ −‖W_i − A_i‖, and at a fixed point (λ_i + b_i)² = λ_i ⇒ b_i → 0 as W_i → A_i.

    Example:
      >>> geometric_bias(0.5)(jnp.array([-1.0]), jnp.zeros(1)).tolist()
      [-0.5]
    """
    return lambda bias, gradient: bias * jnp.asarray(factor, bias.dtype)


def zero_bias() -> BiasSchedule:
    """Build the schedule b ← 0, the theorems' choice beside a hard threshold."""
    return lambda bias, gradient: jnp.zeros_like(bias)


def gradient_bias(step_size: ArrayLike) -> BiasSchedule:
    """Build the update b ← b − ζ_b g_b: a bias that is trained.

    The expected gradient is (g_b)_i = p_i b_i for a mixture of Gaussians, so that it is
    `geometric_bias(1 − ζ_b p_i)`: the schedule of the theorem is a descent on the bias. The paper
    prints −p_i b_i, with which |b| would grow; `population_bias_gradient` has the right sign.

    Args:
      step_size: ζ_b.

    Reference: Nguyen, Wong and Hegde (2019b), section 5.
    """
    return lambda bias, gradient: bias - jnp.asarray(step_size, bias.dtype) * gradient


def step_size(
    model: BilinearModel, weights: ArrayLike | None = None, *, printed: bool = False
) -> jax.Array:
    """Compute ζ = min_i 1/(κ_2 p_i λ_i), the step of Lemmas 1, 2 and 4; λ_i = ⟨W_i, A_i⟩.

    Without weights λ_i = 1: the theorem's Θ(m) for a mixture of Gaussians, and Θ(m/k) for the
    sparse models, there divided by κ_2, which is 1 but for non-negative codes. Beside those see
    `largest_step_size`. Every λ_i must be positive; this is not checked.

    Args:
      model: the generative model.
      weights: W, shape (n, m).
      printed: whether to take the largest over i, as the paper does: see `lemma_step_size`.

    Raises:
      ValueError: W has not the shape of the dictionary.

    Example:
      >>> from ntkflow.data.generative import mixture_of_gaussians
      >>> model = mixture_of_gaussians(jnp.eye(5))
      >>> float(step_size(model)), float(step_size(model, 0.8 * jnp.eye(5)).round(6))
      (5.0, 6.25)

    Reference: Nguyen, Wong and Hegde (2019b), proof of Theorem 4.
    """
    check(model=model)
    dictionary = jnp.asarray(model.dictionary)
    weights, dictionary = pair(dictionary if weights is None else weights, dictionary)
    products = jnp.sum(weights * dictionary, axis=0)
    return jnp.asarray(lemma_step_size(products, model.moments, printed=printed).value)


def largest_step_size(model: BilinearModel) -> jax.Array:
    """Compute 2 / (p (κ_2 + (k−1) κ_1²)), beyond which descent near the dictionary is unstable.

    An error common to all columns, W_i = A_i + ε s with s = A1/‖A1‖, meets the expected gradient
    p (κ_2 + (k−1) κ_1²) ε s, to first order in ε, for nearly orthogonal atoms: each step multiplies
    it by 1 − ζp (κ_2 + (k−1) κ_1²). With κ_1 = 0, or k = 1, the step of `step_size` is half as
    large as this one. For non-negative codes with (k−1) κ_1² > κ_2, k ≥ 3 say, it is larger, and
    the error grows by a factor of (k−1) κ_1²/κ_2 at each step: Theorem 4 (iii) then needs the
    projection of its proof, or a constant below 1 in Θ(m/k).

    Example:
      >>> from ntkflow.data.generative import nonnegative_sparse_coding
      >>> model = nonnegative_sparse_coding(jnp.eye(6), 3, smallest=1.0, largest=1.0)
      >>> f"{largest_step_size(model):.4f}", f"{step_size(model):.4f}"
      ('1.3333', '2.0000')
    """
    check(model=model)
    moments = model.moments
    common = moments.kappa_2 + (model.sparsity - 1) * jnp.square(moments.kappa_1)
    return jnp.asarray(2 / (moments.single * common))


def normalized_descent(
    step_size: StepSize,
    *,
    bias_schedule: BiasSchedule | None = None,
    normalize: bool = True,
) -> optax.GradientTransformation:
    """Build the optimizer W ← normalize(W − ζ g), b ← schedule(b, g_b).

    For the variables {"params": {"weights": (n, m), "bias": (m,)}} of a `SparseAutoencoder`, with
    `learn` as with `ntkflow.descend`: on the loss of a batch its automatic gradient is the paper's
    approximate one, almost surely. A column that a step takes to 0 stays 0, see `normalize`.

    Args:
      step_size: ζ, a number, or a function of the weights: lambda w: step_size(model, w).
      bias_schedule: (b, g_b) ↦ b of the next step; None leaves the bias as it is.
      normalize: whether columns get norm 1 after each step; section 6 of the paper does not say.

    Returns:
      An optax optimizer without state.

    Raises:
      ValueError: ζ is no number greater than 0, the schedule no function; and from a run:
        parameters of another structure.

    Example:
      >>> optimizer = normalized_descent(1.0, bias_schedule=geometric_bias(0.5))
      >>> params = variables(jnp.eye(2), -jnp.ones(2))
      >>> gradients = variables(jnp.array([[0.0, -1.0], [0.0, 0.0]]), jnp.zeros(2))
      >>> updates, _ = optimizer.update(gradients, optimizer.init(params), params)
      >>> moved = optax.apply_updates(params, updates)["params"]
      >>> [f"{entry:.4f}" for entry in moved["weights"][:, 1]], moved["bias"].tolist()
      (['0.7071', '0.7071'], [-0.5, -0.5])

    Reference: Nguyen, Wong and Hegde (2019b), Theorem 4.
    """
    if not callable(step_size) and not _is_positive(step_size):
        raise ValueError(
            f"step_size is {step_size!r}; expected a number greater than 0, or a function of the "
            "weights."
        )
    if bias_schedule is not None and not callable(bias_schedule):
        raise ValueError(
            f"bias_schedule is {bias_schedule!r}; expected a function of the bias and its "
            "gradient, e.g. geometric_bias(0.5)."
        )

    def init(params):
        parameters(params)
        return optax.EmptyState()

    def update(gradients, state, params=None):
        weights, bias = parameters(params)
        slope, bias_slope = parameters(gradients)
        size = step_size(weights) if callable(step_size) else step_size
        moved = weights - jnp.asarray(size, weights.dtype) * slope
        if normalize:
            moved = normalize_columns(moved)
        after = bias if bias_schedule is None else bias_schedule(bias, bias_slope)
        return variables(moved - weights, after - bias), state

    return optax.GradientTransformation(init, update)


def learn(
    source: Source,
    optimizer: optax.GradientTransformation,
    steps: int,
    *,
    observe: Observers | None = None,
    every: int = 1,
) -> Callable[..., Trajectory]:
    """Build a run of `steps` steps along the gradients of a source.

    The counterpart of `ntkflow.descend` for gradients that are no derivative of a loss on given
    data. Records are taken at steps 0, every, 2·every, … and at the last one; they are what
    `observe` names, and no loss beside. The run is compiled once, at its first call, and may be
    mapped over seeds.

    Args:
      source: `population_source`, `fresh_source`, `batch_source`, or any pure function
        source(weights, bias, key) -> `Gradients`, with another key at each step.
      optimizer: `normalized_descent`, or any optax optimizer of the variables
        {"params": {"weights": ..., "bias": ...}}.
      steps: number of steps.
      observe: names → functions of a `Snapshot`, e.g. `observables(model)`; its data are None.
      every: steps between records.

    Returns:
      `run(weights, bias, key=None, state=None) -> Trajectory(params, state, steps, history)`, from
      weights of shape (n, m) and a bias of shape (m,). `params` are variables of a
      `SparseAutoencoder`. Hand their weights and bias, and `state`, on with the same key to
      continue a run.

    Raises:
      ValueError: `steps` or `every` is not positive, `source` is no function, `optimizer` no
        optimizer; and from the run: shapes that do not fit, NaN, a source that returns no
        `Gradients`, a state of another kind of run.

    Example:
      >>> from ntkflow.data.generative import mixture_of_gaussians
      >>> from ntkflow.systems.sparse_autoencoder.sources import population_source
      >>> model = mixture_of_gaussians(jnp.eye(2))
      >>> optimizer = normalized_descent(step_size(model))
      >>> def error(snapshot):
      ...     return jnp.linalg.norm(snapshot.params["params"]["weights"] - jnp.eye(2))
      >>> run = learn(population_source(model), optimizer, steps=3, observe={"error": error})
      >>> trajectory = run(jnp.array([[0.8, -0.6], [0.6, 0.8]]), bias=0.0)
      >>> [f"{error:.1e}" for error in trajectory.history["error"]]
      ['8.9e-01', '2.8e-01', '1.0e-02', '5.4e-07']
    """
    if not callable(source):
        raise ValueError(
            f"source is of type {type(source).__name__}; expected a function source(weights, bias, "
            "key) of gradients, e.g. population_source(model)."
        )
    if not all(callable(getattr(optimizer, name, None)) for name in ("init", "update")):
        raise ValueError(
            f"optimizer is of type {type(optimizer).__name__}; expected an optax optimizer, e.g. "
            "normalized_descent(0.1). The order is learn(source, optimizer, steps)."
        )
    steps = checks.positive_int("steps", steps)
    every = checks.positive_int("every", every)
    observe = check_observers(observe, recorded=())

    @jax.jit  # once for all calls of the run; arrays that sources hold enter as arguments
    def compiled(source, observe, params, key, state):
        def step(carry, k):
            params, optimizer_state = carry
            own_key = None if key is None else jax.random.fold_in(key, k)
            gradients = check_gradients(source(*parameters(params), own_key), params)
            updates, optimizer_state = optimizer.update(gradients, optimizer_state, params)
            return (optax.apply_updates(params, updates), optimizer_state), {}

        def observed(k, carry):
            return record(observe, Snapshot(k, carry[0], state.initial_params, None))

        (params, optimizer_state), recorded, history = scan_recorded(
            step, observed, (params, state.optimizer), steps, every, start=state.step
        )
        return Trajectory(
            params=params,
            state=DescentState(state.step + steps, optimizer_state, state.initial_params),
            steps=recorded,
            history=history,
        )

    def run(
        weights: ArrayLike,
        bias: ArrayLike,
        key: jax.Array | None = None,
        state: DescentState | None = None,
    ) -> Trajectory:
        checks.prng_key(key)
        check_state(state, DescentState)
        if isinstance(weights, Mapping):
            raise ValueError(
                f"weights is a mapping with the keys {sorted(weights)}; expected an array (n, m): "
                "write run(*parameters(variables))."
            )
        params = variables(checks.matrix("weights", weights), bias)
        checks.finite("bias", bias)
        if state is None:
            state = DescentState(jnp.zeros((), jnp.int32), optimizer.init(params), params)
        functions = {name: _as_tree(f) for name, f in observe.items()}
        return compiled(_as_tree(source), functions, params, key, state)

    return run


def _is_positive(number: Any) -> bool:
    if not checks.is_concrete(number):
        return jnp.ndim(number) == 0
    try:
        return 0 < float(number) < math.inf
    except (TypeError, ValueError):
        return False


def _as_tree(function: Callable[..., Any]) -> Partial:
    return function if isinstance(function, Partial) else Partial(function)
