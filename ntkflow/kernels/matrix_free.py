"""What the spectrum of a kernel says, from products with vectors: Lanczos and random probes.

One run of `lanczos` serves every question: extremes, traces of functions at any ridge, density.
"""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from matfree import decomp, stochtrace

from ntkflow import checks
from ntkflow.kernels.operators import KernelOperator
from ntkflow.kernels.rows import map_together
from ntkflow.kernels.spectrum import rounding_of_eigenvalues

_FAILURE = 0.01  # of the bounds that hold for random probes


class Lanczos(NamedTuple):
    """A kernel matrix seen from random vectors: one tridiagonal matrix for each.

    Attributes:
      diagonal: α, shape (probes, steps).
      off_diagonal: β, shape (probes, steps); the last one is the norm of the residual. 0 where a
        probe has seen all it can, and the rest is empty.
      size: N, the number of eigenvalues.
      resolution: what rounding moves eigenvalues by: 4 ε λ_max, or the asymmetry of the products
        where that is more.
    """

    diagonal: jax.Array
    off_diagonal: jax.Array
    size: jax.Array
    resolution: jax.Array


class LanczosExtremes(NamedTuple):
    """The extreme eigenvalues of a kernel that is known by its products.

    Attributes:
      smallest, largest: λ_min and λ_max; a λ_min that is not resolved is 0.
      smallest_error, largest_error: bounds of |error|, which hold with probability 99% over the
        probes.
      smallest_resolved: whether λ_min is told from 0: value above error.
      resolution: the part of the errors that is rounding.
    """

    smallest: jax.Array
    largest: jax.Array
    smallest_error: jax.Array
    largest_error: jax.Array
    smallest_resolved: jax.Array
    resolution: jax.Array


class Estimate(NamedTuple):
    """A mean over random probes.

    Attributes:
      value: the mean.
      standard_error: of the mean, from the spread of the probes; infinite for one probe.
      truncation_error: what the steps of Lanczos may leave out, an estimate; for the
        log-determinant and the effective dimension a bound, given the bound of λ_min.
    """

    value: jax.Array
    standard_error: jax.Array
    truncation_error: jax.Array


def lanczos(
    key: jax.Array, operator: KernelOperator, *, steps: int = 50, probes: int = 8
) -> Lanczos:
    """Run Lanczos from random vectors, with full reorthogonalization.

    Q_kᵀ Θ Q_k = T_k for each probe k, with Q_k an orthonormal basis of the vectors v, Θv, Θ²v, ….
    T_k holds a Gauss quadrature of the spectrum as v_k sees it, exact for polynomials of degree
    2 · steps − 1. Time: steps · probes products, of which an operator computes several at once.
    Memory: steps · N numbers for each probe.

    With an operator on several CPU devices call it outside of `jit`: the result then lies on one of
    them. Eigendecompositions on all of them at once can wait for each other forever in jaxlib.

    Args:
      key: of the probes, which are uniform on the sphere: for kernels of constant diagonal as good
        as random signs, and known to meet every eigenvector.
      operator: of the kernel.
      steps: products per probe, cut to N. 10 to 20 are enough for λ_max of most kernels, some 50
        for the log-determinant; λ_min may need as many as √(λ_max / λ_min) and more.
      probes: independent vectors. One is enough for λ_max and λ_min; standard errors fall as
        1/√probes.

    Returns:
      Lanczos, to be read by the functions of this module.

    Raises:
      ValueError: no operator, no positive number of steps or probes.

    Example:
      >>> from ntkflow.kernels.operators import kernel_operator
      >>> x = jnp.linspace(0.0, 1.0, 100)[:, None]
      >>> operator = kernel_operator(lambda x1, x2: jnp.exp(-jnp.abs(x1 - x2.T)), x, devices=1)
      >>> run = lanczos(jax.random.key(0), operator)
      >>> extremes = lanczos_extremes(run)
      >>> bool(extremes.smallest_resolved), extremes.largest.round(3).tolist()
      (True, 73.679)
      >>> estimate = effective_dimension(run, ridge=1.0)
      >>> bool(abs(estimate.value - 7.5) < 3 * estimate.standard_error)
      True
      >>> spectral_density(run, jnp.array([0.1, 1.0]), bandwidth=0.1).value.shape
      (2,)

    References:
      Golub and Meurant (2010), "Matrices, Moments and Quadrature with Applications", chapters 4, 6.
      Ubaru, Chen and Saad (2017), "Fast estimation of tr(f(A)) via stochastic Lanczos quadrature".
    """
    if not isinstance(operator, KernelOperator):
        raise ValueError(
            f"operator is of type {type(operator).__name__}; expected a KernelOperator, as "
            "ntk_operator and kernel_operator build it."
        )
    checks.prng_key(key)
    size = operator.shape[0]
    steps, probes = checks.positive_int("steps", steps), checks.positive_int("probes", probes)
    projected, residual = _project(key, operator, min(steps, size), probes)
    if checks.is_concrete(residual):
        projected, residual = (array.addressable_data(0) for array in (projected, residual))
    return _tridiagonal(projected, residual, jnp.asarray(size, operator.dtype))


