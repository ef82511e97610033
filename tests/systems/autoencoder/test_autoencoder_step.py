"""One step of descent, and the first instant of the flow, in function space."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import assert_close, compiled

from ntkflow.prediction.shapes import as_matrix
from ntkflow.systems.autoencoder import (
    Autoencoder,
    decoder_gradient,
    encoder_gradient,
    gram,
    kronecker,
    one_step,
    perpendicular_gram,
    predict,
)
from ntkflow.systems.autoencoder.network import residual
from ntkflow.training.descent import descend
from ntkflow.training.losses import squared_loss

REGIMES = ("encoder", "decoder", "both")
STEP_SIZE = 3.0  # far too large to converge: it flips many neurons


def setting(trains, dtype="float64", constant_input=False, n=6, d=4, m=50):
    generator = np.random.default_rng(0)
    x = generator.normal(size=(n, d))
    x = jnp.asarray(x / np.linalg.norm(x, axis=1, keepdims=True), dtype)
    leaves = {
        "encoder": jnp.asarray(generator.normal(size=(d + constant_input, m)), dtype),
        "decoder": jnp.asarray(generator.choice([-1.0, 1.0], (d, m)), dtype),
    }
    module = Autoencoder(m, trains, constant_input=constant_input, param_dtype=dtype)
    if trains == "both":
        return module, {"params": leaves}, x
    fixed = "decoder" if trains == "encoder" else "encoder"
    return module, {"params": {trains: leaves[trains]}, "fixed": {fixed: leaves[fixed]}}, x


def taken(module, variables, x, step_size, printed=False):
    """The decomposition, K and K^⊥, and X − U before and after a step of the engine."""

    def parts(variables):
        run = descend(squared_loss(module.apply), optax.sgd(step_size), steps=1)
        after = run(variables, (x, x)).params
        step = one_step(variables, x, x, step_size, printed=printed)
        kernels = gram(variables, x), perpendicular_gram(variables, after, x)
        errors = residual(variables, x, x), residual(after, x, x)
        return step, kernels, errors

    return jax.tree.map(np.asarray, compiled(parts)(variables))


@pytest.mark.quick
@pytest.mark.parametrize(
    ("trains", "constant_input"),
    [("encoder", False), ("decoder", False), ("both", False), ("both", True)],
)
def test_4_11_and_5_19_hold_for_every_step_size(trains, constant_input):
    step, (full, perpendicular), (errors, later) = taken(
        *setting(trains, constant_input=constant_input), STEP_SIZE
    )
    np.testing.assert_allclose(step.stable + step.unstable, errors - later, atol=1e-12)
    np.testing.assert_allclose(step.stable, step.linear + step.second_order, atol=1e-12)
    errors, later = errors.reshape(-1), later.reshape(-1)
    full, perpendicular = (as_matrix(kernel) for kernel in (full, perpendicular))
    linear = STEP_SIZE / 4 * (full - perpendicular) @ errors
    np.testing.assert_allclose(step.linear.reshape(-1), linear, atol=1e-12)

    terms = step.terms
    expected = {
        "kernel": -2 * STEP_SIZE / 4 * errors @ full @ errors,
        "perpendicular": 2 * STEP_SIZE / 4 * errors @ perpendicular @ errors,
        "unstable": -2 * errors @ step.unstable.reshape(-1),
        "second_order": -2 * errors @ step.second_order.reshape(-1),
        "squared_change": (errors - later) @ (errors - later),
    }
    for name, value in expected.items():
        np.testing.assert_allclose(getattr(terms, name), value, rtol=1e-12, atol=1e-12)
    change = later @ later - errors @ errors
    np.testing.assert_allclose(sum(terms), change, rtol=1e-12, atol=1e-12)

    if trains == "decoder":
        assert step.flips.sum() == 0
        assert (step.unstable == 0).all()
        assert (perpendicular == 0).all()
    else:
        assert step.flips.sum() > 20
        assert np.linalg.norm(step.unstable) > 0.1
    moved = np.linalg.norm(step.second_order)
    assert moved > 0.1 if trains == "both" else moved == 0


def test_the_printed_terms_of_section_5_2_do_not_add_up():
    step, _, (errors, later) = taken(*setting("both"), STEP_SIZE, printed=True)
    change = np.square(later).sum() - np.square(errors).sum()
    assert abs(sum(step.terms) - change) > 1e-2
    for name in ("unstable", "second_order"):
        right = -2 * (errors * getattr(step, name)).sum()
        np.testing.assert_allclose(getattr(step.terms, name), STEP_SIZE / 4 * right, rtol=1e-12)
    # The weak regime's C_3 is printed right.
    step, _, (errors, later) = taken(*setting("encoder"), STEP_SIZE, printed=True)
    change = np.square(later).sum() - np.square(errors).sum()
    np.testing.assert_allclose(sum(step.terms), change, rtol=1e-12)


def test_a_small_step_flips_nothing_in_float32():
    step, (_, perpendicular), (errors, later) = taken(*setting("both", "float32"), 1e-3)
    assert step.stable.dtype == sum(step.terms).dtype == "float32"
    assert step.flips.sum() == 0
    assert (perpendicular == 0).all()
    assert_close(step.stable, errors - later, scale=1.0)
    assert_close(step.linear + step.second_order, step.stable, scale=1.0)


@pytest.mark.parametrize("trains", REGIMES)
def test_outputs_flow_along_the_kernel(trains):
    """Both sides of (4.5) and (5.8): d vec(U)/dt = (1/d) K vec(X − U) along −∂L/∂θ."""
    _, variables, x = setting(trains)

    def both_sides(variables):
        gradients = {
            "encoder": encoder_gradient(variables, x, x),
            "decoder": decoder_gradient(variables, x, x),
        }
        velocity = jax.tree.map(jnp.zeros_like, variables)
        velocity["params"] = {name: -gradients[name] for name in variables["params"]}
        u, du = jax.jvp(lambda v: predict(v, x), (variables,), (velocity,))
        return du.reshape(-1), kronecker(gram(variables, x)) @ (x - u).reshape(-1) / 4

    du, expected = compiled(both_sides)(variables)
    np.testing.assert_allclose(du, expected, atol=1e-10)


def test_what_is_refused():
    _, variables, x = setting("both")
    with pytest.raises(ValueError, match=r"y has shape \(4, 6\) and the outputs \(6, 4\)"):
        one_step(variables, x, x.T, 0.1)
    with pytest.raises(ValueError, match=r"x has shape \(4, 6\) and the decoder \(4, 50\)"):
        one_step(variables, x.T, x.T, 0.1)
    with pytest.raises(ValueError, match=r"step_size has shape \(4,\); expected a number"):
        one_step(variables, x, x, np.ones(4))
