"""The exponents of Theorem 3, and the assumptions that activations and data break."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import samples
from scipy import special

from ntkflow.systems.shallow_smooth import broken_assumptions, gelu, homogeneity_exponents


def lifted(z):
    return jnp.where(z > 1, 2 * z, z)


@pytest.mark.quick
@pytest.mark.parametrize(
    ("activation", "r1", "r2"),
    [
        (jnp.tanh, 1, 0),
        (gelu, 1.2945282, -np.inf),  # φ(a) → 0 as a → −∞
        (jax.nn.sigmoid, 0.2784645, -np.inf),  # W(1/e); and φ(τa) > φ(a) for a < 0
        (jnp.sin, np.inf, -np.inf),  # has other zeros than 0
        (lifted, np.inf, 1),  # jumps outwards
    ],
)
def test_exponents(activation, r1, r2):
    assert homogeneity_exponents(activation) == pytest.approx((r1, r2), abs=1e-7)


def test_exponents_bound_each_ratio_and_no_smaller_ones_do():
    """τ^{r₁} |φ(a)| ≤ |φ(τa)| ≤ τ^{r₂} |φ(a)| by its definition, on a grid of (a, τ)."""
    (r1, _), (_, r2) = homogeneity_exponents(gelu), homogeneity_exponents(jnp.tanh)
    a = np.concatenate([-np.geomspace(1e-2, 6, 80), np.geomspace(1e-2, 1e3, 80)])[:, None]
    tau = np.array([0.01, 0.3, 0.9, 0.999])[None]
    slack = 1 + 1e-12

    def values(phi):
        return (np.abs(phi(z)) for z in (a, a * tau))

    whole, part = values(lambda z: z * special.ndtr(z))
    assert (tau**r1 * whole <= part * slack).all()
    assert (tau ** (0.99 * r1) * whole > part).any()
    whole, part = values(np.tanh)
    assert (part <= tau**r2 * whole * slack).all()
    assert (part > tau ** (r2 + 0.01) * whole).any()


def test_zero_has_no_exponents():
    with pytest.raises(ValueError, match="activation is 0 everywhere"):
        homogeneity_exponents(jnp.zeros_like)


def test_assumptions_hold_for_tanh_on_unit_data():
    x = np.asarray(samples(0, 4, 3))
    x, y = x / np.linalg.norm(x, axis=1)[:, None], np.full((4, 1), 0.5)
    assert broken_assumptions(jnp.tanh, x, y, omega1=0.1) == {}
    found = broken_assumptions(jnp.tanh, 2 * x, 3 * y, t=3)
    assert set(found) == {"unit_inputs", "labels", "mean"}  # tanh is odd: footnote 5
    assert "4 of 4 inputs" in found["unit_inputs"]
    assert "‖Y‖ is 3" in found["labels"]


@pytest.mark.parametrize(
    ("activation", "given", "broken"),
    [
        (gelu, {"omega1": 0.5, "t": 3}, {"exponents", "coefficient"}),
        (lifted, {}, {"differentiable", "slope", "curvature"}),
        (lambda z: jnp.exp(z * z), {}, {"value_at_zero", "slope", "curvature", "norm"}),
    ],
)
def test_what_activations_break(activation, given, broken):
    assert set(broken_assumptions(activation, **given)) == broken


def test_errors():
    with pytest.raises(ValueError, match="omega1 is 0; expected a finite number"):
        broken_assumptions(jnp.tanh, omega1=0)
    with pytest.raises(ValueError, match=r"omega1 has shape \(2,\); expected one number"):
        broken_assumptions(jnp.tanh, omega1=np.ones(2))
    with pytest.raises(ValueError, match="is traced; expected values"):
        jax.jit(lambda x: broken_assumptions(jnp.tanh, x))(jnp.ones((2, 3)))
    with pytest.raises(ValueError, match="Leading axes differ"):
        broken_assumptions(jnp.tanh, jnp.ones((2, 3)), jnp.ones((3, 1)))