@functools.partial(jax.jit, static_argnums=(2, 3))
def _project(
    key: jax.Array, operator: KernelOperator, steps: int, probes: int
) -> tuple[jax.Array, jax.Array]:
    """Qᵀ Θ Q of each probe, not quite symmetric nor tridiagonal, and the norm of its residual."""
    size, dtype = operator.shape[0], operator.dtype
    starts = stochtrace.sampler_sphere(jnp.zeros(size, dtype), num=probes)(key)
    together = operator.at_once(probes)
    shared = operator.shared(together)

    def product(v):
        return (shared @ v.reshape(operator.vector_shape)).reshape(-1)

    # tridiag_sym is this, and leaves out the asymmetry, which measures the rounding of products.
    arnoldi = decomp.hessenberg(steps, reortho="full", custom_vjp=False)

    def one(start):
        result = arnoldi(product, start)
        return result.J_small, jnp.linalg.norm(result.residual)

    return map_together(one, starts, together)


@jax.jit
def _tridiagonal(projected: jax.Array, residual: jax.Array, size: jax.Array) -> Lanczos:
    dtype = projected.dtype
    alpha, below = (jnp.diagonal(projected, offset=k, axis1=1, axis2=2) for k in (0, -1))
    beta = jnp.concatenate([below, residual[:, None]], axis=1)
    # A probe that has seen all it can leaves a residual of 0 or of rounding, and then NaN or noise.
    scale = jnp.nanmax(jnp.abs(alpha)) + jnp.nanmax(beta)
    more = beta > rounding_of_eigenvalues(scale, dtype)
    alive = jnp.cumprod(jnp.pad(more[:, :-1], ((0, 0), (1, 0)), constant_values=True), axis=1) > 0
    alpha = jnp.where(alive, alpha, alpha[:, :1])
    beta = jnp.where(alive & more, beta, 0.0)
    tridiagonal = _dense(alpha, beta)
    both = alive[:, :, None] & alive[:, None, :]
    asymmetry = jnp.triu(jnp.where(both, projected - tridiagonal, 0.0), 1)
    ritz = jnp.linalg.eigvalsh(tridiagonal)
    rounding = rounding_of_eigenvalues(jnp.max(jnp.abs(ritz)), dtype)
    resolution = jnp.maximum(rounding, jnp.max(jnp.linalg.norm(asymmetry, axis=(1, 2))))
    return Lanczos(alpha, beta, size, resolution)


@jax.jit
def lanczos_extremes(run: Lanczos) -> LanczosExtremes:
    """Read λ_min and λ_max off a run of Lanczos, with bounds of their errors.

    The extreme eigenvalues of T lie within the spectrum. How far beyond them it can reach follows
    from the probe: it is random, and sees an eigenvector with weight at least πδ²/2N but for
    probability δ; a weight that Lanczos, with polynomials p_j, has not seen at λ is at most
    1 / Σ_j p_j(λ)². The bounds cannot be deceived by a Ritz value that has settled elsewhere.
    A kernel is positive semidefinite: bounds below 0 are cut there.

    Args:
      run: of `lanczos`. More steps make the bounds tight; one probe is enough.

    Returns:
      LanczosExtremes, scalars. A λ_min that its error does not tell from 0 is returned as 0, as by
      `extreme_eigenvalues`, and its error says how large it may be; one below −resolution is
      returned as it is, because then the matrix is not positive semidefinite.

    References:
      van Dorsselaer, Hochstenbach and van der Vorst (2000), "Computing probabilistic bounds for
      extreme eigenvalues of symmetric matrices with the Lanczos method", section 3.
    """
    ritz = jnp.linalg.eigvalsh(_dense(run.diagonal, run.off_diagonal))
    smallest, largest = jnp.min(ritz), jnp.max(ritz)
    lowest = jnp.max(_beyond(run, ritz[:, 0]))
    highest = -jnp.max(_beyond(run._replace(diagonal=-run.diagonal), -ritz[:, -1]))
    semidefinite = smallest > -run.resolution
    lowest = jnp.where(semidefinite, jnp.clip(lowest, 0.0, smallest), jnp.minimum(lowest, smallest))
    smallest_error = smallest - lowest + run.resolution
    largest_error = jnp.maximum(highest - largest, 0.0) + run.resolution
    resolved = jnp.abs(smallest) > smallest_error
    # An unresolved λ_min lies between 0 and the Ritz value.
    known = resolved | ~semidefinite
    return LanczosExtremes(
        jnp.where(known, smallest, 0.0),
        largest,
        jnp.where(known, smallest_error, jnp.maximum(smallest, 0.0) + run.resolution),
        largest_error,
        resolved,
        run.resolution,
    )


