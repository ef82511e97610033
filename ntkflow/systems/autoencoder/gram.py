"""The neural tangent kernels of the autoencoder: d × d blocks at any weights, k ⊗ I_d in the limit.

d vec(U)/dt = (1/d) K vec(X − U), with K = d · (∂U/∂θ)(∂U/∂θ)ᵀ over the weights that train.
"""

import math

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from ntkflow import checks
from ntkflow.kernels.arccos import norms_and_products, orders_01, sine
from ntkflow.kernels.spectrum import smallest_eigenvalue
from ntkflow.prediction.shapes import as_matrix
from ntkflow.systems.autoencoder.arguments import Trains, check_trains
from ntkflow.systems.autoencoder.network import (
    Variables,
    append_constant,
    encoder_inputs,
    patterns,
    preactivations,
    product,
    trains_of,
    weights,
)


def encoder_gram(variables: Variables, x1: ArrayLike, x2: ArrayLike | None = None) -> jax.Array:
    """Compute G at any weights, the kernel of the encoder.

    G_ij = (1/m) Σ_r 1{w_r·x_i > 0, w_r·x_j > 0} x_i·x_j a_r a_rᵀ, a d × d block for each pair.

    Time O(n1 n2 d² m), memory O((n1 + n2) d m + n1 n2 d²).

    Args:
      variables: of `Autoencoder`; the encoder need not be what trains.
      x1, x2: inputs, shapes (n1, d) and (n2, d); x2=None means x1.

    Returns:
      Shape (n1, n2, d, d); exactly symmetric where x2 is None.

    Raises:
      ValueError: x1 or x2 is not of shape (n, d) with the weights' d, or holds NaN; the variables
        are not those of an Autoencoder.

    Example:
      >>> variables = {"params": {"encoder": jnp.eye(2), "decoder": jnp.array([[1.0, 1.0],
      ...                                                                      [1.0, -1.0]])}}
      >>> encoder_gram(variables, jnp.array([[0.8, 0.6]])).tolist()
      [[[[1.0, 0.0], [0.0, 1.0]]]]

    Reference: Nguyen, Wong and Hegde (2019a), section 3.2 and equation (5.9).
    """
    first = _slopes(variables, x1)
    second = first if x2 is None else _slopes(variables, x2)
    seen1, seen2 = (encoder_inputs(variables, x1 if x is None else x) for x in (x1, x2))
    return _symmetric(_encoder_blocks(first, second, seen1, seen2), x2 is None)


def decoder_gram(variables: Variables, x1: ArrayLike, x2: ArrayLike | None = None) -> jax.Array:
    """Compute Ĥ at any weights: the kernel of the decoder is H = Ĥ ⊗ I_d.

    Ĥ_ij = (1/m) Σ_r φ(w_r·x_i) φ(w_r·x_j).

    Args, Raises: as for `encoder_gram`.

    Returns:
      Shape (n1, n2); exactly symmetric where x2 is None.

    Example:
      >>> variables = {"params": {"encoder": jnp.eye(2), "decoder": jnp.ones((2, 2))}}
      >>> decoder_gram(variables, jnp.array([[2.0, 0.0], [1.0, -1.0]])).tolist()
      [[2.0, 1.0], [1.0, 0.5]]

    Reference: Nguyen, Wong and Hegde (2019a), equation (5.10) and the proof of Lemma 5.2.
    """
    first = jax.nn.relu(preactivations(variables, x1))
    second = first if x2 is None else jax.nn.relu(preactivations(variables, x2))
    total = product(first, second.T) / first.shape[1]
    return (total + total.T) / 2 if x2 is None else total


def gram(variables: Variables, x1: ArrayLike, x2: ArrayLike | None = None) -> jax.Array:
    """Compute K at any weights: G, H or G + H, whichever trains.

    K = d · Θ, with Θ the network's own kernel, `empirical_ntk(module.apply)`. Lemma 3.1 and (3.2)
    count 1/d twice, in the blocks and in front of them; sections 4 and 5 do as is done here.

    Args, Raises: as for `encoder_gram`.

    Returns:
      Shape (n1, n2, d, d), as `kronecker` takes it; exactly symmetric where x2 is None.

    Reference: Nguyen, Wong and Hegde (2019a), equations (4.5) and (5.8).
    """
    trains, d = trains_of(variables), weights(variables)[1].shape[0]
    if trains == "encoder":
        return encoder_gram(variables, x1, x2)
    of_decoder = _times_identity(decoder_gram(variables, x1, x2), d)
    return of_decoder if trains == "decoder" else encoder_gram(variables, x1, x2) + of_decoder


