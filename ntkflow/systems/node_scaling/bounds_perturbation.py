"""How far the kernel moves when the weights do: Lemma E.2 (ReLU) and Lemma E.4 (smooth σ).

λ may be that of the network, or one of its parts λ⁽¹⁾ = γ/m and λ⁽²⁾, for the change of Θ, of Θ⁽¹⁾
or Θ⁽²⁾; Σ_j λ_j is then 1, γ or 1 − γ, and in the paper's proofs it stands under the root of the
second term; the statements drop it, which is larger, and is what `printed=True` gives.
"""

import math

from jax.typing import ArrayLike

from ntkflow.systems.node_scaling.arguments import check, library, real, source
from ntkflow.systems.node_scaling.bounds import over_nodes
from ntkflow.theory import Bound


def gram_change_by_gradients(
    n: ArrayLike,
    d: ArrayLike,
    scales: ArrayLike,
    squared_change: ArrayLike,
    *,
    slope: ArrayLike = 1.0,
) -> Bound:
    """The bound on ‖Θ(W) − Θ(W_0)‖ by F = ‖∇f(W) − ∇f(W_0)‖_F², F + 2 L √(n Σ_j λ_j F / d).

    It holds for any σ and any W, and both lemmas come from it.

    Args:
      n, d: samples and features.
      scales: λ, shape (..., m): of the network, or one of its parts.
      squared_change: F = (1/d) Σ_i ‖x_i‖² Σ_j λ_j (σ'(Z_j(x_i)) − σ'(Z_0j(x_i)))².
      slope: L = sup |σ'|, which the paper takes to be 1.

    Example:
      >>> import numpy as np
      >>> float(gram_change_by_gradients(4, 1, np.array([0.5, 0.5]), 0.25).value)
      2.25

    Reference: Caron et al. (2023), equations (17) and (18).
    """
    check(n=n, d=d, scales=scales, squared_change=squared_change, slope=slope)
    root = library(scales, squared_change).sqrt(real(n) * over_nodes(scales) * squared_change / d)
    place = source("equations (17) and (18)", "L is 1 there")
    return Bound(squared_change + 2 * slope * root, "F + 2 L √(n Σ_j λ_j F / d)", 1.0, place)


def gram_perturbation(
    n: ArrayLike,
    d: ArrayLike,
    scales: ArrayLike,
    radii: ArrayLike,
    curvature: ArrayLike,
    *,
    slope: ArrayLike = 1.0,
    printed: bool = False,
) -> Bound:
    """The bound on ‖Θ(W) − Θ(W_0)‖ for smooth σ, where ‖w_j − w_0j‖ ≤ c_j/2 for all j.

    n M² / 4d² Σ_j λ_j c_j² + n M L / d^(3/2) √(Σ_k λ_k Σ_j λ_j c_j²). It is no matter of
    probability.

    Args:
      n, d: samples and features.
      scales: λ, shape (m,): of the network, or one of its parts.
      radii: c_j, shape (..., m).
      curvature: M = sup |σ''|.
      slope: L = sup |σ'|, which the paper takes to be 1.
      printed: without Σ_k λ_k under the root.

    Example:
      >>> import numpy as np
      >>> float(gram_perturbation(4, 1, np.array([0.25, 0.0]), np.array([2.0, 1.0]), 1.0).value)
      3.0

    Reference: Caron et al. (2023), Lemma E.4.
    """
    check(n=n, d=d, scales=scales, radii=radii, curvature=curvature, slope=slope)
    n, d = real(n), real(d)
    square = over_nodes(scales * radii**2)
    share = 1.0 if printed else over_nodes(scales)
    root = library(scales, radii).sqrt(share * square)
    value = n * curvature**2 / (4 * d**2) * square + n * curvature * slope / d**1.5 * root
    total = "" if printed else "Σ_k λ_k "
    formula = f"nM²/4d² Σ_j λ_j c_j² + nML/d^(3/2) √({total}Σ_j λ_j c_j²)"
    note = "as printed" if printed else "with Σ_k λ_k under the root, from the proof"
    return Bound(value, formula, 1.0, source("Lemma E.4", note))


