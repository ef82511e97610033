"""Polynomials, told by the code of a function."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ntkflow.kernels.jaxprs import Constant, trace

_MAX_DEGREE = 64


class _Polynomial(NamedTuple):
    coefficients: np.ndarray


class _NotPolynomial(Exception):
    """Raised inside this file alone."""


def polynomial_coefficients(phi: Callable) -> np.ndarray | None:
    """Coefficients of `phi` where its code says that it is a polynomial, else None.

    The traced computation of `phi` at a scalar is followed through sums, products, whole powers
    and divisions by constants; nothing is fitted, so that a polynomial is never mistaken.

    Args:
      phi: a function of a floating-point scalar.

    Returns:
      float64 coefficients, lowest degree first, without trailing zeros (the zero polynomial is
      `[0.]`); None where `phi` is no polynomial, closes over traced values, is written in another
      way, or has a degree above 64.

    Example:
      >>> polynomial_coefficients(lambda x: (2 * x + 1) ** 2 - x).tolist()
      [1.0, 3.0, 4.0]
      >>> polynomial_coefficients(jnp.tanh) is None
      True
    """
    program = trace(phi, jax.ShapeDtypeStruct((), jnp.result_type(float)))
    values: dict[Any, Any] = {program.inputs[0]: _Polynomial(np.array([0.0, 1.0]))}
    try:
        with jax.ensure_compile_time_eval():
            for equation in program.equations:
                inputs = [_read(values, atom) for atom in equation.inputs]
                values.update(zip(equation.outputs, _apply(equation, inputs), strict=True))
            coefficients = _coefficients(_read(values, program.outputs[0]))
    except (_NotPolynomial, jax.errors.TracerArrayConversionError):
        return None
    return np.trim_zeros(coefficients, "b") if coefficients.any() else np.zeros(1)


def _read(values: dict[Any, Any], atom: Any) -> Any:
    return atom.value if isinstance(atom, Constant) else values[atom]


def _apply(equation: Any, inputs: list[Any]) -> list[Any]:
    if not any(isinstance(value, _Polynomial) for value in inputs):
        outputs = equation.bind(*inputs, **equation.params)
        return list(outputs) if isinstance(outputs, list | tuple) else [outputs]
    rule = _RULES.get(equation.name)
    if rule is None:
        raise _NotPolynomial
    coefficients = rule([_coefficients(value) for value in inputs], equation.params)
    if len(coefficients) > _MAX_DEGREE + 1:
        raise _NotPolynomial
    return [_Polynomial(coefficients)]


def _coefficients(value: Any) -> np.ndarray:
    if isinstance(value, _Polynomial):
        return value.coefficients
    if np.size(value) != 1:
        raise _NotPolynomial
    return np.asarray(value, np.float64).reshape(1)


def _power(base: np.ndarray, exponent: float) -> np.ndarray:
    if exponent != int(exponent) or not 0 <= exponent <= _MAX_DEGREE:
        raise _NotPolynomial
    return np.polynomial.polynomial.polypow(base, int(exponent))


def _divide(inputs: list[np.ndarray], params: dict[str, Any]) -> np.ndarray:
    numerator, denominator = inputs
    if len(denominator) > 1:
        raise _NotPolynomial
    return numerator / denominator


def _raise_to(inputs: list[np.ndarray], params: dict[str, Any]) -> np.ndarray:
    base, exponent = inputs
    if len(exponent) > 1:
        raise _NotPolynomial
    return _power(base, exponent[0])


def _convert(inputs: list[np.ndarray], params: dict[str, Any]) -> np.ndarray:
    if not jnp.issubdtype(params["new_dtype"], jnp.floating):
        raise _NotPolynomial  # rounds towards zero
    return inputs[0]


def _scalar_shape(inputs: list[np.ndarray], params: dict[str, Any]) -> np.ndarray:
    if params.get("shape", ()) not in ((), (1,)):
        raise _NotPolynomial
    return inputs[0]


_RULES: dict[str, Callable[[list[np.ndarray], dict[str, Any]], np.ndarray]] = {
    "add": lambda inputs, params: np.polynomial.polynomial.polyadd(*inputs),
    "sub": lambda inputs, params: np.polynomial.polynomial.polysub(*inputs),
    "mul": lambda inputs, params: np.polynomial.polynomial.polymul(*inputs),
    "div": _divide,
    "neg": lambda inputs, params: -inputs[0],
    "square": lambda inputs, params: _power(inputs[0], 2),
    "integer_pow": lambda inputs, params: _power(inputs[0], params["y"]),
    "pow": _raise_to,
    "convert_element_type": _convert,
    "copy": lambda inputs, params: inputs[0],
    "broadcast_in_dim": _scalar_shape,
}
