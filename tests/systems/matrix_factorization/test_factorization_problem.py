"""Objectives, gradients, the drift of the imbalance, and problems drawn at random."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import assert_close, compiled

from ntkflow.systems import matrix_factorization as system
from ntkflow.training.descent import descend
from ntkflow.training.flow import gradient_flow
from ntkflow.training.losses import squared_loss


def normal(seed, *shape, dtype="float64"):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), dtype)


def pair(seed, d_1, d_2, rank, dtype="float64"):
    """Unbalanced factors: a mistake of u for v shows."""
    return {
        "u": 1.5 * normal(seed, d_1, rank, dtype=dtype),
        "v": 0.5 * normal(seed + 1, d_2, rank, dtype=dtype),
    }


LOSSES = (system.objective, system.regularized_objective)


def rank_two(d_1, d_2):
    left, right = (np.linalg.qr(normal(20 + d, d, 2))[0] for d in (d_1, d_2))
    return jnp.asarray(left * np.array([2.0, 1.0]) @ right.T)


@pytest.mark.quick
@pytest.mark.parametrize(
    ("loss", "closed_form"),
    [
        (system.objective, system.gradient),
        (system.regularized_objective, system.regularized_gradient),
    ],
)
def test_gradients_are_those_of_autodiff(loss, closed_form, dtype):
    params, target = pair(0, 5, 4, 3, dtype), normal(2, 5, 4, dtype=dtype)
    expected, actual = compiled(lambda p, m: (jax.grad(loss)(p, m), closed_form(p, m)))(
        params, target
    )
    for name in ("u", "v"):
        assert actual[name].dtype == dtype
        assert_close(actual[name], expected[name])


def test_objectives_are_the_formulas():
    params, target = pair(3, 4, 3, 2), normal(5, 4, 3)
    u, v, m = (np.asarray(a) for a in (params["u"], params["v"], target))
    plain = 0.5 * np.linalg.norm(u @ v.T - m) ** 2
    extra = np.linalg.norm(u.T @ u - v.T @ v) ** 2 / 8
    np.testing.assert_allclose(system.objective(params, target), plain, rtol=1e-14)
    value = system.regularized_objective(params, target)
    np.testing.assert_allclose(value, plain + extra, rtol=1e-14)


def test_the_network_on_the_standard_basis_is_the_factorization():
    target = normal(6, 5, 4)
    module = system.TwoLayerLinear(outputs=5, rank=2, std=0.5)
    basis = jnp.eye(4)
    shapes = jax.eval_shape(module.init, jax.random.key(0), basis)
    variables = jax.tree.map(lambda leaf: normal(7, *leaf.shape), shapes)
    loss = squared_loss(module.apply)
    both = lambda v: (  # noqa: E731
        jax.value_and_grad(loss)(v, (basis, target.T)),
        (system.objective(v, target), system.gradient(v, target)),
    )
    (value, slope), (expected_value, expected) = compiled(both)(variables)
    np.testing.assert_allclose(value, expected_value, rtol=1e-14)
    for name in ("u", "v"):
        assert_close(slope["params"][name], expected[name])


@pytest.mark.quick
@pytest.mark.parametrize("step_size", [1e-3, 0.3])
def test_the_drift_of_a_step_is_exact_and_the_printed_one_is_not(step_size):
    """Printed Uᵀ RᵀR U needs d_1 = d_2, and is wrong there too."""
    params, target = pair(7, 5, 5, 3), normal(9, 5, 5)
    step = lambda p: (  # noqa: E731
        system.imbalance(system.gradient_step(p, target, step_size)) - system.imbalance(p),
        system.imbalance_step(p, target, step_size),
        system.residual(p, target),
    )
    change, exact, r = (np.asarray(x) for x in compiled(step)(params))
    u, v = (np.asarray(factor) for factor in params.values())
    scale = np.sum(u**2) + np.sum(v**2) + np.trace(np.abs(change))
    assert np.abs(change - exact).max() <= 1e-12 * scale
    printed = step_size**2 * (v.T @ r.T @ r @ v - u.T @ r.T @ r @ u)
    assert np.abs(change - printed).max() > 0.05 * np.abs(exact).max()


def test_the_drift_adds_up_over_a_run():
    params, target = pair(10, 6, 4, 2), rank_two(6, 4)
    eta, steps = 0.05, 400
    observe = {"step": lambda s: system.imbalance_step(s.params, s.data, eta)}
    run = compiled(descend(system.objective, optax.sgd(eta), steps, observe=observe))
    trajectory = run(params, target)
    total = np.asarray(trajectory.history["step"][:-1]).sum(axis=0)
    change = system.imbalance(trajectory.params) - system.imbalance(params)
    scale = np.abs(system.imbalance(params)).max()
    assert np.abs(change - total).max() <= 1e-12 * scale
    assert np.abs(change).max() > 1e-3 * scale  # there is something to add up


def test_a_flow_preserves_the_imbalance():
    """Theorem 4.2, for each entry of UᵀU − VᵀV."""
    params, target = pair(12, 6, 4, 2), rank_two(6, 4)
    observe = {"change": system.imbalance_change, "norm": system.imbalance_norm}
    times = np.linspace(0, 10, 5)
    run = gradient_flow(system.objective, times, observe=observe, rtol=1e-10, atol=1e-12)
    trajectory = compiled(run)(params, target)
    assert trajectory.state.succeeded
    history = {name: np.asarray(values) for name, values in trajectory.history.items()}
    assert history["loss"][-1] < 0.02 * history["loss"][0]
    assert history["change"].max() < 1e-8
    assert history["norm"].min() > 1


def test_the_regularizer_removes_the_imbalance():
    """Under (4.3) gradient descent ends at UᵀU = VᵀV; under (4.1) it does not."""
    params, target = pair(12, 6, 4, 2), rank_two(6, 4)

    def end(weight):
        def loss(params, target):
            plain, both = (f(params, target) for f in LOSSES)
            return plain + weight * (both - plain)

        return descend(loss, optax.sgd(0.05), 4000, every=4000)(params, target).params

    ends = compiled(jax.vmap(end))(jnp.array([0.0, 1.0]))
    for weight in (0, 1):
        u, v = (np.asarray(ends[name][weight]) for name in ("u", "v"))
        np.testing.assert_allclose(u @ v.T, target, atol=1e-6)
        gap = np.linalg.norm(u.T @ u - v.T @ v)
        assert gap < 1e-6 if weight else gap > 1


def test_targets_have_the_rank_the_values_and_the_norm_asked_for():
    """And uniform singular vectors: without the signs of R's diagonal the first row leans."""

    def draw(key):
        values = [2.0, 1.0]
        return (
            system.low_rank_target(key, 4, 3, 2, singular_values=values),
            system.low_rank_target(key, 4, 3, 2, norm=0.1),
        )

    keys = jax.random.split(jax.random.key(3), 4000)
    targets, scaled = (np.asarray(m) for m in compiled(jax.vmap(draw))(keys))
    spectra = np.linalg.svd(targets[:50], compute_uv=False)
    np.testing.assert_allclose(spectra, np.tile([2.0, 1.0, 0.0], (50, 1)), atol=1e-14)
    spectra = np.linalg.svd(scaled[:50], compute_uv=False)
    np.testing.assert_allclose(np.linalg.norm(scaled, axis=(1, 2)), 0.1, rtol=1e-12)
    assert (spectra[:, 1] > 1e-5).all()
    assert (spectra[:, 2] < 1e-15).all()
    error = targets.std(axis=0) / 4000**0.5
    assert (np.abs(targets.mean(axis=0)) < 4 * error).all()
    gram = np.einsum("kij,kil->kjl", targets, targets)  # Ψ Σ² Ψᵀ, mean 5/3 I
    deviation = np.abs(gram.mean(axis=0) - 5 / 3 * np.eye(3))
    assert (deviation < 4 * gram.std(axis=0) / 4000**0.5).all()


