"""What the bounds of Song et al. (2021), appendix E, take of the data, and the slack they leave."""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from ntkflow import checks
from ntkflow.systems.shallow_smooth.arguments import check, library, real
from ntkflow.systems.shallow_smooth.spectra import (
    ActivationConstants,
    data_norm,
    power_smallest_singular_value,
)


class DataConstants(NamedTuple):
    """The numbers of data (x, y) that the bounds are stated in; arrays broadcast.

    Attributes:
      n, d_0: samples and inputs.
      norm: σ_max(X).
      power: σ_min(X^{*t}).
      t: the power, a whole number with c_t ≠ 0.
      label_norm: ‖Y‖, Frobenius; the paper has at most 1.
    """

    n: ArrayLike
    d_0: ArrayLike
    norm: ArrayLike
    power: ArrayLike
    t: int
    label_norm: ArrayLike = 1.0


class Slack(NamedTuple):
    """C_δ of Theorem 3: how far random quantities may be from their means, at which risk.

    Attributes:
      delta_1: share of σ_min(E M_0) that M_0 may lack, in (0, 1).
      delta_2: share of σ_max(E M_0) that M_0 may have too much, greater than 0.
      delta_3: deviations that V_0φ(W_0X) may have.
      k_1, k_2: the norms in (60), k₁ω₁√(d_0 log d_1) of a neuron's weights and k₂ω₂√(d_2 log d_1).
    """

    delta_1: ArrayLike = 0.5
    delta_2: ArrayLike = 0.5
    delta_3: ArrayLike = 3.0
    k_1: ArrayLike = 2.0
    k_2: ArrayLike = 2.0


SLACK = Slack()


def data_constants(x: ArrayLike, t: int, y: ArrayLike | None = None) -> DataConstants:
    """Compute σ_max(X), σ_min(X^{*t}) and ‖Y‖; numbers of the host where x can be read.

    Args:
      x: inputs as rows, shape (n, d_0). Where their norms are not 1 the bounds on M_0 do not hold;
        `certificate_gradient_descent` has it among its hypotheses.
      t: the power.
      y: labels, shape (n, d_2); None takes the paper's bound, 1.

    Raises:
      ValueError: t is not positive, x is not of shape (n, d_0), or y of another length.

    Example:
      >>> x = jnp.array([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
      >>> [round(float(number), 4) for number in data_constants(x, t=2)]
      [3.0, 2.0, 1.4142, 0.5155, 2.0, 1.0]

    Reference: Song et al. (2021), Theorem 3.
    """
    if checks.is_concrete(x):
        with jax.ensure_compile_time_eval():
            x = checks.matrix("x", x)
    x, t = checks.matrix("x", x), checks.positive_int("t", t)
    if y is not None:
        checks.same_length(x=x, y=y)
        checks.finite("y", y)
    if checks.is_concrete(x):
        with jax.ensure_compile_time_eval():  # numbers also where a trace is under way
            norm, power = (float(value) for value in _measure(x, t))
    else:
        norm, power = _measure(x, t)
    n, d_0 = x.shape
    return DataConstants(n, d_0, norm, power, t, 1.0 if y is None else _label_norm(y))


def order_estimates(n: ArrayLike, d_0: ArrayLike, t: int = 2) -> DataConstants:
    """σ_max(X) ≃ √(n/d_0) and σ_min(X^{*t}) ≃ 1, as the paper's order analysis takes them.

    Both up to constants, for n ≃ d_0^t inputs in all directions, n ≥ d_0. Arrays make curves.

    Example:
      >>> order_estimates(n=400, d_0=25).norm
      4.0

    Reference: Song et al. (2021), section 5.3; Oymak and Soltanolkotabi (2019), section 2.1.
    """
    check(n=n, d_0=d_0, t=t)
    return DataConstants(n, d_0, (real(n) / d_0) ** 0.5, 1.0, t)


def check_data(data: Any) -> None:
    """Refuse numbers that no data have, as far as they can be read."""
    if not isinstance(data, DataConstants):
        raise ValueError(
            f"data is of type {type(data).__name__}; expected DataConstants, e.g. "
            "data_constants(x, t=2, y=y)."
        )
    check(n=data.n, d_0=data.d_0, norm=data.norm, power=data.power, t=data.t)
    check(label_norm=data.label_norm)


