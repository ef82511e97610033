"""The rates of `residual_bounds`: what multiplies radius, residuals and steps in its bounds.

Arguments as there; p = q = 1 without `patches`.
"""

from typing import Any

from jax.typing import ArrayLike

from ntkflow.systems.deep.activations import ActivationConstants
from ntkflow.systems.deep.constants import (
    InitialNorms,
    Patches,
    check,
    check_depth,
    check_lipschitz,
    check_norms,
    check_residual,
    check_smooth,
    largest,
    library,
    real,
    sizes_of,
)


def growths(
    residual: ArrayLike,
    constants: ActivationConstants,
    norms: InitialNorms,
    patches: Patches | None,
) -> tuple[Any, Any]:
    """e = exp(2 √q c_res c_{w,0} L), which bounds the layers above, and c_x."""
    check_residual(residual)
    check_norms(norms)
    check_lipschitz(constants)
    _, q = sizes_of(patches)
    exponent = 2 * q**0.5 * residual * norms.weight * constants.lipschitz
    above = library(exponent).exp(exponent)
    first = (constants.normalization * q) ** 0.5 * constants.lipschitz
    return above, (first + norms.feature / norms.weight) * above


def gram_rate(
    depth: ArrayLike,
    residual: ArrayLike,
    constants: ActivationConstants,
    norms: InitialNorms,
    patches: Patches | None,
    printed: bool = False,
) -> Any:
    """B."""
    check_depth(depth)
    check_smooth(constants)
    _, stretch = growths(residual, constants, norms, patches)
    p, q = sizes_of(patches)
    slope, feature = constants.lipschitz, real(norms.feature)
    moved = 2 * stretch * norms.weight
    if printed:
        moved, q = moved * q**0.5 + feature, 1.0
        moved = moved * (slope if patches is None else 1.0)
    else:
        moved = q**0.5 * (moved + feature)
    first = 3 * p * slope * feature * stretch * norms.output**2
    second = 2 * constants.smoothness * p**0.5 * (feature * norms.output_fourth) ** 2 * moved
    third = 12 * p**0.5 * slope * feature**2 * norms.output
    return (residual / real(depth)) ** 2 * slope * q * (first + second + third)


def gradient_rate(
    depth: ArrayLike,
    residual: ArrayLike,
    constants: ActivationConstants,
    norms: InitialNorms,
    patches: Patches | None,
    printed: bool = False,
) -> Any:
    """q, the largest of `gradient_rates`, or that of layers 2..H as the text has it."""
    hidden, first, output = gradient_rates(depth, residual, constants, norms, patches)
    return hidden if printed else largest(hidden, first, output)


def gradient_rates(
    depth: ArrayLike,
    residual: ArrayLike,
    constants: ActivationConstants,
    norms: InitialNorms,
    patches: Patches | None,
) -> tuple[Any, Any, Any]:
    """q of layers 2..H, of layer 1 and of a."""
    check(depth=depth)
    above, _ = growths(residual, constants, norms, patches)
    p, q = sizes_of(patches)
    common = 2 * norms.output * constants.lipschitz * (p * q) ** 0.5 * above
    hidden = 2 * common * residual * norms.feature / real(depth)
    return hidden, constants.normalization**0.5 * common, 2 * real(norms.feature)


def second_order_rate(
    m: ArrayLike,
    depth: ArrayLike,
    residual: ArrayLike,
    constants: ActivationConstants,
    norms: InitialNorms,
    patches: Patches | None,
) -> Any:
    """κ."""
    check(m=m)
    check_smooth(constants)
    _, stretch = growths(residual, constants, norms, patches)
    _, q = sizes_of(patches)
    hidden, first, _ = gradient_rates(depth, residual, constants, norms, patches)
    slope, bend, root = constants.lipschitz, constants.smoothness, real(m) ** 0.5
    moved = q**0.5 * (norms.weight * stretch + norms.feature)
    above = residual * q**0.5 * (4 * bend * norms.weight * moved + slope / root)
    output = 0.5 / (norms.output * root)
    each = 0.5 * stretch / (norms.feature * root) + output + 2 * bend * moved / slope + above
    lowest = output + q**0.5 * bend / slope + above
    return hidden * depth * each + first * lowest + stretch / root


def squared_rate(
    residual: ArrayLike,
    constants: ActivationConstants,
    norms: InitialNorms,
    patches: Patches | None,
) -> Any:
    """ν."""
    _, stretch = growths(residual, constants, norms, patches)
    p, _ = sizes_of(patches)
    return 8 * (real(norms.feature) ** 2 + p * (norms.output * stretch) ** 2)
