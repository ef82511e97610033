"""What runs record: against NumPy, against the run's own next step, in both engines."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_close, compiled, samples

from ntkflow.data.generative import Samples, mixture_of_gaussians, sparse_coding
from ntkflow.systems.sparse_autoencoder.descent import learn, normalized_descent
from ntkflow.systems.sparse_autoencoder.network import (
    mean_loss,
    threshold,
    variables,
)
from ntkflow.systems.sparse_autoencoder.observables import observables, sample_observables
from ntkflow.systems.sparse_autoencoder.sources import batch_source, population_source
from ntkflow.training.descent import descend
from ntkflow.training.observe import Snapshot, record

N, M = 12, 3


def unit_columns(weights):
    weights = np.asarray(weights)
    return np.asarray(weights / np.linalg.norm(weights, axis=0))


def dictionary(dtype="float64"):
    return unit_columns(samples(0, N, M, dtype=dtype))


def draws(model, noise=0.02):
    """Twelve samples of a mixture, by turns of each atom."""
    codes = np.eye(M, dtype=model.dictionary.dtype)[np.arange(12) % M]
    y = codes @ np.asarray(model.dictionary).T
    return Samples(y + y.dtype.type(noise) * np.asarray(samples(5, 12, N, dtype=y.dtype)), codes)


def snapshot(weights, bias):
    params = variables(weights, bias)
    return Snapshot(0, params, params, None)


@pytest.mark.quick
def test_records_against_numpy(dtype):
    model = mixture_of_gaussians(dictionary(dtype), noise=0.05)
    a = np.asarray(model.dictionary)
    weights = a + np.asarray(0.3, dtype) * np.asarray(samples(1, N, M, dtype=dtype))
    bias = np.linspace(-0.3, 0, M)
    drawn = draws(model)
    observe = observables(model, drawn, threshold(0.5))
    found = compiled(lambda at: record(observe, at))(snapshot(jnp.asarray(weights), bias))
    assert set(found) == set(observe)
    assert {record.dtype for record in found.values()} == {jnp.dtype(dtype)}
    offset = weights - a
    assert_close(found["distances"], np.linalg.norm(offset, axis=0))
    assert_close(found["spectral_distance"], np.linalg.norm(offset, 2))
    assert_close(found["inner_products"], np.einsum("nm,nm->m", weights, a))
    assert_close(found["column_norms"], np.linalg.norm(weights, axis=0))
    assert_close(found["bias"], bias.astype(dtype))
    assert_close(found["recovery_error"], np.linalg.norm(offset))  # the identity is the best here
    z = drawn.y @ weights + bias[None, :]
    residual = drawn.y - (z * (abs(z) >= 0.5)) @ weights.T
    assert_close(found["reconstruction_loss"], np.sum(residual**2) / 2 / 12)


def test_gradient_records_foretell_the_next_distance():
    """‖W_i − ζg_i − A_i‖² = ‖W_i − A_i‖² − ζ 2⟨g_i, W_i − A_i⟩ + ζ²‖g_i‖²."""
    model, size = sparse_coding(dictionary(), 2), 0.7
    start = unit_columns(dictionary() + 0.2 * np.asarray(samples(2, N, M)))
    optimizer = normalized_descent(size, normalize=False)
    chosen = ("distances", "gradient_alignment", "gradient_squared_norm")
    observe = {name: observables(model)[name] for name in chosen}
    run = compiled(learn(population_source(model), optimizer, 1, observe=observe))
    history = run(start, 0.0).history
    distance, alignment, squared_norm = (history[name] for name in chosen)
    expected = distance[0] ** 2 - size * alignment[0] + size**2 * squared_norm[0]
    assert (distance[1] < distance[0]).all()
    assert_close(distance[1] ** 2, expected, scale=1.0)


def test_recovery_is_up_to_permutation_and_signs_of_sparse_codes():
    atoms = dictionary()
    permuted = atoms[:, np.array([2, 0, 1])]
    flipped = permuted * np.array([[1.0, -1.0, 1.0]])
    for model, error in ((mixture_of_gaussians(atoms), 2.0), (sparse_coding(atoms, 1), 0.0)):
        observe = compiled(observables(model)["recovery_error"])
        assert_close(observe(snapshot(permuted, 0.0)), 0.0, scale=1.0)
        assert_close(observe(snapshot(flipped, 0.0)), error, scale=1.0)  # of −A_i from A_i


@pytest.mark.quick
def test_consistency_near_the_dictionary_and_dead_units():
    """A bias of −2.5 δ = −1.25 kills units of norm 1: the loss is ½ ‖y‖², the code empty."""
    model = mixture_of_gaussians(unit_columns(samples(3, 60, M)))
    codes = np.eye(M)[np.arange(12) % M]
    drawn = Samples(
        codes @ np.asarray(model.dictionary).T + 0.02 * np.asarray(samples(4, 12, 60)), codes
    )
    near = unit_columns(model.dictionary + 0.3 * np.asarray(samples(6, 60, M)) / math.sqrt(60))
    for activation, bias, share in (
        (jax.nn.relu, -1.25, 0.0),
        (jax.nn.relu, -0.5, 1.0),
        (threshold(0.5), 0.0, 1.0),
    ):
        observe = sample_observables(drawn, activation)
        at = lambda bias, observe=observe: record(observe, snapshot(near, bias))  # noqa: E731
        found = compiled(at)(bias)
        assert found["code_consistency"] == share
        if share == 0:
            assert_close(found["reconstruction_loss"], np.sum(np.square(drawn.y)) / 2 / 12)


def test_signs_count_where_asked():
    y, codes = np.array([[0.9, 0.0], [0.0, -0.8]]), np.array([[1.0, 0.0], [0.0, 1.0]])
    for signs, share in ((False, 1.0), (True, 0.5)):
        observe = sample_observables(Samples(y, codes), threshold(0.5), signs=signs)
        at = lambda weights, f=observe["code_consistency"]: f(snapshot(weights, 0.0))  # noqa: E731
        assert compiled(at)(np.eye(2)) == share


def test_both_engines_record_the_same():
    model = mixture_of_gaussians(dictionary(), noise=0.02)
    drawn, start = draws(model), unit_columns(dictionary() + 0.2 * np.asarray(samples(2, N, M)))
    chosen = ("distances", "gradient_squared_norm", "reconstruction_loss")
    observe = {name: observables(model, drawn)[name] for name in chosen}
    optimizer = normalized_descent(2.0)
    y = drawn.y
    ours = compiled(learn(batch_source(y), optimizer, 2, observe=observe))(start, -0.1)
    theirs = compiled(descend(mean_loss(), optimizer, 2, observe=observe))(
        variables(start, -0.1), (y, y)
    )
    assert set(theirs.history) - set(ours.history) == {"loss"}
    for name, values in ours.history.items():
        assert_close(values, theirs.history[name], factor=1000)
    assert_close(ours.history["reconstruction_loss"], theirs.history["loss"])


def test_what_is_refused():
    model = mixture_of_gaussians(np.eye(4, 3))
    for name in ("distances", "spectral_distance", "inner_products", "recovery_error"):
        with pytest.raises(ValueError, match=r"weights has shape \(4, 1\) and dictionary \(4, 3\)"):
            observables(model)[name](snapshot(np.ones((4, 1)), 0.0))  # would broadcast
    with pytest.raises(ValueError, match="model is of type ndarray"):
        observables(np.eye(3))
    with pytest.raises(ValueError, match=r"samples is of type ndarray; .*model\.sample\(key, N\)"):
        observables(model, np.ones((5, 4)))
    with pytest.raises(ValueError, match="activation is 'relu'"):
        sample_observables(Samples(np.ones((5, 4)), np.ones((5, 3))), "relu")
