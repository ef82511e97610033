"""Certificates: runs that hold, runs that fail where the theory says so, and batches of seeds."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import compiled, samples

from ntkflow.data.generative import (
    mixture_of_gaussians,
    nonnegative_sparse_coding,
    sparse_coding,
)
from ntkflow.systems.sparse_autoencoder.certificates import (
    certificate_code_consistency,
    certificate_descent,
)
from ntkflow.systems.sparse_autoencoder.descent import (
    geometric_bias,
    learn,
    normalized_descent,
)
from ntkflow.systems.sparse_autoencoder.network import threshold
from ntkflow.systems.sparse_autoencoder.observables import observables
from ntkflow.systems.sparse_autoencoder.sources import population_source

N, M = 24, 8
HARD = threshold(0.5)
DECAY = "‖W' − A‖_F² ≤ (1 − τ)ˢ"
LEMMA = "2⟨g_i, W_i − A_i⟩"


def unit_columns(weights):
    weights = np.asarray(weights)
    return jnp.asarray(weights / np.linalg.norm(weights, axis=0))


def dictionary():
    basis = np.linalg.qr(samples(0, N, N))[0][:, :M]
    return jnp.asarray(basis)


def start(seed, distance):
    error = np.asarray(samples(seed, N, M))
    error = error / np.linalg.norm(error, axis=0)
    return unit_columns(np.asarray(dictionary()) + distance * error)


NEEDED = (
    "distances",
    "inner_products",
    "column_norms",
    "bias",
    "gradient_alignment",
    "gradient_squared_norm",
    "spectral_distance",
    "code_consistency",
)
STEPS = 6


@functools.cache
def experiment(activation):
    """A run from (model, ζ, W, b, factor of the bias): compiled once for each kind of model."""

    def run(model, zeta, weights, bias, factor):
        observe = observables(model, model.sample(jax.random.key(1), 100), activation)
        optimizer = normalized_descent(lambda _: zeta, bias_schedule=geometric_bias(factor))
        observe = {name: observe[name] for name in NEEDED}
        found = learn(population_source(model), optimizer, STEPS, observe=observe)(weights, bias)
        return found.history, found.steps

    return compiled(run)


def trained(model, zeta, weights, bias=0.0, *, factor=1.0, activation=HARD):
    biases = np.full(M, bias, weights.dtype)
    history, steps = experiment(activation)(model, zeta, weights, biases, factor)
    return {name: np.asarray(record) for name, record in history.items()}, np.asarray(steps)


def entry(certificate, part):
    (found,) = [e for e in (*certificate.hypotheses, *certificate.claims) if part in e.statement]
    return found


@pytest.fixture(scope="module")
def mixture():
    """Theorem 4 (i.2): a ReLU mixture with a bias that halves at each step."""
    model = mixture_of_gaussians(dictionary(), 0.01)
    relu = trained(model, float(M), start(2, 0.2), -0.4, factor=0.5, activation=jax.nn.relu)
    return model, *relu


@pytest.mark.quick
def test_theorem_4_applies_and_holds_for_a_mixture_with_a_threshold(dtype):
    model = mixture_of_gaussians(dictionary(), 0.01)
    model = jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf), dtype), model)
    history, steps = trained(model, float(M), start(2, 0.2).astype(dtype))
    certificate = certificate_descent(history, steps, model, float(M), exponent=20.0)
    assert certificate.applies
    assert certificate.holds
    assert 0.01 < entry(certificate, DECAY).ratio < 1
    consistent = certificate_code_consistency(history, steps, model, level=0.5)
    assert consistent.applies
    assert consistent.holds
    # What is left falls as fast as rounding lets it: p_i ζ = 1.
    assert history["distances"].dtype == dtype
    assert history["distances"][-1].max() < 10 * np.finfo(dtype).eps

    apart = {name: record[[0, 1, 4]] for name, record in history.items()}
    assert certificate_descent(apart, steps[[0, 1, 4]], model, float(M)).holds


def test_a_relu_mixture_needs_a_bias_that_goes_and_loses_its_codes_to_noise(mixture):
    model, history, steps = mixture
    certificate = certificate_descent(history, steps, model, float(M), relu=True)
    assert entry(certificate, "b_i ≤ −‖W_i − A_i‖").holds
    # b = −0.4 at δ = 0.2 satisfies Theorem 3, and not the condition of Lemma 1: no rate of τ.
    assert not entry(certificate, "b_i λ_i").holds
    assert not certificate.holds
    assert not certificate.applies
    consistent = certificate_code_consistency(history, steps, model)
    room = entry(consistent, "b_i ≤ −Z").slack
    found = entry(consistent, "1 ≤ share").slack
    assert room[0] > 0 > room[-1]
    assert found[0] == 0 > found[-1]  # b = −0.006 against σ = 0.01
    assert not entry(
        certificate_code_consistency(history, steps, model, constant=0.1), "δ ≤ C / ln n"
    ).holds


def test_sparse_coding_descends_to_its_floor():
    model = sparse_coding(dictionary(), 2)
    history, steps = trained(model, M / 2, start(3, 0.2))
    certificate = certificate_descent(history, steps, model, M / 2, constant=2.0)
    assert certificate.holds
    assert certificate.applies
    assert not certificate_descent(history, steps, model, M, constant=2.0).applies
    consistent = certificate_code_consistency(history, steps, model, level=0.5)
    assert consistent.holds
    assert entry(consistent, "a_1/2 ≤ level").holds
    # Below a_1/2 a threshold lets errors pass, and Theorem 3 does not speak.
    low = certificate_code_consistency(history, steps, model, level=0.4)
    assert not entry(low, "a_1/2 ≤ level").holds
    assert not entry(
        certificate_code_consistency(history, steps, model, level=0.6), "level ≤ a_1/2"
    ).holds
    biased = certificate_descent(
        history | {"bias": history["bias"] - 1e-3}, steps, model, M / 2, constant=2.0
    )
    assert not entry(biased, "|b_i| ≤ 0").holds
    with pytest.raises(ValueError, match="relu is True; Theorem 4 has a hard threshold"):
        certificate_descent(history, steps, model, M / 2, relu=True)
    with pytest.raises(ValueError, match="level is None, which is ReLU"):
        certificate_code_consistency(history, steps, model)


def test_non_negative_codes_leave_the_dictionary_at_the_step_of_the_theorem():
    """ζ = 1/(κ_2 p_i), k = 5, columns shifted alike: the lemma fails, and the run leaves A."""
    k = 5
    model = nonnegative_sparse_coding(dictionary(), k, 1.0, 1.0)
    shift = np.linalg.qr(samples(0, N, N))[0][:, M : M + 1]
    weights = unit_columns(np.asarray(dictionary()) + 0.1 * shift)
    held, shrinks = {}, {}
    for zeta in (M / k, M / k**2):
        history, steps = trained(model, zeta, weights)
        certificate = certificate_descent(history, steps, model, zeta, constant=0.0)
        held[zeta] = [
            bool(entry(certificate, part).holds) for part in (LEMMA, DECAY, "½ ≤ τ", "ζ ≤ min")
        ]
        shrinks[zeta] = history["distances"][-1].max() < history["distances"][0].max()
    assert shrinks == {M / k: False, M / k**2: True}
    assert held[M / k][:2] == [False, False]
    assert held[M / k**2][2:] == [False, True]  # ζ is small enough, and τ of the order of 1/k
    assert not held[M / k**2][0]


def test_a_batch_of_seeds_gives_one_verdict_each(mixture):
    model, history, steps = mixture
    spoiled = dict(history, distances=history["distances"] + 0.5 * (steps == STEPS)[:, None])
    both = {name: np.stack([history[name], spoiled[name]]) for name in history}
    both_certificate = certificate_descent(both, steps, model, float(M))
    one, two = (certificate_descent(h, steps, model, float(M)) for h in (history, spoiled))
    assert both_certificate.holds.shape == (2,)
    assert both_certificate.holds.tolist() == [bool(one.holds), bool(two.holds)]
    for first, second, many in zip(one.claims, two.claims, both_certificate.claims, strict=True):
        margins = np.broadcast_to(many.margin, 2)
        np.testing.assert_allclose(margins, [first.margin, second.margin])
    assert certificate_code_consistency(both, steps, model).holds.shape == (2,)


def test_divergence_is_data(mixture):
    model, history, steps = mixture
    lost = {
        name: np.where(np.arange(7) == 6, np.nan, record.T).T for name, record in history.items()
    }
    assert not certificate_descent(lost, steps, model, float(M)).holds
    assert not certificate_code_consistency(lost, steps, model).holds


def test_what_is_refused(mixture):
    model, history, steps = mixture
    partial = {name: history[name] for name in history if name != "distances"}
    with pytest.raises(ValueError, match=r"lacks \['distances'\]; .*observables\(model\)"):
        certificate_descent(partial, steps, model, 1.0)
    partial = {name: history[name] for name in history if name != "code_consistency"}
    with pytest.raises(ValueError, match=r"observables\(model, samples, activation\)"):
        certificate_code_consistency(partial, steps, model)
    with pytest.raises(ValueError, match="the first at 0"):
        certificate_descent(history, steps + 1, model, 1.0)
    other = mixture_of_gaussians(np.eye(3))
    with pytest.raises(ValueError, match=r"distances has shape \(7, 8\); expected \(..., 3\)"):
        certificate_descent(history, steps, other, 1.0)