def perpendicular_gram(before: Variables, after: Variables, x: ArrayLike) -> jax.Array:
    """Compute K^⊥, the part of K(k) that the neurons in S_i^⊥ hold.

    S_i^⊥ are the neurons whose pattern on x_i differs between step k and k + 1: the sums over r of
    `gram` run over S_i^⊥ alone, i being the block's row. K^⊥ is not symmetric, therefore.

    Args:
      before, after: variables at two consecutive steps.
      x: inputs, shape (n, d).

    Returns:
      Shape (n, n, d, d).

    Raises:
      ValueError: as for `gram`.

    Reference: Nguyen, Wong and Hegde (2019a), sections 4.2 and 5.2.
    """
    trains, seen = trains_of(before), encoder_inputs(before, x)
    flipped = patterns(before, x) != patterns(after, x)
    decoder = weights(before)[1]
    total = jnp.zeros((seen.shape[0],) * 2 + (decoder.shape[0],) * 2, decoder.dtype)
    if trains != "decoder":
        slopes = _slopes(before, x)
        total += _encoder_blocks(jnp.where(flipped[:, None, :], slopes, 0.0), slopes, seen, seen)
    if trains != "encoder":
        hidden = jax.nn.relu(preactivations(before, x))
        base = product(jnp.where(flipped, hidden, 0.0), hidden.T) / hidden.shape[1]
        total += _times_identity(base, decoder.shape[0])
    return total


def kronecker(theta: ArrayLike) -> jax.Array:
    """Bring blocks (n1, n2, d, d) into the paper's order, one matrix of shape (n1·d, n2·d).

    Rows are sample-major, (i, a): vec(U) = (u_1, …, u_n) is `u.reshape(-1)` for u of shape (n, d).

    Example:
      >>> k, identity = jnp.array([[2.0, 1.0]]), jnp.eye(2)
      >>> kronecker(k[:, :, None, None] * identity[None, None]).tolist()
      [[2.0, 0.0, 1.0, 0.0], [0.0, 2.0, 0.0, 1.0]]
      >>> jnp.kron(k, identity).tolist()
      [[2.0, 0.0, 1.0, 0.0], [0.0, 2.0, 0.0, 1.0]]

    Reference: Nguyen, Wong and Hegde (2019a), section 2.
    """
    theta = jnp.asarray(theta)
    if theta.ndim != 4 or theta.shape[2] != theta.shape[3]:
        raise ValueError(
            f"theta has shape {theta.shape}; expected blocks (n1, n2, d, d), as of gram(...)."
        )
    return as_matrix(theta)


def limit_gram(
    x1: ArrayLike,
    x2: ArrayLike | None = None,
    trains: Trains = "both",
    *,
    constant_input: bool = False,
    printed: bool = False,
) -> jax.Array:
    """Compute k with K^∞ = k ⊗ I_d, the kernel of infinite width.

    Encoder: g(x, x') = x·x' (π − θ)/2π. Decoder: h(x, x') = ‖x‖ ‖x'‖ (sin θ + (π − θ) cos θ)/2π.
    Both: g + h. θ is the angle between x and x'; g and h are ‖x‖²/2 on the diagonal.

    The paper has H^∞ = G^∞, and with it 2g for both. That is wrong off the diagonal: Stein's
    identity is applied to 1{w·x ≥ 0} φ(w·x'), whose jump adds ‖x‖ ‖x'‖ sin θ/2π (`boundary_term`).
    Both forms are held against a Monte Carlo mean in the tests.

    Args:
      x1, x2: inputs, shapes (n1, d) and (n2, d), of any norms; x2=None means x1.
      trains: as for `Autoencoder`; the paper's weak training is "encoder".
      constant_input: as for `Autoencoder`.
      printed: the paper's form, h := g.

    Returns:
      Shape (n1, n2); exactly symmetric where x2 is None.

    Raises:
      ValueError: x1 or x2 is not of shape (n, d), holds NaN, their d differ, or `trains` is
        unknown.

    Example:
      >>> x = jnp.array([[1.0, 0.0], [0.6, 0.8]])
      >>> limit_gram(x, trains="encoder").round(4).tolist()
      [[0.5, 0.2114], [0.2114, 0.5]]
      >>> limit_gram(x, trains="decoder").round(4).tolist()
      [[0.5, 0.3388], [0.3388, 0.5]]

    References:
      Nguyen, Wong and Hegde (2019a), section 3.2, equations (5.11) and (5.12); Cho and Saul (2009),
      arc-cosine kernels of order 0 and 1.
    """
    check_trains(trains)
    g, h, _ = _base_kernels(*_inputs(x1, x2, constant_input))
    h = g if printed else h
    total = {"encoder": g, "decoder": h, "both": g + h}[trains]
    return (total + total.T) / 2 if x2 is None else total