def eigenvalue_drop(
    n: ArrayLike,
    d: ArrayLike,
    gamma: ArrayLike,
    radii: ArrayLike,
    curvature: ArrayLike,
    *,
    slope: ArrayLike = 1.0,
) -> Bound:
    """The bound on λ_min(Θ⁽¹⁾(W_0)) − λ_min(Θ(W)) for smooth σ, where ‖w_j − w_0j‖ ≤ c_j/2.

    n M² γ / (4 d² m) Σ_j c_j² + n M L γ / (d^(3/2) √m) √(Σ_j c_j²): the equal part alone counts.

    Args:
      n, d, radii, curvature, slope: as for `gram_perturbation`.
      gamma: γ.

    Example:
      >>> import numpy as np
      >>> float(eigenvalue_drop(4, 1, 0.5, np.array([1.0, 1.0]), 1.0).value)
      2.5

    Reference: Caron et al. (2023), Lemma E.4, equation (23).
    """
    check(n=n, d=d, gamma=gamma, radii=radii, curvature=curvature, slope=slope)
    n, d, mean = real(n), real(d), over_nodes(radii**2) / _width(radii)
    first = n * curvature**2 * gamma / (4 * d**2) * mean
    value = first + n * curvature * slope * gamma / d**1.5 * library(radii).sqrt(mean)
    formula = "nM²γ/4d²m Σ_j c_j² + nMLγ/d^(3/2)√m √(Σ_j c_j²)"
    return Bound(value, formula, 1.0, source("Lemma E.4, equation (23)"))


def gate_flip_probability(
    radius: ArrayLike, norm: ArrayLike = 1.0, *, printed: bool = False
) -> Bound:
    """The bound on P(some w within ε of w_0 has another sign of w·x) for ReLU, √(2/π) ε.

    Such a w needs |w_0·x| ≤ ε‖x‖, an event of probability erf(ε/√2) whatever the norm. The paper
    takes ‖x‖ ≤ 1 for 1 in this, and gets ε/‖x‖, which is larger.

    Args:
      radius: ε.
      norm: ‖x‖, of which the printed bound depends.
      printed: ε/‖x‖.

    Example:
      >>> round(gate_flip_probability(0.1).value, 6), gate_flip_probability(0.1, printed=True).value
      (0.079788, 0.1)

    Reference: Caron et al. (2023), proof of Lemma E.2, equation (20).
    """
    check(radius=radius, norm=norm)
    if printed:
        return Bound(radius / norm, "ε/‖x‖", 1.0, source("equation (20)", "as printed"))
    value = math.sqrt(2 / math.pi) * radius
    return Bound(value, "√(2/π) ε", 1.0, source("equation (20)", "sharper; printed ε/‖x‖"))


def gram_perturbation_relu(
    n: ArrayLike,
    d: ArrayLike,
    scales: ArrayLike,
    radii: ArrayLike,
    *,
    printed: bool = False,
) -> Bound:
    """The bound on ‖Θ(W) − Θ(W_0)‖ for ReLU, n/d Σ_j λ_j c_j + 2n/d √(Σ_k λ_k Σ_j λ_j c_j).

    With probability 1 − δ/2 over W_0 it holds for all W with ‖w_j − w_0j‖ ≤ δ² c_j/4 for all j; for
    both parts of λ at once with 1 − δ.

    Args:
      n, d: samples and features.
      scales: λ, shape (m,): of the network, or one of its parts.
      radii: c_j, shape (..., m), which must not depend on W_0.
      printed: without Σ_k λ_k under the root.

    Example:
      >>> import numpy as np
      >>> float(gram_perturbation_relu(4, 1, np.array([0.25, 0.0]), np.array([1.0, 1.0])).value)
      3.0

    Reference: Caron et al. (2023), Lemma E.2.
    """
    check(n=n, d=d, scales=scales, radii=radii)
    change = over_nodes(scales * radii)
    share = 1.0 if printed else over_nodes(scales)
    value = real(n) / d * (change + 2 * library(scales, radii).sqrt(share * change))
    total = "" if printed else "Σ_k λ_k "
    formula = f"n/d Σ_j λ_j c_j + 2n/d √({total}Σ_j λ_j c_j)"
    note = "as printed" if printed else "with Σ_k λ_k under the root, from the proof"
    return Bound(value, formula, 1.0, source("Lemma E.2", note))


def eigenvalue_drop_relu(n: ArrayLike, d: ArrayLike, gamma: ArrayLike, radii: ArrayLike) -> Bound:
    """The bound on λ_min(Θ⁽¹⁾(W_0)) − λ_min(Θ(W)) for ReLU, as `gram_perturbation_relu`.

    nγ/dm Σ_j c_j + 2nγ/(d√m) √(Σ_j c_j): the equal part alone counts.

    Example:
      >>> import numpy as np
      >>> float(eigenvalue_drop_relu(4, 1, 0.5, np.array([1.0, 1.0])).value)
      6.0

    Reference: Caron et al. (2023), Lemma E.2, equation (16).
    """
    check(n=n, d=d, gamma=gamma, radii=radii)
    mean = over_nodes(radii) / _width(radii)
    value = real(n) * gamma / d * (mean + 2 * library(radii).sqrt(mean))
    formula = "nγ/dm Σ_j c_j + 2nγ/d√m √(Σ_j c_j)"
    return Bound(value, formula, 1.0, source("Lemma E.2, equation (16)"))


def _width(radii: ArrayLike) -> int:
    return library(radii).shape(radii)[-1]
