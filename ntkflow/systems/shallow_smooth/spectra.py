"""Numbers of activations and data that the theorems of Song et al. (2021) are stated in."""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from ntkflow import checks
from ntkflow.kernels.hermite import hermite_coefficients, hermite_tail
from ntkflow.kernels.spectrum import smallest_eigenvalue
from ntkflow.systems.composite.constants import NearIsometry
from ntkflow.systems.deep.activations import activation_constants
from ntkflow.systems.shallow_smooth.arguments import (
    Activation,
    check,
    check_activation,
    check_number,
)
from ntkflow.systems.shallow_smooth.exponents import Exponents, homogeneity_exponents
from ntkflow.systems.shallow_smooth.network import Variables, features, product, weights


class ActivationConstants(NamedTuple):
    """The numbers of an activation φ that the theorems are stated in, on the host.

    Attributes:
      slope: φ'_max = sup |φ'|; inf where φ jumps or its slope is unbounded.
      curvature: φ''_max = sup |φ''|; inf where φ' jumps.
      coefficients: c_i = E[φ(z) He_i(z)], i = 0, 1, ..., shape (terms,).
      tail: c_∞² = Σ_{i≥2} c_i²/i!.
      exponents: r₁ and r₂.
    """

    slope: float
    curvature: float
    coefficients: np.ndarray
    tail: float
    exponents: Exponents


def slope_bounds(activation: Activation) -> tuple[float, float]:
    """φ'_max and φ''_max, as `ntkflow.systems.deep.activations.activation_constants` finds them.

    Example:
      >>> slope_bounds(jax.nn.relu)
      (1.0, inf)
    """
    check_activation(activation)
    return _slope_bounds(activation, jnp.result_type(float))


@functools.lru_cache(maxsize=64)  # a study asks for those of one activation again and again
def _slope_bounds(activation: Activation, dtype: jnp.dtype) -> tuple[float, float]:
    found = activation_constants(activation)
    return found.lipschitz, found.smoothness


def constants(
    activation: Activation, terms: int = 9, scale: ArrayLike = 1.0
) -> ActivationConstants:
    """Find the numbers of an activation from the function itself.

    Args:
      activation: φ, an elementwise function without traced values.
      terms: how many coefficients, c_0 to c_8 by default.
      scale: ω₁, not traced: coefficients and tail of z ↦ φ(ω₁z), which are exact where the paper
        bounds those of φ times powers of ω₁; the other three stay those of φ.

    Returns:
      ActivationConstants. Errors: see `activation_constants`, `hermite_coefficients` and
      `homogeneity_exponents`.

    Raises:
      ValueError: as for these three.

    Example:
      >>> found = constants(jnp.tanh, terms=4)
      >>> found.slope, round(found.curvature, 7), found.exponents
      (1.0, 0.7698004, Exponents(r1=1.0, r2=0.0))
      >>> found.coefficients.round(7).tolist()[1::2], round(found.tail, 7)
      ([0.6057055, -0.3635954], 0.0274153)

    Reference: Song et al. (2021), Assumption 2, Theorem 3 and appendix E.1.
    """
    check_number(scale=scale)
    if not checks.is_concrete(scale):
        raise ValueError("scale is traced; expected a number: these are numbers on the host.")
    slope, curvature = slope_bounds(activation)
    with jax.ensure_compile_time_eval():  # numbers also where a trace is under way
        coefficients = np.asarray(hermite_coefficients(activation, terms, scale))
        tail = float(hermite_tail(activation, scale=scale))
    return ActivationConstants(
        slope=slope,
        curvature=curvature,
        coefficients=coefficients,
        tail=tail,
        exponents=homogeneity_exponents(activation),
    )


