"""The tangent kernel of both layers, the Gram matrix of the features, and their expectations."""

import functools

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from ntkflow import checks
from ntkflow.kernels.arccos import ratio, safe_sqrt
from ntkflow.kernels.dual import Kernel, dual_activation
from ntkflow.kernels.hermite import hermite_coefficients
from ntkflow.systems.shallow_smooth.arguments import Activation, check_activation, check_number
from ntkflow.systems.shallow_smooth.network import Variables, features, product, slopes, weights


def gram(
    variables: Variables, x1: ArrayLike, x2: ArrayLike | None = None, *, activation: Activation
) -> jax.Array:
    """Compute the empirical neural tangent kernel of both layers, in closed form.

    Θ(x, x')[a, b] = δ_ab Σ_k φ(w_k·x) φ(w_k·x') + x·x' Σ_k V_ak V_bk φ'(w_k·x) φ'(w_k·x')

    The squared singular values of ∇Φ* are its eigenvalues, as a matrix of n·d_2 rows. Memory
    O((n1 + n2) d_1 d_2) beside the result.

    Args:
      variables: of `ShallowSmooth`.
      x1, x2: inputs, shapes (n1, d_0) and (n2, d_0), of any norms; x2=None means x1.
      activation: φ.

    Returns:
      Shape (n1, n2, d_2, d_2), as `empirical_ntk`; exactly symmetric where x2 is None.

    Raises:
      ValueError: x1 or x2 does not fit the variables.

    Example:
      >>> variables = {"params": {"hidden": jnp.eye(2), "output": jnp.array([[1.0], [2.0]])}}
      >>> x = jnp.array([[1.0, 1.0], [1.0, -1.0]])
      >>> gram(variables, x, activation=jax.nn.relu)[:, :, 0, 0].tolist()
      [[12.0, 1.0], [1.0, 3.0]]

    Reference: Song et al. (2021), appendix D, equation (39).
    """
    _, output = weights(variables)
    x1, x2 = _inputs(x1, x2)

    def factors(x):
        back = slopes(variables, x, activation)[:, None, :] * output.T[None]
        return features(variables, x, activation), back.reshape(-1, output.shape[0])

    hidden1, back1 = factors(x1)
    hidden2, back2 = (hidden1, back1) if x2 is None else factors(x2)
    other = x1 if x2 is None else x2
    outputs = output.shape[1]
    blocks = product(back1, back2.T).reshape(len(x1), outputs, len(other), outputs)
    total = product(x1, other.T)[:, :, None, None] * blocks.transpose(0, 2, 1, 3)
    identity = jnp.eye(outputs, dtype=total.dtype)
    total += product(hidden1, hidden2.T)[:, :, None, None] * identity[None, None]
    if x2 is not None:
        return total
    rows = total.transpose(0, 2, 1, 3).reshape(len(x1) * outputs, -1)
    return _symmetric(rows, True).reshape(len(x1), outputs, -1, outputs).transpose(0, 2, 1, 3)


def feature_gram(
    variables: Variables, x1: ArrayLike, x2: ArrayLike | None = None, *, activation: Activation
) -> jax.Array:
    """Compute M_0 = Σ_k φ(w_k·x) φ(w_k·x'), the part of the kernel that the output layer gives.

    Args, Raises: as for `gram`.

    Returns:
      Shape (n1, n2); exactly symmetric where x2 is None. Its smallest eigenvalue is μ_Φ².

    Example:
      >>> variables = {"params": {"hidden": jnp.eye(2), "output": jnp.ones((2, 1))}}
      >>> feature_gram(variables, jnp.array([[1.0, 2.0]]), activation=jax.nn.relu).tolist()
      [[5.0]]

    Reference: Song et al. (2021), appendix E.2, equation (59).
    """
    x1, x2 = _inputs(x1, x2)
    hidden1 = features(variables, x1, activation)
    hidden2 = hidden1 if x2 is None else features(variables, x2, activation)
    return _symmetric(product(hidden1, hidden2.T), x2 is None)


def expected_feature_gram(
    x1: ArrayLike,
    x2: ArrayLike | None = None,
    *,
    width: ArrayLike,
    omega1: ArrayLike,
    activation: Activation,
    terms: int | None = None,
) -> jax.Array:
    """Compute E[M_0] = d_1 E[φ(w·x) φ(w·x')], w ~ N(0, ω₁² I).

    By the dual activation it is exact, up to that function's error. The paper's Hermite series (56)
    is for ω₁ = 1 and inputs of norm 1, and bounds other ω₁ by powers of ω₁; for all ω₁ and norms it
    is Σ_i c_i(ω₁‖x‖) c_i(ω₁‖x'‖)/i! ρ^i with ρ = x·x'/(‖x‖‖x'‖) and c_i(s) = E[φ(s z) He_i(z)].

    Args:
      x1, x2: inputs, shapes (n1, d_0) and (n2, d_0), of any norms; x2=None means x1.
      width: d_1, a factor.
      omega1: ω₁; may be traced.
      activation: φ, with values that are known on the host.
      terms: of the series, which is then summed instead; on the diagonal it converges slowest. Its
        gradient by a row of zeros is not right, that of the exact form is.

    Returns:
      Shape (n1, n2); exactly symmetric where x2 is None.

    Raises:
      ValueError: the width or ω₁ is not greater than 0, terms not positive, x1 or x2 not of shape
        (n, d_0), or their d_0 differ.

    Example:
      >>> x = jnp.array([[1.0, 0.0], [0.6, 0.8]])
      >>> given = {"width": 2, "omega1": 1.0, "activation": jnp.tanh}
      >>> print(expected_feature_gram(x, **given).round(4))
      [[0.7886 0.4504]
       [0.4504 0.7886]]
      >>> print(expected_feature_gram(x, **given, terms=12).round(4))
      [[0.7884 0.4504]
       [0.4504 0.7884]]

    Reference: Song et al. (2021), appendix E.1, equation (56).
    """
    check_number(width=width, omega1=omega1)
    check_activation(activation)
    terms = None if terms is None else checks.positive_int("terms", terms)
    x1, x2 = _inputs(x1, x2)
    covariances = _covariances(x1, x2, omega1)
    if terms is None:
        value = _dual(activation, jnp.result_type(float))[0](*covariances)
    else:
        q1, c, q2 = covariances
        norms = safe_sqrt(q1), safe_sqrt(q2)
        rho = jnp.clip(ratio(c, norms[0] * norms[1]), -1, 1)
        rows = hermite_coefficients(activation, terms, norms[0][:, 0], normalized=True)
        columns = rows
        if x2 is not None:
            columns = hermite_coefficients(activation, terms, norms[1][0], normalized=True)
        value = _series(rows, columns, rho)
    return _symmetric(jnp.asarray(width, value.dtype) * value, x2 is None)


