"""Predictions with a frozen kernel, against networks and against each other."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import assert_close, compiled

from ntkflow.prediction.mse import gradient_descent_mse
from ntkflow.systems.autoencoder import (
    Autoencoder,
    decoder_gram,
    limit_gram,
    predict,
    predict_descent,
    predict_flow,
)
from ntkflow.training.descent import descend
from ntkflow.training.losses import squared_loss

N, D, STEP_SIZE, STEPS = 6, 4, 1.0, 40


def sphere(seed, n, d, dtype="float64"):
    x = np.random.default_rng(seed).normal(size=(n, d))
    return jnp.asarray(x / np.linalg.norm(x, axis=1, keepdims=True), dtype)


def draw(seed, *shape):
    """Encoder and decoder with the leading axes of `shape`."""
    generator = np.random.default_rng(seed)
    *lead, width = shape
    encoder = jnp.asarray(generator.normal(size=(*lead, D, width)))
    return {
        "encoder": encoder,
        "decoder": jnp.asarray(generator.choice([-1.0, 1.0], encoder.shape)),
    }


@pytest.mark.quick
def test_the_gap_to_the_right_kernel_closes_and_to_the_printed_one_it_does_not():
    x, seeds = sphere(0, N, D), 8
    steps = np.arange(0, STEPS + 1, 4)
    observe = {"outputs": lambda snapshot: predict(snapshot.params, x)}
    gaps = {}
    for width in (100, 1600):
        run = descend(
            squared_loss(Autoencoder(width).apply),
            optax.sgd(STEP_SIZE),
            steps=STEPS,
            observe=observe,
            every=4,
        )

        def gap(leaves):
            outputs = run({"params": leaves}, (x, x)).history["outputs"]
            predicted = [
                predict_descent(x, outputs[0], STEP_SIZE, steps, printed=printed).train
                for printed in (False, True)
            ]
            return [jnp.linalg.norm(outputs - p, axis=(1, 2)).max() for p in predicted]

        gaps[width] = np.array(compiled(jax.vmap(gap))(draw(1, seeds, width))).mean(axis=1)
    (right, _), (right_wide, printed_wide) = gaps[100], gaps[1600]
    # Sixteen times the width: a quarter of the gap.
    assert 3 < right / right_wide < 5.5
    assert right_wide < 0.2
    assert printed_wide > 2 * right_wide


def test_a_fixed_encoder_is_predicted_exactly():
    """Random features: X − U(k) = (I − (η/d) Ĥ)^k (X − U(0)) at any width."""
    x, leaves = sphere(2, N, D), draw(3, 10)
    variables = {
        "params": {"decoder": leaves["decoder"]},
        "fixed": {"encoder": leaves["encoder"]},
    }
    module = Autoencoder(10, "decoder")
    run = descend(squared_loss(module.apply), optax.sgd(STEP_SIZE), steps=STEPS)

    def both(variables):
        initial, kernel = predict(variables, x), decoder_gram(variables, x)
        predicted = gradient_descent_mse(kernel / D, x, learning_rate=STEP_SIZE)(STEPS, initial)
        return initial, kernel, predict(run(variables, (x, x)).params, x), predicted.train

    initial, kernel, outputs, predicted = compiled(both)(variables)
    step = np.eye(N) - STEP_SIZE / D * np.asarray(kernel)
    assert_close(x - outputs, np.linalg.matrix_power(step, STEPS) @ (x - initial), scale=1.0)
    assert_close(predicted, outputs, scale=1.0)


@pytest.mark.parametrize(
    ("trains", "dtype"), [("encoder", "float32"), ("decoder", "float64"), ("both", "float64")]
)
def test_predictions_are_powers_and_exponentials(trains, dtype):
    x, x_test = sphere(4, N, D, dtype), sphere(5, 3, D, dtype)
    outputs, outputs_test = 0.5 * np.asarray(x)[::-1], 0.5 * np.asarray(x_test)[::-1]

    def predictions(outputs, outputs_test):
        test = {"x_test": x_test, "outputs_test": outputs_test}
        of_steps = predict_descent(x, outputs, 2.0, np.array([0, 7]), trains, **test)
        of_times = predict_flow(x, outputs, jnp.array([0.0, 3.0], dtype), trains, **test)
        k = limit_gram(jnp.concatenate([x, x_test]), x, trains=trains)
        return of_steps, of_times, k

    of_steps, of_times, k = compiled(predictions)(outputs, outputs_test)
    assert of_steps.train.dtype == of_times.test.dtype == dtype
    k, cross = np.split(np.asarray(k, "float64"), [N])
    step, error = np.eye(N) - 2.0 / D * k, np.asarray(x, "float64") - outputs
    # The test outputs move by the sum of the steps, each driven by the error on the samples.
    errors = [np.linalg.matrix_power(step, s) @ error for s in range(8)]
    moved = outputs_test + 2.0 / D * cross @ sum(errors[:7])
    assert_close(of_steps.train, np.stack([outputs, x - errors[7]]).astype(dtype))
    assert_close(of_steps.test, np.stack([outputs_test, moved]).astype(dtype))

    values, vectors = np.linalg.eigh(k)
    decayed = (vectors * np.exp(-3.0 / D * values)) @ vectors.T @ error
    moved = outputs_test + cross @ np.linalg.solve(k, error - decayed)
    assert_close(of_times.train, np.stack([outputs, x - decayed]).astype(dtype))
    assert_close(of_times.test, np.stack([outputs_test, moved]).astype(dtype))


def test_after_infinite_time_it_is_kernel_regression_of_the_samples_on_themselves():
    x, x_test = sphere(8, N, D), sphere(9, 3, D)

    def final(x, x_test):
        prediction = predict_flow(x, 0.0, np.inf, x_test=x_test, constant_input=True)
        return prediction, limit_gram(jnp.concatenate([x, x_test]), x, constant_input=True)

    (train, test), k = compiled(final)(x, x_test)
    k, cross = np.split(np.asarray(k), [N])
    assert_close(train, x)
    assert_close(test, cross @ np.linalg.solve(k, x), factor=1e4)


def test_what_is_refused():
    x = sphere(10, N, D)
    with pytest.raises(ValueError, match=r"outputs has shape \(4, 6\); expected .* \(6, 4\)"):
        predict_flow(x, x.T, 1.0)
    with pytest.raises(ValueError, match=r"outputs_test has shape \(6, 4\); expected .* \(2, 4\)"):
        predict_descent(x, x, 0.1, 3, x_test=x[:2], outputs_test=x)
    with pytest.raises(ValueError, match="outputs holds NaN"):
        predict_flow(x, np.nan * x, 1.0)
    with pytest.raises(ValueError, match="outputs_test is given without x_test"):
        predict_flow(x, x, 1.0, outputs_test=x)
    with pytest.raises(ValueError, match=r"x_test has shape \(4,\); expected \(samples"):
        predict_flow(x, x, 1.0, x_test=x[0])
    with pytest.raises(ValueError, match="x_test has 2 features and x 4"):
        predict_flow(x, x, 1.0, x_test=x[:, :2])
    with pytest.raises(ValueError, match="trains is 'joint'"):
        predict_flow(x, x, 1.0, "joint")
    for step_size, steps, message in ((0.1, 0.5, "whole numbers of steps"), (0, 3, "rate is 0")):
        with pytest.raises(ValueError, match=message):  # in a trace, to compile nothing
            jax.eval_shape(lambda x: predict_descent(x, x, step_size, steps), x)
