"""The gradient by regions of w and w*, and loss and gradient for Gaussian patches in closed form.

A patch is in ++ where w·Z_i > 0 and w*·Z_i > 0, in +− where w·Z_i > 0 and w*·Z_i ≤ 0, in −+ where
w·Z_i ≤ 0 and w*·Z_i > 0. Z_{++} = (1/k) Σ_i Z_i 1{Z_i in ++}, and Z_{+−}, Z_{−+} alike. A density
does not see which region holds the boundaries; these are the regions of σ'(0) = 0.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from ntkflow import checks
from ntkflow.kernels.arccos import safe_sqrt
from ntkflow.systems.convolutional_filter.arguments import pair, patches_of
from ntkflow.systems.convolutional_filter.network import predict, product, unit_vector


def angle(w: Any, w_star: Any) -> jax.Array:
    """Compute ∠(w, w*) in [0, π], to a few roundings also near 0 and π.

    2 arctan(‖u − v‖/‖u + v‖) with u = w/‖w‖ and v = w*/‖w*‖: an arccosine would be off by √eps
    there. The derivative at 0 and π, where there is none, is 0. A filter 0 has the angle π/2.

    Args:
      w, w_star: filters (p,), or the variables that hold them.

    Example:
      >>> w_star = jnp.array([1.0, 0.0])
      >>> [float(angle(jnp.array(w), w_star)) for w in ([2.0, 0.0], [1.0, 1e-9], [-1.0, 0.0])]
      [0.0, 1e-09, 3.141592653589793]

    Reference: Kahan (2006), "How Futile are Mindless Assessments of Roundoff", section 12.
    """
    return _angle(*pair(w, w_star))


class Regions(NamedTuple):
    """Z_{++}, Z_{+−} and Z_{−+} of each sample, each of shape (n, p)."""

    both: jax.Array
    student: jax.Array
    teacher: jax.Array


class GradientTerms(NamedTuple):
    """The matrices of the gradient, means over samples, each of shape (p, p).

    Attributes:
      both: E[Z_{++} Z_{++}ᵀ]; A_{w,w*} for k = 1.
      student: E[Z_{+−} Z_{+−}ᵀ]; A_{w,−w*} for k = 1.
      both_student, both_teacher, student_teacher: E[Z_{++} Z_{+−}ᵀ], E[Z_{++} Z_{−+}ᵀ] and
        E[Z_{+−} Z_{−+}ᵀ]: 0 for k = 1, and where all patches of a sample are equal.
    """

    both: jax.Array
    student: jax.Array
    both_student: jax.Array
    both_teacher: jax.Array
    student_teacher: jax.Array


class DescentTerms(NamedTuple):
    """The parts of ⟨∇ℓ(w), w − w*⟩, whose sum it is.

    Attributes:
      both: (w − w*)ᵀ E[Z_{++} Z_{++}ᵀ] (w − w*) ≥ 0.
      student: (w − w*)ᵀ E[Z_{+−} Z_{+−}ᵀ] w ≥ 0.
      cross: what patches of different regions add, of either sign; 0 for k = 1.
    """

    both: jax.Array
    student: jax.Array
    cross: jax.Array


def regions(w: Any, w_star: Any, z: ArrayLike) -> Regions:
    """Average the patches of each sample that lie in ++, in +− and in −+.

    Args:
      w, w_star: filters (p,), or the variables that hold them.
      z: patches, shape (n, k, p).

    Raises:
      ValueError: shapes that do not fit, NaN.

    Example:
      >>> z = jnp.array([[[2.0, 0.0], [-4.0, 2.0]]])
      >>> parts = regions(jnp.array([1.0, 0.0]), jnp.array([0.0, 1.0]), z)
      >>> parts.student.tolist(), parts.teacher.tolist()
      ([[1.0, 0.0]], [[-2.0, 1.0]])

    Reference: Du (2019), section 6.3, before Assumption 6.2.
    """
    w, w_star = pair(w, w_star)
    z = patches_of(z, w.size)
    return split(product(z, w) > 0, product(z, w_star) > 0, z)


def split(active: jax.Array, active_star: jax.Array, z: jax.Array) -> Regions:
    """`regions` of patches whose signs under w and w*, shapes (n, k), are known."""
    return Regions(
        *(
            jnp.einsum("nk,nkp->np", inside.astype(z.dtype), z, precision="highest") / z.shape[1]
            for inside in (active & active_star, active & ~active_star, ~active & active_star)
        )
    )


def moments_of(parts: Regions) -> GradientTerms:
    """The second moments of averages over regions, from one product."""
    size = parts.both.shape[1]
    together = jnp.concatenate(parts, axis=1)
    gram = product(together.T, together) / len(together)
    block = lambda i, j: gram[i * size : (i + 1) * size, j * size : (j + 1) * size]  # noqa: E731
    return GradientTerms(block(0, 0), block(1, 1), block(0, 1), block(0, 2), block(1, 2))


def gradient_terms(w: Any, w_star: Any, z: ArrayLike) -> GradientTerms:
    """Compute the matrices whose combination is the gradient, for any distribution of patches.

    The samples z are the distribution: for draws of another one each matrix is an unbiased
    estimate of its matrix.

    Args:
      w, w_star: filters (p,), or the variables that hold them.
      z: patches, shape (n, k, p).

    Raises:
      ValueError: shapes that do not fit, NaN.

    Example:
      >>> z = jnp.array([[[2.0, 1.0]], [[4.0, -2.0]]])
      >>> terms = gradient_terms(jnp.array([1.0, 0.0]), jnp.array([0.0, 1.0]), z)
      >>> terms.both.tolist(), terms.student.tolist()
      ([[2.0, 1.0], [1.0, 0.5]], [[8.0, -4.0], [-4.0, 2.0]])

    Reference: Du (2019), (6.3) and (6.4), Assumption 6.3.
    """
    return moments_of(regions(w, w_star, z))


def population_loss(w: Any, w_star: Any, z: ArrayLike) -> jax.Array:
    """Compute ½ E(f(w, Z) − f(w*, Z))², the samples z being the distribution.

    Args:
      w, w_star: filters (p,), or the variables that hold them.
      z: patches, shape (n, k, p).

    Example:
      >>> z = jnp.array([[[2.0, 0.0], [-4.0, 2.0]]])
      >>> float(population_loss(jnp.array([3.0, 0.0]), jnp.array([0.0, 1.0]), z))
      2.0

    Reference: Du (2019), section 6.1.
    """
    return jnp.mean(jnp.square(predict(w, z) - predict(w_star, z))) / 2


def population_gradient(w: Any, w_star: Any, z: ArrayLike, *, printed: bool = False) -> jax.Array:
    """Assemble the gradient of `population_loss` in w from the matrices of `gradient_terms`.

        ∇ℓ(w) = E[Z_{++} Z_{++}ᵀ] (w − w*)
                + E[Z_{++} Z_{+−}ᵀ + Z_{+−} Z_{++}ᵀ + Z_{+−} Z_{+−}ᵀ] w
                − E[Z_{++} Z_{−+}ᵀ + Z_{+−} Z_{++}ᵀ + Z_{+−} Z_{−+}ᵀ] w*,

    which for k = 1 is A_{w,w*}(w − w*) + A_{w,−w*} w. It equals what autodiff returns, sample by
    sample. The display of the proof, `printed=True`, has E[Z_{++} Z_{−+}ᵀ + Z_{+−} Z_{+−}ᵀ] in the
    last bracket, two terms, one of them of the wrong region (its sums over patches, without 1/k²,
    are of Σ_i σ(w·Z_i), and not kept); the next display of the proof has all three. The sign of
    the last term in the proof of Theorem 6.2, −A_{w,−w*} w, is a misprint as well.

    Args:
      w, w_star: filters (p,), or the variables that hold them.
      z: patches, shape (n, k, p).
      printed: whether to take the bracket as printed, which is not the gradient.

    Returns:
      Shape (p,).

    Raises:
      ValueError: shapes that do not fit, NaN.

    Example:
      >>> z = jnp.array([[[2.0, 0.0], [-4.0, 2.0]]])
      >>> w, w_star = jnp.array([3.0, 0.0]), jnp.array([0.0, 1.0])
      >>> jax.jit(population_gradient)(w, w_star, z).tolist()
      [2.0, 0.0]
      >>> jax.jit(jax.grad(population_loss))(w, w_star, z).tolist()
      [2.0, 0.0]

    Reference: Du (2019), section 6.2, and proof of Theorem 6.3.
    """
    w, w_star = pair(w, w_star)
    terms = gradient_terms(w, w_star, z)
    on_w = terms.both + terms.both_student + terms.both_student.T + terms.student
    if printed:
        on_target = terms.both + terms.both_teacher + terms.student
    else:
        on_target = terms.both + terms.both_teacher + terms.both_student.T + terms.student_teacher
    return product(on_w, w) - product(on_target, w_star)


def descent_terms(w: Any, w_star: Any, z: ArrayLike) -> DescentTerms:
    """Compute the parts of ⟨∇ℓ(w), w − w*⟩: Lemma 6.1 for k = 1, and the patches' cross terms.

    With δ = w − w*:

        both    = E(Z_{++}·δ)²,
        student = E(Z_{+−}·δ)(Z_{+−}·w),
        cross   = E[(Z_{++}·δ)(Z_{+−}·(w + δ) − Z_{−+}·w*) − (Z_{+−}·δ)(Z_{−+}·w*)].

    The first two are not negative, of each sample and with any k: Z_{+−}·w ≥ 0 ≥ Z_{+−}·w*.

    Args:
      w, w_star: filters (p,), or the variables that hold them.
      z: patches, shape (n, k, p).

    Raises:
      ValueError: shapes that do not fit, NaN.

    Example:
      >>> z = jnp.array([[[2.0, 1.0]], [[4.0, -2.0]]])
      >>> terms = jax.jit(descent_terms)(jnp.array([1.0, 0.0]), jnp.array([0.0, 1.0]), z)
      >>> [float(term) for term in terms]
      [0.5, 12.0, 0.0]

    Reference: Du (2019), Lemma 6.1, and proof of Theorem 6.3.
    """
    w, w_star = pair(w, w_star)
    parts = regions(w, w_star, z)
    both, student = product(parts.both, w - w_star), product(parts.student, w - w_star)
    student_w = product(parts.student, w)
    teacher = product(parts.teacher, w_star)
    cross = both * (student_w + student - teacher) - student * teacher
    return DescentTerms(jnp.mean(jnp.square(both)), jnp.mean(student * student_w), jnp.mean(cross))


def gaussian_loss(w: Any, w_star: Any, k: int = 1) -> jax.Array:
    """Compute the population loss for Z ~ N(0, I), k independent patches, in closed form.

        ℓ(w) = ¼ ‖w − w*‖² − ‖w‖‖w*‖ (sin φ − φ cos φ)/2π,  φ = ∠(w, w*),

    for k = 1: ¼ (‖w‖² + ‖w*‖²) − ½ k₁(w, w*), k₁ being the arc-cosine kernel of order 1. Near w*
    its relative error is some eps/φ, that of the difference to the kernel eps/φ². With
    σ(w·Z_i) − σ(w*·Z_i) independent over i and of mean (‖w‖ − ‖w*‖)/√2π, k patches have
    ℓ_k = ℓ_1/k + (1 − 1/k)(‖w‖ − ‖w*‖)²/4π.

    It serves as the loss of `descend`, with w* for data. Its derivatives are those of
    `gaussian_gradient`: finite everywhere, and right at φ = 0 and π. At w = 0, where there is no
    gradient, −w*/4k stands, the mean over opposite directions.

    Args:
      w: the filter (p,), or the variables that hold it.
      w_star: w*, (p,).
      k: patches, static. They do not overlap.

    Raises:
      ValueError: shapes that do not fit, NaN, k no whole number greater than 0.

    Example:
      >>> w_star = jnp.array([1.0, 0.0])
      >>> [round(float(gaussian_loss(jnp.array(w), w_star)), 4) for w in ([0.0, 1.0], [-1.0, 0.0])]
      [0.3408, 0.5]

    Reference: Du (2019), section 6.2; Cho and Saul (2009), equation 6.
    """
    w, w_star = pair(w, w_star)
    return _gaussian_loss(w, w_star, checks.positive_int("k", k))


def gaussian_gradient(w: Any, w_star: Any, k: int = 1) -> jax.Array:
    """Compute the gradient of `gaussian_loss` in w.

        ∇ℓ(w) = ½ (w − w*) + (φ w* − sin φ ‖w*‖ w/‖w‖)/2π

    for k = 1. With k patches it is 1/k of it, and (1 − 1/k)(‖w‖ − ‖w*‖)/2π · w/‖w‖.

    Args:
      w, w_star: filters (p,), or the variables that hold them.
      k: patches, static.

    Returns:
      Shape (p,).

    Raises:
      ValueError: shapes that do not fit, NaN, k no whole number greater than 0.

    Example:
      >>> gaussian_gradient(jnp.array([0.0, 1.0]), jnp.array([1.0, 0.0])).round(4).tolist()
      [-0.25, 0.3408]

    Reference: Du (2019), section 6.2.
    """
    w, w_star = pair(w, w_star)
    return _gradient(w, w_star, checks.positive_int("k", k))


def _norm(x: jax.Array) -> jax.Array:
    return safe_sqrt(jnp.sum(jnp.square(x)))


def _angle(w: jax.Array, w_star: jax.Array) -> jax.Array:
    u, v = unit_vector(w), unit_vector(w_star)
    return 2 * jnp.arctan2(_norm(u - v), _norm(u + v))


def _gradient(w: jax.Array, w_star: jax.Array, k: int) -> jax.Array:
    phi, norm, target = _angle(w, w_star), _norm(w), _norm(w_star)
    direction = unit_vector(w)
    one = (w - w_star) / 2
    one += (phi * w_star - jnp.sin(phi) * target * direction) / (2 * np.pi)
    return one / k + (1 - 1 / k) * (norm - target) / (2 * np.pi) * direction


# By hand: autodiff's terms cancel near φ = 0 and π, where the angle has no derivative.
@functools.partial(jax.custom_jvp, nondiff_argnums=(2,))
def _gaussian_loss(w: jax.Array, w_star: jax.Array, k: int) -> jax.Array:
    phi, norm, target = _angle(w, w_star), _norm(w), _norm(w_star)
    one = jnp.sum(jnp.square(w - w_star)) / 4
    one -= norm * target * (jnp.sin(phi) - phi * jnp.cos(phi)) / (2 * np.pi)
    return one / k + (1 - 1 / k) * jnp.square(norm - target) / (4 * np.pi)


@_gaussian_loss.defjvp
def _gaussian_loss_jvp(k, primals, tangents):
    (w, w_star), (dw, dw_star) = primals, tangents
    slope = jnp.sum(_gradient(w, w_star, k) * dw) + jnp.sum(_gradient(w_star, w, k) * dw_star)
    return _gaussian_loss(w, w_star, k), slope