def test_what_is_drawn_has_the_dtype_asked_for(dtype):
    draw = lambda key: (  # noqa: E731
        system.low_rank_target(key, 4, 3, 2, singular_values=[2.0, 1.0], norm=3.0, dtype=dtype),
        system.initialize(key, 4, 3, 2, 0.1, dtype),
    )
    shapes = jax.eval_shape(draw, jax.random.key(0))
    assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} == {jnp.dtype(dtype)}


def test_initial_entries_have_the_standard_deviation():
    draw = compiled(lambda key: system.initialize(key, 400, 400, 20, std=0.2))
    params = jax.device_get(draw(jax.random.key(5)))
    assert (params["u"] != params["v"]).all()
    for factor in params.values():
        assert abs(factor.mean()) < 4 * 0.2 / factor.size**0.5
        assert abs(factor.std() - 0.2) < 4 * 0.2 / (2 * factor.size) ** 0.5


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: system.low_rank_target(jax.random.key(0), 5, 4, 6), "rank is 6; .* at most 4"),
        (lambda: system.initialize(jax.random.key(0), 5, 4, 6, 0.1), "rank is 6; .* at most 4"),
        (lambda: system.initialize(jax.random.key(0), 5, 4, 2, -0.1), "std is -0.1; .*than 0"),
        (lambda: system.initialize(jax.random.key(0), 0, 4, 2, 0.1), "d_1 is 0"),
        (lambda: system.initialize(0, 5, 4, 2, 0.1), "key is of int; expected one PRNG key"),
        (lambda: system.low_rank_target(0, 5, 4, 2), "key is of int; expected one PRNG key"),
        (
            lambda: system.low_rank_target(jax.random.key(0), 5, 4, 2, norm=np.inf),
            "norm is inf; expected greater than 0, and finite",
        ),
        (
            lambda: system.low_rank_target(jax.random.key(0), 5, 4, 2, singular_values=[1.0]),
            r"singular_values has shape \(1,\); expected \(2,\)",
        ),
        (
            lambda: system.low_rank_target(jax.random.key(0), 5, 4, 2, norm=0.0),
            "norm is 0.0; expected greater than 0",
        ),
        (
            lambda: system.objective(pair(0, 5, 4, 2), jnp.ones(5)),
            r"M\* has shape \(5,\); .*matrix",
        ),
        (
            lambda: system.objective(pair(0, 5, 4, 2), jnp.ones((4, 5))),
            r"M\* has shape \(4, 5\).*expected \(5, 4\)",
        ),
        (
            lambda: system.objective(pair(0, 5, 4, 2), jnp.full((5, 4), jnp.nan)),
            r"M\* holds NaN",
        ),
        (lambda: system.imbalance({"u": jnp.ones((3, 2))}), r"params holds \['u'\]"),
        (lambda: system.imbalance(jnp.ones(3)), "params holds .*expected"),
        (
            lambda: system.imbalance({"u": jnp.ones(3), "v": jnp.ones(2)}),
            r"u has shape \(3,\).*u\[:, None\]",
        ),
        (
            lambda: system.imbalance({"u": jnp.ones((3, 2)), "v": jnp.ones((3, 1))}),
            "the same r",
        ),
    ],
)
def test_what_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_factors_of_whole_numbers_take_steps():
    """A step size of 0.5 is not truncated to the integers of U and V."""
    params = {"u": jnp.array([[1], [2]]), "v": jnp.array([[2]])}
    m = jnp.array([[1], [1]])
    after = system.gradient_step(params, m, 0.5)
    assert after["u"].tolist() == [[0.0], [-1.0]]
    assert after["v"].tolist() == [[-1.5]]
    step = (system.imbalance(after) - system.imbalance(params)).item()
    assert step == system.imbalance_step(params, m, 0.5).item()