def boundary_term(x1: ArrayLike, x2: ArrayLike | None = None) -> jax.Array:
    """Compute h − g = ‖x‖ ‖x'‖ sin θ/2π, which the paper leaves out: see `limit_gram`.

    It is 0 for parallel and antiparallel inputs alone. Its trace is 0, so that it takes from some
    eigenvalues what it gives to others: λ_min(h) < λ_0 on every draw that the tests make.

    Args, Raises: as for `limit_gram`.

    Returns:
      Shape (n1, n2).

    Example:
      >>> boundary_term(jnp.array([[1.0, 0.0], [0.6, 0.8]])).round(4).tolist()
      [[0.0, 0.1273], [0.1273, 0.0]]

    Reference: Nguyen, Wong and Hegde (2019a), section 3.2, corrected.
    """
    return _base_kernels(*_inputs(x1, x2, False))[2]


def limit_smallest_eigenvalue(
    x: ArrayLike,
    trains: Trains = "encoder",
    *,
    constant_input: bool = False,
    printed: bool = False,
) -> jax.Array:
    """Compute λ_min(K^∞): for the encoder λ_0 of Assumption 2, which sets every rate of the paper.

    λ_min(g + h) ≥ λ_0 + λ_min(h). λ_0 is positive where no two samples are parallel, and at most ½
    for samples of norm 1. The printed λ_min(H^∞) = λ_0 is wrong: see `limit_gram`.

    In float32 no λ_0 below some 5e-7 λ_max is resolved: see `ntkflow.kernels.spectrum`.

    Args, Raises: as for `limit_gram`.

    Example:
      >>> float(limit_smallest_eigenvalue(jnp.eye(3)))
      0.5

    Reference: Nguyen, Wong and Hegde (2019a), Assumption 2 and section 5.1.
    """
    return smallest_eigenvalue(
        limit_gram(x, trains=trains, constant_input=constant_input, printed=printed)
    )


def data_norm(x: ArrayLike) -> jax.Array:
    """Compute λ_n = ‖XᵀX‖, the largest eigenvalue; 1 ≤ λ_n ≤ n for n samples of norm 1.

    Example:
      >>> float(data_norm(jnp.array([[1.0, 0.0], [0.0, 2.0]])))
      4.0

    Reference: Nguyen, Wong and Hegde (2019a), section 2.1.
    """
    x = checks.matrix("x", x)
    full = x.astype(jnp.promote_types(x.dtype, jnp.float32))  # there is no SVD of half precision
    return jnp.square(jnp.linalg.norm(full, ord=2))


def _slopes(variables: Variables, x: ArrayLike) -> jax.Array:
    """1{w_r·x_i > 0} a_r, shape (n, d, m)."""
    return jnp.where(patterns(variables, x)[:, None, :], weights(variables)[1][None], 0.0)


def _encoder_blocks(
    slopes1: jax.Array, slopes2: jax.Array, seen1: jax.Array, seen2: jax.Array
) -> jax.Array:
    (n1, d, m), n2 = slopes1.shape, slopes2.shape[0]
    sums = product(slopes1.reshape(n1 * d, m), slopes2.reshape(n2 * d, m).T) / m
    blocks = sums.reshape(n1, d, n2, d).transpose(0, 2, 1, 3)
    return product(seen1, seen2.T)[:, :, None, None] * blocks


def _times_identity(base: jax.Array, d: int) -> jax.Array:
    return base[:, :, None, None] * jnp.eye(d, dtype=base.dtype)[None, None]


def _symmetric(blocks: jax.Array, symmetric: bool) -> jax.Array:
    return (blocks + blocks.transpose(1, 0, 3, 2)) / 2 if symmetric else blocks


def _inputs(
    x1: ArrayLike, x2: ArrayLike | None, constant_input: bool
) -> tuple[jax.Array, jax.Array | None]:
    a = checks.matrix("x1", x1)
    b = None if x2 is None else checks.matrix("x2", x2)
    if b is not None and a.shape[1] != b.shape[1]:
        raise ValueError(f"x1 has {a.shape[1]} features and x2 {b.shape[1]}; expected the same.")
    if constant_input:
        a, b = append_constant(a), None if b is None else append_constant(b)
    return a, b


@jax.jit  # some twenty operations, each of which would compile by itself
def _base_kernels(x1: jax.Array, x2: jax.Array | None) -> tuple[jax.Array, jax.Array, jax.Array]:
    """g, h and h − g, shapes (n1, n2)."""
    norms1, norms2, inner = norms_and_products(x1, x2)
    order_0, order_1 = orders_01(norms1, norms2, inner)
    return inner * order_0 / 2, order_1 / 2, sine(norms1 * norms2, inner) / (2 * math.pi)