def trace(run: Lanczos) -> Estimate:
    """Estimate tr Θ. Exact, and cheaper: `operator.diagonal().sum()`.

    Reference: Hutchinson (1990), "A stochastic estimator of the trace of the influence matrix".
    """
    return function_trace(run, lambda values: values)


def log_determinant(run: Lanczos, *, ridge: float | jax.Array = 0.0) -> Estimate:
    """Estimate log det(Θ + ridge · I).

    Without a ridge, a λ_min that is not resolved makes the truncation error infinite.

    Args:
      run: of `lanczos`.
      ridge: ≥ 0, added to every eigenvalue, in the kernel's units.

    Raises:
      ValueError: a negative ridge.

    Reference: Ubaru, Chen and Saad (2017), section 4; Golub and Meurant (2010), section 6.2.
    """
    if checks.is_concrete(ridge) and not ridge >= 0:
        raise ValueError(f"ridge is {ridge}; expected a number ≥ 0, in the kernel's units.")
    return function_trace(run, lambda values: jnp.log(values + ridge))


def effective_dimension(run: Lanczos, *, ridge: float | jax.Array) -> Estimate:
    """Estimate tr Θ (Θ + ridge · I)⁻¹, the number of directions that a ridge leaves free.

    Args:
      run: of `lanczos`.
      ridge: > 0, in the kernel's units.

    Raises:
      ValueError: a ridge that is not positive.

    Reference: Hastie, Tibshirani and Friedman (2009), "The Elements of Statistical Learning", 5.16.
    """
    if checks.is_concrete(ridge) and not ridge > 0:
        raise ValueError(f"ridge is {ridge}; expected a number greater than 0.")
    return function_trace(run, lambda values: values / (values + ridge))


def spectral_density(
    run: Lanczos, grid: ArrayLike, *, bandwidth: float, logarithmic: bool = False
) -> Estimate:
    """Estimate the density of eigenvalues, smoothed by a Gaussian; its integral is 1.

    ρ(t) = (1/N) Σ_i exp(−(t − λ_i)² / 2σ²) / √(2π) σ. Features narrower than the distance of
    Ritz values, about (λ_max − λ_min) / steps, are not seen inside the spectrum.

    Args:
      run: of `lanczos`.
      grid: eigenvalues t at which it is wanted, of any shape.
      bandwidth: σ > 0, in the units of the grid, or of its logarithm.
      logarithmic: smooth in log λ instead: the density per unit of log λ, for kernels, whose
        spectra extend over decades. What is below the resolution is put there.

    Returns:
      Estimate, with arrays of the shape of `grid`.

    Raises:
      ValueError: a bandwidth that is not positive.

    Reference: Lin, Saad and Yang (2016), "Approximating spectral densities of large matrices".
    """
    if checks.is_concrete(bandwidth) and not bandwidth > 0:
        raise ValueError(f"bandwidth is {bandwidth}; expected a number greater than 0.")
    grid = jnp.asarray(grid, run.diagonal.dtype)
    smoothed = lambda values: _smoothed(values, grid, bandwidth, run.resolution, logarithmic)  # noqa: E731
    return Estimate(*(part / run.size for part in function_trace(run, smoothed)))


@functools.partial(jax.jit, static_argnames="logarithmic")
def _smoothed(values, grid, bandwidth, resolution, logarithmic: bool) -> jax.Array:
    """A Gaussian around each of the values, at all points of the grid: (*values, *grid)."""
    if logarithmic:
        values, grid = (jnp.log(jnp.maximum(t, resolution)) for t in (values, grid))
    nodes = values.reshape(values.shape + (1,) * grid.ndim)
    distance = (grid.reshape((1,) * values.ndim + grid.shape) - nodes) / bandwidth
    return jnp.exp(-jnp.square(distance) / 2) / (math.sqrt(2 * math.pi) * bandwidth)


