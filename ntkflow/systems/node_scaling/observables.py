"""What to observe along a run of the node-scaled network on the loss ½ Σ_i (f(x_i) − y_i)².

Each observer is a function of a snapshot whose data are (x, y), for `descend` and `gradient_flow`.
Under `jit`, observers of one record share the kernels they ask for: XLA computes each once.
"""

import math

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from ntkflow.kernels.spectrum import smallest_eigenvalue
from ntkflow.systems.node_scaling.arguments import check, one_number
from ntkflow.systems.node_scaling.gram import Part, gram
from ntkflow.systems.node_scaling.network import (
    Activation,
    Variables,
    predict,
    slopes,
    weight_gradient,
    weights,
)
from ntkflow.training.observe import Observer, Snapshot


def observables(
    activation: Activation,
    *,
    gamma: ArrayLike | None = None,
    step_size: ArrayLike | None = None,
) -> dict[str, Observer]:
    """Build the observers of a network with one output and fixed signs, by name.

    - residual_norm: ‖y − u‖.
    - weight_distance: ‖w_j − w_j(0)‖ of every node, shape (m,); largest_weight_distance of all.
    - gradient_norm: ‖∂L/∂w_j‖ of every node, shape (m,).
    - gradient_change: ‖∇f(W) − ∇f(W_0)‖_F², which bounds how far the kernel moves.
    - gram_smallest_eigenvalue: λ_min(Θ); gram_change: ‖Θ − Θ(0)‖, the spectral norm.

    For γ also uniform_smallest_eigenvalue, λ_min(Θ⁽¹⁾), and uniform_change and asymmetric_change,
    ‖Θ⁽ᵏ⁾ − Θ⁽ᵏ⁾(0)‖. For a step size also step_size, and next_residual_norm, ‖y − u‖ after one
    step of gradient descent from here.

    A record costs as much as a few steps: one kernel (n, n), O(n² m), and two decompositions of it
    (`tests/systems/node_scaling/test_node_scaling_certificates.py` counts them), for γ six more.

    Args:
      activation: σ, that of the network.
      gamma: γ of `node_scales`, for what `certificate_lemmas` reads.
      step_size: η of the run for the loss ½ Σ (f − y)², for what Theorem H.1 and Lemma H.3 speak
        of. The loss by mean over n samples at a learning rate r is η = 2r/n.

    Returns:
      Names → observers. They refuse a network with several outputs, or with a trained output
      layer: no theorem of the paper speaks of these.

    Raises:
      ValueError: γ or η is not one number of its range.

    Example:
      >>> sorted(observables(jax.nn.relu))  # doctest: +NORMALIZE_WHITESPACE
      ['gradient_change', 'gradient_norm', 'gram_change', 'gram_smallest_eigenvalue',
       'largest_weight_distance', 'residual_norm', 'weight_distance']

    Reference: Caron et al. (2023), appendix J and Lemmas E.1 to H.3.
    """

    def theta(variables: Variables, snapshot: Snapshot, part: Part = "whole") -> jax.Array:
        _check_network(variables)
        x, _ = snapshot.data
        return gram(variables, x, activation=activation, part=part, gamma=gamma)

    def change(snapshot: Snapshot, part: Part = "whole") -> jax.Array:
        now, before = (
            theta(variables, snapshot, part)
            for variables in (snapshot.params, snapshot.initial_params)
        )
        return jnp.max(jnp.abs(jnp.linalg.eigvalsh(now - before)))

    def residual_norm(snapshot: Snapshot) -> jax.Array:
        return _residual_norm(snapshot.params, snapshot, activation)

    def gradient_norm(snapshot: Snapshot) -> jax.Array:
        return jnp.linalg.norm(_gradient(snapshot, activation), axis=0)

    def gradient_change(snapshot: Snapshot) -> jax.Array:
        return _gradient_change(snapshot, activation)

    observers: dict[str, Observer] = {
        "residual_norm": residual_norm,
        "weight_distance": weight_distance,
        "largest_weight_distance": lambda snapshot: jnp.max(weight_distance(snapshot)),
        "gradient_norm": gradient_norm,
        "gradient_change": gradient_change,
        "gram_smallest_eigenvalue": lambda now: smallest_eigenvalue(theta(now.params, now)),
        "gram_change": change,
    }
    if gamma is not None:
        one_number(gamma=gamma)
        check(gamma=gamma)
        observers |= {
            "uniform_smallest_eigenvalue": lambda snapshot: smallest_eigenvalue(
                theta(snapshot.params, snapshot, "uniform")
            ),
            "uniform_change": lambda snapshot: change(snapshot, "uniform"),
            "asymmetric_change": lambda snapshot: change(snapshot, "asymmetric"),
        }
    if step_size is not None:
        one_number(step_size=step_size)
        check(step_size=step_size)
        observers |= {
            "step_size": lambda snapshot: jnp.asarray(step_size, float),
            "next_residual_norm": lambda snapshot: _next(snapshot, activation, step_size),
        }
    return observers


def weight_distance(snapshot: Snapshot) -> jax.Array:
    """‖w_j − w_j(0)‖ of every node, shape (m,)."""
    kernel, _, _ = weights(snapshot.params)
    initial, _, _ = weights(snapshot.initial_params)
    return jnp.linalg.norm(kernel - initial, axis=0)


def _residual_norm(variables: Variables, snapshot: Snapshot, activation: Activation) -> jax.Array:
    _check_network(variables)
    x, y = snapshot.data
    outputs, y = predict(variables, x, activation), jnp.asarray(y)
    if y.shape != outputs.shape:  # (n, 1) would broadcast to (n, n)
        raise ValueError(
            f"y has shape {y.shape} and the outputs {outputs.shape}; expected the same."
        )
    return jnp.linalg.norm(outputs - y)


def _gradient(snapshot: Snapshot, activation: Activation) -> jax.Array:
    _check_network(snapshot.params)
    x, y = snapshot.data
    return weight_gradient(snapshot.params, x, y, activation)


def _gradient_change(snapshot: Snapshot, activation: Activation) -> jax.Array:
    _check_network(snapshot.params)
    x = jnp.asarray(snapshot.data[0])
    _, _, scales = weights(snapshot.params)
    now, before = (
        slopes(variables, x, activation) for variables in (snapshot.params, snapshot.initial_params)
    )
    moved = jnp.sum(jnp.square(now - before) * scales[None, :], axis=1)
    return jnp.sum(jnp.square(jnp.linalg.norm(x, axis=1) / math.sqrt(x.shape[1])) * moved)


def _next(snapshot: Snapshot, activation: Activation, step_size: ArrayLike) -> jax.Array:
    kernel, _, _ = weights(snapshot.params)
    step = jnp.asarray(step_size, kernel.dtype) * _gradient(snapshot, activation)
    after = {
        **snapshot.params,
        "params": {**snapshot.params["params"], "kernel": kernel - step},
    }
    return _residual_norm(after, snapshot, activation)


def _check_network(variables: Variables) -> None:
    _, output, _ = weights(variables)
    if output.ndim != 1 or "output" in variables["params"]:
        raise ValueError(
            f"The network has an output layer of shape {output.shape}, "
            f"{'trained' if 'output' in variables['params'] else 'fixed'}; expected fixed signs "
            "(m,), of which the theorems speak. For others: ntkflow.features.displacement and "
            "ntkflow.kernel_observer."
        )
