"""The autoencoder, its gradients and its runs, against the formulas, Monte Carlo and autodiff."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import assert_close, compiled

from ntkflow.systems.autoencoder import (
    Autoencoder,
    append_constant,
    check_data,
    decoder_gradient,
    encoder_gradient,
    encoder_inputs,
    patterns,
    predict,
    trains_of,
    weights,
)
from ntkflow.systems.autoencoder.arguments import check
from ntkflow.training.descent import descend
from ntkflow.training.flow import gradient_flow
from ntkflow.training.losses import squared_loss

REGIMES = ("encoder", "decoder", "both")


def normal(seed, *shape, dtype="float64"):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), dtype)


def sphere(seed, n, d, dtype="float64"):
    x = np.random.default_rng(seed).normal(size=(n, d))
    return jnp.asarray(x / np.linalg.norm(x, axis=1, keepdims=True), dtype)


def initialize(width, x, trains="both", seed=0, constant_input=False):
    """The module and variables as its init draws them, without compiling that for each shape."""
    generator, d = np.random.default_rng(seed), x.shape[1]
    leaves = {
        "encoder": jnp.asarray(generator.normal(size=(d + constant_input, width)), x.dtype),
        "decoder": jnp.asarray(generator.choice([-1.0, 1.0], (d, width)), x.dtype),
    }
    module = Autoencoder(width, trains, constant_input=constant_input, param_dtype=x.dtype)
    return module, as_regime(leaves, trains)


def as_regime(leaves, trains):
    if trains == "both":
        return {"params": leaves}
    fixed = "decoder" if trains == "encoder" else "encoder"
    return {"params": {trains: leaves[trains]}, "fixed": {fixed: leaves[fixed]}}


@pytest.mark.quick
@pytest.mark.parametrize(("constant_input", "dtype"), [(False, "float32"), (True, "float64")])
def test_forward_is_the_formula(constant_input, dtype):
    x = 2 * normal(0, 4, 3, dtype=dtype)
    module, variables = initialize(6, x, "encoder", constant_input=constant_input)
    w, a = (np.asarray(leaf) for leaf in weights(variables))
    seen = np.asarray(x)
    if constant_input:
        seen = np.concatenate([seen, np.ones((4, 1))], axis=1) / 2**0.5
    u = [sum(a[:, r] * max(w[:, r] @ xi, 0) for r in range(6)) / 18**0.5 for xi in seen]
    both = compiled(lambda v: (module.apply(v, x), predict(v, x), encoder_inputs(v, x)))
    outputs, predicted, inputs = both(variables)
    assert outputs.dtype == dtype
    assert_close(outputs, np.array(u, dtype))
    assert_close(predicted, outputs)
    assert_close(inputs, seen.astype(dtype))


def test_a_constant_input_keeps_the_norm():
    assert_close(np.linalg.norm(append_constant(sphere(1, 5, 3)), axis=1), np.ones(5))


@pytest.mark.parametrize("decoder_init", ["rademacher", "gaussian"])
def test_one_key_draws_the_weights_of_the_paper_for_every_regime(decoder_init):
    def draw(key):
        modules = [Autoencoder(20_000, trains, decoder_init) for trains in REGIMES]
        return [module.init(key, jnp.ones((1, 2))) for module in modules]

    drawn = compiled(draw)(jax.random.key(0))
    assert [trains_of(variables) for variables in drawn] == list(REGIMES)
    assert [sorted(variables.get("fixed", {})) for variables in drawn] == [
        ["decoder"],
        ["encoder"],
        [],
    ]
    for variables in drawn[1:]:
        for leaf, first in zip(weights(variables), weights(drawn[0]), strict=True):
            assert (leaf == first).all()
    w, a = weights(drawn[0])
    w, a = np.asarray(w), np.asarray(a)
    for leaf in (w, a):
        assert abs(leaf.mean()) < 4 / leaf.size**0.5
    assert abs(w.var() - 1) < 4 * (2 / w.size) ** 0.5
    if decoder_init == "rademacher":
        assert set(np.unique(a)) == {-1.0, 1.0}
    else:
        assert abs(a.var() - 1) < 4 * (2 / a.size) ** 0.5
        assert abs((a**4).mean() - 3) < 4 * (96 / a.size) ** 0.5


@pytest.mark.parametrize("decoder_init", ["rademacher", "gaussian"])
def test_the_mean_error_at_initialization_is_three_halves_of_the_samples(decoder_init):
    n, d, m, draws = 5, 3, 8, 20_000
    x, generator = sphere(2, n, d), np.random.default_rng(3)
    encoder = generator.normal(size=(draws, d, m))
    if decoder_init == "rademacher":
        decoder = generator.choice([-1.0, 1.0], (draws, d, m))
    else:
        decoder = generator.normal(size=(draws, d, m))
    outputs = compiled(jax.vmap(lambda leaves: predict({"params": leaves}, x)))
    u = np.asarray(outputs({"encoder": encoder, "decoder": decoder}))
    errors = np.square(np.asarray(x) - u).sum(axis=(1, 2))
    standard_error = errors.std() / draws**0.5
    assert standard_error < 0.05
    assert abs(errors.mean() - 3 * n / 2) < 4 * standard_error


def test_patterns_count_zero_as_inactive():
    variables = {"params": {"encoder": jnp.eye(2), "decoder": jnp.ones((2, 2))}}
    assert patterns(variables, jnp.array([[1.0, -1.0], [0.0, 2.0]])).tolist() == [
        [True, False],
        [False, True],
    ]


@pytest.mark.parametrize(("constant_input", "dtype"), [(False, "float32"), (True, "float64")])
def test_autodiff_gradients_are_equations_5_4_and_5_5(constant_input, dtype):
    x = np.concatenate([sphere(4, 4, 3, dtype), np.zeros((1, 3), dtype)])  # w·0 = 0: the kink
    module, variables = initialize(7, x, constant_input=constant_input)

    def both(variables):
        exact = jax.grad(squared_loss(module.apply))(variables, (x, x))
        return exact, encoder_gradient(variables, x, x), decoder_gradient(variables, x, x)

    gradient, of_encoder, of_decoder = compiled(both)(variables)
    assert of_encoder.dtype == of_decoder.dtype == dtype
    assert_close(of_encoder, gradient["params"]["encoder"])
    assert_close(of_decoder, gradient["params"]["decoder"])


def test_gradients_by_hand_and_the_printed_4_2():
    x = sphere(5, 4, 3)
    _, variables = initialize(6, x)
    w, a = (np.asarray(leaf) for leaf in weights(variables))
    points, error = np.asarray(x), np.asarray(x - predict(variables, x))
    right, printed, decoder = np.zeros_like(w), np.zeros_like(w), np.zeros_like(a)
    for r in range(6):
        for i in range(4):
            active = float(w[:, r] @ points[i] >= 0)
            right[:, r] -= active * points[i] * (a[:, r] @ error[i]) / 18**0.5
            printed[:, r] -= active * a[:, r] * (points[i] @ error[i]) / 18**0.5
            decoder[:, r] -= max(w[:, r] @ points[i], 0) * error[i] / 18**0.5
    gradients = compiled(lambda v: (encoder_gradient(v, x, x), decoder_gradient(v, x, x)))
    for gradient, expected in zip(gradients(variables), (right, decoder), strict=True):
        assert_close(gradient, expected)
    assert np.abs(printed - right).max() > 0.1


@pytest.mark.parametrize("trains", REGIMES)
def test_descent_moves_what_trains_at_once(trains, dtype):
    x = sphere(6, 5, 3, dtype)
    module, variables = initialize(9, x, trains)
    run = compiled(descend(squared_loss(module.apply), optax.sgd(0.5), steps=1))
    after = run(variables, (x, x)).params
    gradients = compiled(lambda v: (encoder_gradient(v, x, x), decoder_gradient(v, x, x)))
    for leaf, before, gradient, name in zip(
        weights(after), weights(variables), gradients(variables), REGIMES[:2], strict=True
    ):  # both gradients are taken before either layer moves
        step = 0.5 if trains in (name, "both") else 0.0
        assert leaf.dtype == dtype
        assert_close(leaf, np.asarray(before) - step * np.asarray(gradient))


def test_gradient_flow_moves_what_trains():
    x = sphere(7, 4, 3)
    module, variables = initialize(40, x, "encoder")
    # Tighter tolerances creep: some weights slide along a kink w_r·x_i = 0 (see `Autoencoder`).
    flow = gradient_flow(squared_loss(module.apply), [0.0, 5.0, 20.0], rtol=1e-4, atol=1e-5)
    trajectory = jax.device_get(compiled(flow)(variables, (x, x)))
    assert trajectory.state.solver_steps < 200
    losses = trajectory.history["loss"]
    assert losses[0] > losses[1] > losses[2]
    moved = jax.tree.map(lambda a, b: np.any(a != b), jax.device_get(variables), trajectory.params)
    assert all(jax.tree.leaves(moved["params"]))
    assert not any(jax.tree.leaves(moved["fixed"]))


def test_what_is_refused():
    x = jnp.ones((2, 3))
    key = jax.random.key(0)
    for width in (0, -1, 2.5, True):
        with pytest.raises(ValueError, match="width is"):
            Autoencoder(width).init(key, x)
    module, variables = initialize(4, x, "encoder")
    with pytest.raises(ValueError, match="trains is 'joint'; expected one of"):
        module.clone(trains="joint").init(key, x)
    with pytest.raises(ValueError, match="decoder_init is 'uniform'; expected one of"):
        module.clone(decoder_init="uniform").init(key, x)
    with pytest.raises(ValueError, match=r"x has shape \(3,\); expected \(samples, features\)"):
        module.apply(variables, jnp.ones(3))
    for trains in REGIMES:
        module, variables = initialize(4, x, trains)
        for call in (module.apply, predict, patterns):
            with pytest.raises(ValueError, match=r"x has shape \(3, 2\) and the \w+ \(3, 4\); exp"):
                call(variables, x.T)
        for other in set(REGIMES) - {trains}:
            with pytest.raises(
                ValueError, match=rf"is in the collection .*, as trains is '{other}'"
            ):
                module.clone(trains=other).apply(variables, x)
    with pytest.raises(ValueError, match=r"y has shape \(3, 2\) and the outputs \(2, 3\)"):
        encoder_gradient(variables, x, x.T)
    with pytest.raises(ValueError, match=r"outputs have shape \(2, 3\) and the labels y \(2,\)"):
        squared_loss(module.apply)(variables, (x, jnp.ones(2)))
    with pytest.raises(ValueError, match="the variables of an Autoencoder"):
        predict({"params": {"kernel": x.T}}, x)
    with pytest.raises(ValueError, match="Neither 'encoder' nor 'decoder' is in the collection"):
        trains_of({"fixed": variables["params"]})


def test_data_that_break_the_assumptions():
    x = sphere(8, 4, 3)
    check_data(x)
    check_data(jnp.eye(3))
    with pytest.raises(ValueError, match=r"columns of x have norm 1.*\(3, 4\). Pass x.T"):
        check_data(x.T)
    with pytest.raises(ValueError, match=r"4 rows of norm other than 1: 0 \(‖x‖ = 2\)"):
        check_data(2 * x)
    with pytest.raises(ValueError, match=r"1 pair of parallel rows: \(0, 4\)"):
        check_data(jnp.concatenate([x, -x[:1]]))
    with pytest.raises(ValueError, match="x is traced"):
        jax.jit(check_data)(x)


def test_arguments_of_the_theorems():
    check(n=20, m=160, d=10, lambda_0=0.12, lambda_n=4.5, delta=0.1)
    with pytest.raises(ValueError, match=r"lambda_n is 0\.0; expected greater than 0"):
        check(lambda_n=0.0)
    with pytest.raises(ValueError, match="lambda_0 is"):
        check(lambda_0=0.0, lambda_n=4.5)