def function_trace(run: Lanczos, function: Callable[[jax.Array], jax.Array]) -> Estimate:
    """Estimate tr f(Θ) = Σ_i f(λ_i) by stochastic Lanczos quadrature.

    N · mean_k Σ_j w_kj f(θ_kj), with θ_k the eigenvalues of T_k and w_k the squared first entries
    of its eigenvectors. The truncation error is the distance from Gauss–Radau quadrature with a
    node at the bound of λ_min; derivatives of constant sign make the two a bracket.

    Args:
      run: of `lanczos`.
      function: f, elementwise, from eigenvalues of shape (...) to (...), or to (..., *more) for
        many functions at once. It sees no negative values.

    Returns:
      Estimate, of shape () or (*more).

    References:
      Ubaru, Chen and Saad (2017), algorithm 1; Golub and Meurant (2010), sections 6.2 and 7.2.
    """
    extremes = lanczos_extremes(run)
    bound = jnp.where(extremes.smallest_resolved, extremes.smallest - extremes.smallest_error, 0.0)
    rules = _quadratures(run, bound)
    values = tuple(function(jnp.maximum(nodes, 0.0)) for nodes, _ in rules)
    return _estimate(values, tuple(weights for _, weights in rules), run.size)


@jax.jit
def _estimate(values, weights, size: jax.Array) -> Estimate:
    """N Σ_j w_j f(θ_j) of each probe and of both quadratures, as a mean with its errors."""

    def integrate(values, weights):
        weights = weights.reshape(weights.shape + (1,) * (values.ndim - 2))
        # What has no weight has no value either, be it infinite.
        return size * jnp.sum(jnp.where(weights == 0, 0.0, weights * values), axis=1)

    gauss, radau = map(integrate, values, weights)
    probes = len(gauss)
    spread = jnp.std(gauss, axis=0, ddof=min(1, probes - 1)) / math.sqrt(probes)
    spread = spread if probes > 1 else jnp.full_like(spread, jnp.inf)
    missed = jnp.abs(jnp.mean(gauss - radau, axis=0))
    # Differences of infinities, as of the logarithm of an eigenvalue 0, say nothing.
    errors = (jnp.where(jnp.isnan(error), jnp.inf, error) for error in (spread, missed))
    return Estimate(jnp.mean(gauss, axis=0), *errors)


@jax.jit
def _quadratures(run: Lanczos, bound: jax.Array):
    """Nodes and weights of Gauss, and of Gauss–Radau with a node at a bound of λ_min."""
    alpha, beta = run.diagonal, run.off_diagonal
    nodes, vectors = jnp.linalg.eigh(_dense(alpha, beta))
    distance = jnp.maximum(nodes - bound, run.resolution)
    shift = beta[:, -1] ** 2 * jnp.sum(vectors[:, -1] ** 2 / distance, axis=1)
    longer = _dense(
        jnp.concatenate([alpha, (bound + shift)[:, None]], axis=1),
        jnp.concatenate([beta, jnp.zeros_like(beta[:, :1])], axis=1),
    )
    radau, radau_vectors = jnp.linalg.eigh(longer)
    return (nodes, vectors[:, 0] ** 2), (radau, radau_vectors[:, 0] ** 2)


def _beyond(run: Lanczos, edge: jax.Array) -> jax.Array:
    """How far below `edge`, the smallest eigenvalue of T, the spectrum can reach, for each probe.

    The x at which 1 / Σ_j p_j(x)² is the weight that an eigenvector has for sure, by bisection:
    p_j(x)² is the product of d_i² / β_i², with d the pivots of T − x, which are positive there.
    """
    alpha, beta = run.diagonal, run.off_diagonal
    failure = _FAILURE / len(alpha)
    target = jnp.log(2 * run.size / (math.pi * failure**2))

    def log_sum(x):
        def pivot(before, entry):
            a, b, previous = entry
            pivot = jnp.maximum(a - x - previous**2 / before, jnp.finfo(alpha.dtype).tiny)
            return pivot, 2 * (jnp.log(pivot) - jnp.log(b))

        previous = jnp.pad(beta[:, :-1], ((0, 0), (1, 0)))
        _, ratios = jax.lax.scan(pivot, jnp.ones_like(x), (alpha.T, beta.T, previous.T))
        return jax.nn.logsumexp(jnp.pad(jnp.cumsum(ratios, axis=0), ((1, 0), (0, 0))), axis=0)

    def halve(_, interval):
        low, high = interval
        middle = (low + high) / 2
        outside = log_sum(middle) > target
        return jnp.where(outside, middle, low), jnp.where(outside, high, middle)

    # Already p_1 is large enough there.
    far = jnp.minimum(edge, alpha[:, 0] - beta[:, 0] * jnp.exp(target / 2))
    return jax.lax.fori_loop(0, 100, halve, (far, edge))[0]


def _dense(alpha: jax.Array, beta: jax.Array) -> jax.Array:
    """Tridiagonal matrices (probes, steps, steps); the last β is not part of them."""
    one = lambda a, b: jnp.diag(a) + jnp.diag(b[:-1], 1) + jnp.diag(b[:-1], -1)  # noqa: E731
    return jax.vmap(one)(alpha, beta)