def near_isometry(
    variables: Variables,
    x: ArrayLike,
    activation: Activation,
    largest_output_norm: ArrayLike | None = None,
) -> NearIsometry:
    """Compute μ_Φ, ν_Φ and β_Φ of Lemma 3 from the weights.

    μ_Φ = σ_min(φ(W_0 X)), of the n smallest singular values, so that it is 0 where d_1 < n;
    ν_Φ = φ'_max σ_max(X) σ_max(V_0) + σ_max(φ(W_0 X));
    β_Φ = √2 σ_max(X) (φ'_max + φ''_max χ max_i ‖x_i‖), χ = sup ‖V‖ along the run.

    σ_min and σ_max of ∇Φ* lie in [μ_Φ, ν_Φ]. The last factor of β_Φ is 1 in the paper, whose inputs
    have norm 1; without √2 it would do.

    Args:
      variables: of `ShallowSmooth`, the initial ones.
      x: inputs, shape (n, d_0), of any norms.
      activation: φ.
      largest_output_norm: χ; None takes ‖V_0‖, which is right at the start alone.

    Returns:
      NearIsometry of scalars, which go through `jax.jit` and `jax.vmap` over the variables.

    Raises:
      ValueError: x does not fit the variables, or as for `activation_constants`.

    Example:
      >>> variables = {"params": {"hidden": jnp.eye(2), "output": jnp.ones((2, 1))}}
      >>> found = near_isometry(variables, jnp.eye(2), lambda z: z)
      >>> [round(float(number), 4) for number in found]
      [1.0, 2.4142, 1.4142]

    Reference: Song et al. (2021), Lemma 3 and equation (18).
    """
    if largest_output_norm is not None:
        check(largest_output_norm=largest_output_norm)
    hidden = features(variables, x, activation)
    _, output = weights(variables)
    x = checks.matrix("x", x)
    slope, curvature = slope_bounds(activation)
    singular = _singular_values(hidden)
    smallest = singular[-1] if hidden.shape[1] >= hidden.shape[0] else jnp.zeros_like(singular[0])
    norm, output_norm = _singular_values(x)[0], _singular_values(output)[0]
    chi = output_norm
    if largest_output_norm is not None:
        chi = jnp.asarray(largest_output_norm, norm.dtype)
    longest = jnp.max(jnp.linalg.norm(x, axis=1))
    # 0·∞ would be NaN, where φ is linear and χ infinite, or φ' jumps and V or x is 0.
    bend = curvature * chi * longest if curvature else 0.0
    smoothness = math.sqrt(2) * norm * (slope + bend)
    return NearIsometry(
        mu=smallest,
        nu=slope * norm * output_norm + singular[0],
        smoothness=smoothness if math.isfinite(curvature) else jnp.full_like(norm, math.inf),
    )


def data_norm(x: ArrayLike) -> jax.Array:
    """Compute σ_max(X), between 1 and √n for n inputs of norm 1.

    Example:
      >>> float(data_norm(jnp.array([[1.0, 0.0], [0.0, 2.0]])))
      2.0

    Reference: Song et al. (2021), section 5.3: some √(n/d_0) for inputs in all directions.
    """
    return _singular_values(checks.matrix("x", x))[0]


def power_gram(x: ArrayLike, t: int, *, printed: bool = False) -> jax.Array:
    """Compute (X^{*t})ᵀ X^{*t} = (x_i·x_j)^t, entry by entry: no column of length d_0^t is formed.

    Args:
      x: inputs, shape (n, d_0).
      t: power of the Khatri–Rao product, 0 or greater; 0 gives 11ᵀ.
      printed: the paper's convention for t = 0, X^{*0} = 11ᵀ, whose Gram matrix is n 11ᵀ; with
        X^{*0} = 1ᵀ the series (56) has the right first term.

    Returns:
      Shape (n, n).

    Raises:
      ValueError: t is no whole number, 0 or greater; x is not of shape (n, d_0).

    Example:
      >>> print(power_gram(jnp.array([[1.0, 0.0], [0.6, 0.8]]), 2).round(4))
      [[1.   0.36]
       [0.36 1.  ]]

    Reference: Song et al. (2021), Theorem 3 and equation (56).
    """
    x, t = checks.matrix("x", x), _power(t)
    gram = product(x, x.T)
    power = ((gram + gram.T) / 2) ** t
    return power * len(x) if printed and t == 0 else power


def power_rank(d_0: int, t: int) -> int:
    """The largest rank of X^{*t}, the number of monomials of degree t: C(d_0 + t − 1, t) ≤ d_0^t.

    Example:
      >>> power_rank(10, 2), 10**2
      (55, 100)

    Reference: Song et al. (2021), section 5.3, which asks for d_0^t ≥ n alone.
    """
    d_0, t = checks.positive_int("d_0", d_0), _power(t)
    return math.comb(d_0 + t - 1, t)


def power_smallest_singular_value(x: ArrayLike, t: int) -> jax.Array:
    """Compute σ_min(X^{*t}), the root of the smallest eigenvalue of `power_gram`: n columns.

    It is 0 where n exceeds `power_rank`. Below 2√ε σ_max, 3e-8 σ_max in float64 and 7e-4 σ_max in
    float32, it is not resolved and 0.

    Args, Raises: as for `power_gram`.

    Example:
      >>> x = jnp.array([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
      >>> [round(float(power_smallest_singular_value(x, t)), 4) for t in (1, 2)]
      [0.0, 0.5155]

    Reference: Song et al. (2021), Theorem 3 and section 5.3.
    """
    gram = power_gram(x, t)
    if len(gram) > power_rank(jnp.shape(x)[1], t):
        return jnp.zeros((), gram.dtype)
    return jnp.sqrt(jnp.maximum(smallest_eigenvalue(gram), 0))


def _power(t: int) -> int:
    return 0 if t == 0 and not isinstance(t, bool) else checks.positive_int("t", t)


def _singular_values(array: jax.Array) -> jax.Array:
    """In descending order; half precision, which has no such decomposition, in float32.

    By default JAX asks for memory for square factors, d_1² numbers for d_1 neurons.
    """
    wide = jnp.asarray(array, jnp.promote_types(array.dtype, jnp.float32))
    return jnp.linalg.svd(wide, full_matrices=False, compute_uv=False)