def check_setting(phi: Any, data: Any) -> None:
    """Refuse an activation itself in place of its numbers, and what `check_data` refuses.

    >>> check_setting(jnp.tanh, DataConstants(20, 10, 2.0, 0.5, t=2))
    Traceback (most recent call last):
    ...
    ValueError: phi is of type ...; expected ActivationConstants: constants(...).
    """
    _check_numbers(phi)
    check_data(data)


def check_slack(slack: Slack) -> None:
    """Refuse slack outside of its range, as far as it can be read.

    >>> check_slack(Slack(delta_1=1.0))
    Traceback (most recent call last):
    ...
    ValueError: delta_1 is 1.0; expected a number in (0, 1).
    """
    for name, value in slack._asdict().items():
        if not checks.is_concrete(value):
            continue
        array = np.asarray(value, float)
        bounded = name == "delta_1"
        if not np.all((array > 0) & (array < (1 if bounded else np.inf))):
            expected = "a number in (0, 1)" if bounded else "a finite number greater than 0"
            raise ValueError(f"{name} is {value}; expected {expected}.")


def has_mean(phi: Any) -> bool:
    """Whether c_0 ≠ 0 up to rounding: that of an odd activation is 0."""
    return bool(_nonzero(phi)[0])


def coefficient(phi: Any, t: int) -> float:
    """c_t, which the theorem divides by; 0 up to rounding is refused.

    >>> from ntkflow.systems.shallow_smooth.spectra import constants
    >>> coefficient(constants(jnp.tanh), 2)
    Traceback (most recent call last):
    ...
    ValueError: c_2 of the activation is 0, ... expected t with c_t ≠ 0, here one of [1, 3, 5, 7].
    """
    t = checks.positive_int("t", t)
    nonzero = _nonzero(phi)
    known = np.asarray(phi.coefficients)
    if t >= len(known):
        raise ValueError(
            f"t is {t} and phi has the coefficients up to c_{len(known) - 1}; expected more: "
            f"constants(activation, terms={t + 1})."
        )
    if not nonzero[t]:
        raise ValueError(
            f"c_{t} of the activation is 0, and the bounds divide by it; expected t with c_t ≠ 0, "
            f"here one of {[i for i in range(1, len(known)) if nonzero[i]]}."
        )
    return float(known[t])


def exponent(phi: ActivationConstants, name: str, omega1: ArrayLike) -> Any:
    """ω₁^{r₁} or ω₁^{r₂}, as the paper prints them, for any ω₁; 1 for ω₁ = 1 whatever they are."""
    value = getattr(phi.exponents, name)
    if checks.is_concrete(omega1) and np.all(np.asarray(omega1) == 1):
        return 1.0
    if not math.isfinite(value):
        raise ValueError(
            f"The activation has no exponent {name}, so that the printed bounds speak of ω₁ = 1 "
            f"alone, and omega1 is {omega1}. The default takes constants(activation, scale=omega1) "
            "and needs none."
        )
    return library(omega1).power(real(omega1), value)


def _check_numbers(phi: Any) -> None:
    if not isinstance(phi, ActivationConstants):
        raise ValueError(
            f"phi is of type {type(phi).__name__}; expected ActivationConstants: "
            "constants(activation, scale=omega1)."
        )


def _nonzero(phi: Any) -> np.ndarray:
    _check_numbers(phi)
    known = np.asarray(phi.coefficients)
    size = np.abs(known) / np.sqrt([float(math.factorial(i)) for i in range(len(known))])
    eps = np.finfo(np.result_type(np.float32, known.dtype)).eps
    return size > 64 * eps * np.linalg.norm(size)


@functools.partial(jax.jit, static_argnums=1)  # one program for each shape, in place of ten
def _measure(x: jax.Array, t: int) -> tuple[jax.Array, jax.Array]:
    return data_norm(x), power_smallest_singular_value(x, t)


def _label_norm(y: ArrayLike) -> Any:
    if checks.is_concrete(y):
        return float(np.linalg.norm(np.ravel(np.asarray(y, float))))
    return jnp.linalg.norm(jnp.ravel(jnp.asarray(y)))