def expected_gram(
    x1: ArrayLike,
    x2: ArrayLike | None = None,
    *,
    width: ArrayLike,
    omega1: ArrayLike,
    omega2: ArrayLike,
    activation: Activation,
) -> jax.Array:
    """Compute the mean over initializations of the tangent kernel of one output.

    E[Θ] = d_1 (E[φ(w·x) φ(w·x')] + ω₂² x·x' E[φ'(w·x) φ'(w·x')]): exact at every width, as the
    neurons are independent. Different outputs have mean 0.

    Args, Raises: as for `expected_feature_gram`; ω₂ is greater than 0 too.

    Returns:
      Shape (n1, n2); exactly symmetric where x2 is None. `infinite_width(ShallowSmooth(...)).ntk`
      is the same, as width, ω₁ and ω₂ stand in its initializers.

    Example:
      >>> x = jnp.array([[1.0, 0.0], [0.6, 0.8]])
      >>> given = {"width": 100, "omega1": 1.0, "omega2": 0.1, "activation": jax.nn.relu}
      >>> expected_gram(x, **given).round(2).tolist()
      [[50.5, 34.09], [34.09, 50.5]]

    Reference: Song et al. (2021), appendix D, equation (39), in the mean.
    """
    check_number(width=width, omega1=omega1, omega2=omega2)
    check_activation(activation)
    x1, x2 = _inputs(x1, x2)
    covariances = _covariances(x1, x2, omega1)
    inner = product(x1, (x1 if x2 is None else x2).T)
    kernels = _dual(activation, jnp.result_type(float))
    value, slope = (kernel(*covariances) for kernel in kernels)
    d_1, deviation = (jnp.asarray(number, inner.dtype) for number in (width, omega2))
    return _symmetric(d_1 * (value + deviation**2 * inner * slope), x2 is None)


@functools.lru_cache(maxsize=16)  # what an activation is takes longer to find than the kernel
def _dual(activation: Activation, dtype: jnp.dtype) -> tuple[Kernel, Kernel]:
    return dual_activation(activation)


@jax.jit  # else the loop would be compiled at each call
def _series(rows: jax.Array, columns: jax.Array, rho: jax.Array) -> jax.Array:
    """Σ_i a_i b_i ρ^i, by Horner's rule: memory for one matrix."""

    def horner(total, pair):
        return total * rho + pair[0][:, None] * pair[1][None, :], None

    return jax.lax.scan(horner, jnp.zeros_like(rho), (rows, columns), reverse=True)[0]


def _covariances(
    x1: jax.Array, x2: jax.Array | None, omega1: ArrayLike
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Var(w·x), shape (n1, 1), the covariances, and Var(w·x'), (1, n2)."""
    variance = jnp.square(jnp.asarray(omega1, x1.dtype))
    inner = product(x1, (x1 if x2 is None else x2).T)
    squares1 = jnp.sum(x1 * x1, axis=1)
    squares2 = squares1 if x2 is None else jnp.sum(x2 * x2, axis=1)
    return variance * squares1[:, None], variance * inner, variance * squares2[None, :]


def _symmetric(matrix: jax.Array, symmetric: bool) -> jax.Array:
    return _mirror(matrix) if symmetric else matrix


@jax.jit  # else the loop would be compiled at each call
def _mirror(matrix: jax.Array) -> jax.Array:
    """The lower triangle on both sides."""
    # What enters a loop is held in memory. Otherwise a compiler may evaluate the entries of the
    # matrix and of its transpose in two loops of its own, which round differently.
    held = jax.lax.map(_copy, matrix)
    return jnp.tril(held) + jnp.tril(held, -1).T


def _copy(row: jax.Array) -> jax.Array:
    return row + 0.0  # a row returned as it is would make no loop


def _inputs(x1: ArrayLike, x2: ArrayLike | None) -> tuple[jax.Array, jax.Array | None]:
    a = checks.matrix("x1", x1)
    b = None if x2 is None else checks.matrix("x2", x2)
    if b is not None and a.shape[1] != b.shape[1]:
        raise ValueError(f"x1 has {a.shape[1]} features and x2 {b.shape[1]}; expected the same.")
    return a, b
