"""The bounds along a run against networks that are trained, and what is wrong in the text."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import compiled
from scipy import special, stats

from ntkflow.systems.autoencoder.bounds import (
    error_decay_descent,
    error_decay_flow,
    expected_initial_error,
    initial_error,
    kernel_term,
)
from ntkflow.systems.autoencoder.bounds_joint import (
    decoder_gram_perturbation,
    joint_decoder_distance,
    joint_decoder_gradient_norm,
    joint_distances,
    joint_encoder_distance,
    joint_encoder_gradient_norm,
)
from ntkflow.systems.autoencoder.bounds_joint_step import (
    joint_contraction_factor,
    joint_second_order_term,
    joint_squared_change_term,
    joint_unstable_change_term,
    joint_unstable_gram_norm,
    joint_unstable_gram_term,
)
from ntkflow.systems.autoencoder.bounds_weak import (
    contraction_factor,
    gram_perturbation,
    neuron_distance,
    neuron_gradient_norm,
    pattern_change_probability,
    pattern_flips,
    pattern_flips_failure,
    squared_change_term,
    unstable_change_term,
    unstable_gram_norm,
    unstable_gram_term,
)
from ntkflow.systems.autoencoder.constants import WeightNorms
from ntkflow.systems.autoencoder.gram import perpendicular_gram
from ntkflow.systems.autoencoder.step import one_step

STEPS = 150


def norm(a):
    """The spectral norm of each matrix."""
    return np.linalg.norm(a, 2, axis=(-2, -1))


def frobenius(a):
    return np.linalg.norm(a, axis=(-2, -1))


def sphere(seed, n, d):
    x = np.random.default_rng(seed).normal(size=(n, d))
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def draw(seed, seeds, d, m, gaussian=False):
    generator = np.random.default_rng(seed)
    encoder = generator.normal(size=(seeds, d, m))
    shape = (seeds, d, m)
    return encoder, generator.normal(size=shape) if gaussian else generator.choice([-1.0, 1], shape)


def outputs(encoder, decoder, x):
    """Hidden layer (seeds, n, m) and U (seeds, n, d)."""
    hidden = np.maximum(x @ encoder, 0)
    return hidden, hidden @ decoder.swapaxes(-1, -2) / math.sqrt(math.prod(encoder.shape[-2:]))


def gradients(encoder, decoder, x):
    hidden, u = outputs(encoder, decoder, x)
    scale, errors = math.sqrt(math.prod(encoder.shape[-2:])), x - u
    return (
        -x.T @ (errors @ decoder * (hidden > 0)) / scale,
        -errors.swapaxes(-1, -2) @ hidden / scale,
    )


def gram_floor(encoder, decoder, x, joint):
    """λ_min(G), or λ_min(G + H), of each seed."""
    hidden = np.maximum(x @ encoder, 0)
    (n, d), m = x.shape, encoder.shape[-1]
    slopes = (hidden > 0)[:, :, None, :] * decoder[:, None]
    flat = slopes.reshape(len(encoder), n * d, m)
    blocks = flat @ flat.swapaxes(-1, -2) / m * np.kron(x @ x.T, np.ones((d, d)))
    if joint:
        blocks += np.kron(hidden @ hidden.swapaxes(-1, -2) / m, np.eye(d))
    return np.linalg.eigvalsh(blocks)[:, 0]


@pytest.fixture(scope="module", params=["encoder", "both"])
def run(request):
    """30 networks trained side by side: weights before each step, and the step size."""
    x, step = sphere(0, 4, 3), 0.5
    encoder, decoder = draw(1, 30, 3, 300)
    history = []
    for _ in range(STEPS):
        history.append((encoder, decoder))
        to_encoder, to_decoder = gradients(encoder, decoder, x)
        encoder = encoder - step * to_encoder
        if request.param == "both":
            decoder = decoder - step * to_decoder
    encoders, decoders = (np.stack(leaves) for leaves in zip(*history, strict=True))
    errors = np.stack([frobenius(x - outputs(*weights, x)[1]) for weights in history])
    floors = np.stack([gram_floor(*weights, x, request.param == "both") for weights in history])
    return request.param, x, step, encoders, decoders, errors, floors


@pytest.mark.quick
def test_the_rate_and_the_distances_hold_along_descent(run):
    """λ_0/2 := the smallest eigenvalue met, the lemmas' condition; C_2 and C_3 are small here."""
    trains, x, step, encoders, decoders, errors, floors = run
    (_, d), m, lambda_n = x.shape, encoders.shape[-1], norm(x) ** 2
    lambda_0 = 2 * floors.min(axis=0)  # of each seed
    assert (lambda_0 > 0.05).all()
    decay = error_decay_descent(np.arange(STEPS)[:, None], d, lambda_0[None], step).value
    assert (errors**2 <= decay * errors[0] ** 2 * (1 + 1e-9)).all()
    initial = errors[0]
    if trains == "encoder":
        moved = np.linalg.norm(encoders - encoders[0], axis=-2).max(axis=(0, 2))
        bound = neuron_distance(d, m, lambda_0, lambda_n, initial, "descent").value
        assert (moved <= bound).all()
        slopes = np.stack([gradients(e, a, x)[0] for e, a in zip(encoders, decoders, strict=True)])
        largest = np.linalg.norm(slopes, axis=-2).max(axis=-1)
        assert (largest <= neuron_gradient_norm(m, lambda_n, errors).value).all()
        return
    distances = [frobenius(leaves - leaves[0]).max(axis=0) for leaves in (encoders, decoders)]
    features = norm(np.maximum(x @ encoders[0], 0))
    r_w, r_a = joint_distances(
        d, m, lambda_0, lambda_n, initial, norm(decoders[0]), features, "descent"
    )
    assert (distances[0] <= r_w.value).all()
    assert (distances[1] <= r_a.value).all()
    # And each by the other, as the lemmas state them.
    of_w = joint_encoder_distance(
        d, m, lambda_0, lambda_n, initial, norm(decoders[0]), distances[1], "descent"
    )
    of_a = joint_decoder_distance(
        d, m, lambda_0, lambda_n, initial, features, distances[0], "descent"
    )
    assert (distances[0] <= of_w.value).all()
    assert (distances[1] <= of_a.value).all()


def test_gradients_and_gram_matrices_of_joint_runs(run):
    trains, x, _, encoders, decoders, errors, _ = run
    if trains == "encoder":
        return
    (_, d), m, lambda_n = x.shape, encoders.shape[-1], norm(x) ** 2
    hidden = np.maximum(x @ encoders, 0)
    to_encoder, to_decoder = gradients(encoders[0], decoders[0], x)
    bound = joint_encoder_gradient_norm(d, m, lambda_n, errors[0], norm(decoders[0])).value
    assert (frobenius(to_encoder) <= bound).all()
    bound = joint_decoder_gradient_norm(d, m, lambda_n, errors[0], norm(hidden[0])).value
    assert (frobenius(to_decoder) <= bound).all()
    grams = hidden @ hidden.swapaxes(-1, -2) / m
    radius = frobenius(encoders - encoders[0])
    bound = decoder_gram_perturbation(m, lambda_n, norm(hidden[0])[None], radius).value
    assert (norm(grams - grams[0]) <= bound + 1e-12).all()


@compiled
def take_apart(before, after, x, step):
    return one_step(before, x, x, step), perpendicular_gram(before, after, x)


def test_terms_of_a_step(run):
    """C_1, ..., C_5 and K^⊥ of single steps, with η large enough for patterns to flip."""
    trains, x, _, encoders, decoders, _, floors = run
    (n, d), m, lambda_n, step = x.shape, encoders.shape[-1], norm(x) ** 2, 6.0
    for seed in range(3):
        encoder, decoder = encoders[0, seed], decoders[0, seed]
        leaves = {"encoder": jnp.asarray(encoder), "decoder": jnp.asarray(decoder)}
        to_encoder, to_decoder = gradients(encoder, decoder, x)
        moved = {"encoder": leaves["encoder"] - step * to_encoder}
        moved["decoder"] = leaves["decoder"] - (step * to_decoder if trains == "both" else 0.0)
        before, after = ({"params": v} for v in (leaves, moved))
        if trains == "encoder":
            before, after = (
                {"params": {"encoder": v["encoder"]}, "fixed": {"decoder": v["decoder"]}}
                for v in (leaves, moved)
            )
        parts, perpendicular = take_apart(before, after, x, step)
        terms = [float(term) for term in parts.terms]
        squared = frobenius(x - outputs(encoder, decoder, x)[1]) ** 2
        size = norm(np.asarray(perpendicular).transpose(0, 2, 1, 3).reshape(n * d, n * d))
        assert parts.flips.sum() > 0
        lambda_0 = 2 * floors[0, seed]
        bounds = [kernel_term(d, lambda_0, step)]
        if trains == "encoder":
            radius = float(parts.flips.max()) / (4 * m)  # what Lemma A.4 is used for: |S_i^⊥| ≤ 4mR
            assert size <= unstable_gram_norm(n, d, radius).value
            bounds += [
                unstable_gram_term(n, step, radius),
                unstable_change_term(n, step, radius),
                squared_change_term(n, lambda_n, step),
            ]
            terms = [*terms[:3], terms[4]]
        else:
            encoders_met = (encoder, np.asarray(moved["encoder"]))
            norms = WeightNorms(
                max(norm(w) for w in encoders_met),
                norm(decoder),
                max(norm(np.maximum(x @ w, 0)) for w in encoders_met),
            )
            assert size <= joint_unstable_gram_norm(m, lambda_n, norms).value
            residual = squared**0.5
            bounds += [
                joint_unstable_gram_term(d, m, lambda_n, step, norms),
                joint_unstable_change_term(n, d, m, lambda_n, step, norms),
                joint_second_order_term(n, d, m, lambda_n, step, residual, norms),
                joint_squared_change_term(d, m, lambda_n, step, norms),
            ]
            loose = joint_second_order_term(
                n, d, m, lambda_n, step, residual, norms, printed=True
            ).value
            assert bounds[3].value < loose
        for term, bound in zip(terms, bounds, strict=True):
            assert term <= bound.value * squared


def test_claim_c_8_wants_d_squared():
    """C_5 / ‖r‖² stays as the width grows, the printed 64η²λ_n²/(md) does not."""
    x, d, step = sphere(0, 4, 3), 3, 0.5
    ratios, printed = [], []
    for m in (1000, 100_000):
        encoder, decoder = (leaf[0] for leaf in draw(2, 1, d, m))
        to_encoder, to_decoder = gradients(encoder, decoder, x)
        u = outputs(encoder, decoder, x)[1]
        change = outputs(encoder - step * to_encoder, decoder - step * to_decoder, x)[1] - u
        ratios.append((frobenius(change) / frobenius(x - u)) ** 2)
        norms = WeightNorms(norm(encoder), norm(decoder), norm(np.maximum(x @ encoder, 0)))
        args = (d, m, norm(x) ** 2, step, norms)
        printed.append(joint_squared_change_term(*args, printed=True).value)
        assert ratios[-1] <= joint_squared_change_term(*args).value
    assert ratios[1] > ratios[0] / 2
    assert printed[1] < ratios[1] / 3


def test_equation_5_20_cannot_hold():
    """Above 1 for every η: 8ηλ_n/d − ηλ_0/d > 0, as λ_n ≥ 1 ≥ 2λ_0; corrected too, as ‖A‖² ≥ m."""
    n, d, m = 4, 3, 100
    norms = WeightNorms(m**0.5, m**0.5, m**0.5)
    for printed in (False, True):
        for step in (1e-6, 1e-3, 1.0):
            args = (n, d, m, 0.5, 1.0, step, 2.0, norms)
            assert joint_contraction_factor(*args, printed=printed).value > 1


def test_norms_of_features_may_exceed_those_of_x_and_w():
    """‖φ(XᵀW)‖ ≤ ‖X‖ ‖W‖ is false, with it the printed Lemma 5.2 and (C.3)."""
    for m, ratio in ((300, 2.46), (100, 1.46)):
        n = d = m
        encoder = np.random.default_rng(0).normal(size=(d, m))
        hidden = np.maximum(encoder, 0)
        assert norm(hidden) > 2 * norm(encoder)
        radius = math.sqrt(m) / 10
        after = hidden + (encoder > 0) * radius / frobenius(encoder > 0)
        change = norm(after @ after.T - hidden @ hidden.T) / m
        printed = decoder_gram_perturbation(m, 1.0, norm(encoder), radius, printed=True).value
        np.testing.assert_allclose(change / printed, ratio, rtol=5e-3)
        assert change <= decoder_gram_perturbation(m, 1.0, norm(hidden), radius).value
    x = np.eye(n)
    # A decoder that leaves of X − U the direction alone in which the features are large.
    left = np.linalg.svd(hidden)[0]
    target = x - np.outer(np.eye(d)[0], left[:, 0])  # U of shape (d, n) = Aφ(WᵀX)/√(md)
    decoder = math.sqrt(m * d) * target @ np.linalg.pinv(hidden.T)
    slope = frobenius(gradients(encoder, decoder, x)[1])
    residual = frobenius(x - outputs(encoder, decoder, x)[1])
    np.testing.assert_allclose(residual, 1.0, rtol=1e-6)
    args = (d, m, 1.0, residual)
    assert slope > 2 * joint_decoder_gradient_norm(*args, norm(encoder), printed=True).value
    np.testing.assert_allclose(slope, joint_decoder_gradient_norm(*args, norm(hidden)).value)


def test_lemma_4_3_wants_the_factor_2():
    """λ_min(K) = 3/8 ≥ λ_0/2 = 1/4 for one sample, 3 of 8 neurons active, as the lemma asks.

    An active weight moves by (8/3) |x − u(0)| / √m, more than the printed 2 |x − u(0)| / √m.
    """
    x, m = np.array([[1.0]]), 8
    encoder = np.array([[1.0, 0.8, 1.2, -1.0, -0.5, -0.7, -0.9, -1.1]])
    decoder = np.array([[-1.0, 1, 1, 1, 1, 1, 1, 1]])
    start, residual = encoder, abs(1 - outputs(encoder, decoder, x)[1].item())
    for _ in range(4000):  # steps of 0.01 in the flow's time
        encoder = encoder - 0.01 * gradients(encoder, decoder, x)[0]
    assert ((encoder > 0) == (start > 0)).all()
    moved = np.abs(encoder - start).max()
    np.testing.assert_allclose(moved, 8 / 3 * residual / m**0.5, rtol=1e-4)
    args = (1, m, 0.5, 1.0, residual, "flow")
    assert neuron_distance(*args, printed=True).value < moved < neuron_distance(*args).value


def test_lemma_4_2_on_samples():
    """The largest change that three rules of moving find: the mean and the share of failures."""
    n, d, m, radius, delta, seeds = 4, 3, 200, 0.02, 0.3, 60
    x = sphere(3, n, d)
    encoder, decoder = draw(4, seeds, d, m)
    found = np.zeros(seeds)

    def grams(encoder):
        slopes = (x @ encoder > 0)[:, :, None, :] * decoder[:, None]
        flat = slopes.reshape(seeds, n * d, m)
        return flat @ flat.swapaxes(-1, -2) / m * np.kron(x @ x.T, np.ones((d, d)))

    start = grams(encoder)
    nearest = np.argmin(np.abs(x @ encoder), axis=1)
    for toward in (x[0][:, None], -x[0][:, None], None):
        if toward is None:  # across the kink that is nearest
            pick = np.take_along_axis(x @ encoder, nearest[:, None], axis=1)
            toward = -np.sign(pick) * x[nearest].swapaxes(-1, -2)
        found = np.maximum(found, norm(grams(encoder + radius * toward) - start))
    assert found.mean() <= gram_perturbation(n, d, radius).value
    assert np.mean(found > gram_perturbation(n, d, radius, delta).value) <= delta
    assert found.min() > 0


def test_pattern_changes_and_lemma_a_4():
    radii = np.geomspace(1e-4, 2, 30)
    exact = special.erf(radii / math.sqrt(2))
    assert (exact <= pattern_change_probability(radii).value).all()
    # |S_i^⊥| ≤ Binomial(m, erf(R/√2)), whose tail is known, for each of n samples.
    for m in (10, 1000):
        tail = stats.binom.sf(np.floor(pattern_flips(m, radii).value), m, exact)
        assert (5 * tail <= pattern_flips_failure(5, m, radii).value).all()


def test_equation_4_12_is_met_with_equality_at_the_proofs_choices():
    n, d = np.array([1, 5, 20])[:, None], np.array([1, 4, 30])[None, :]
    lambda_0, lambda_n = 0.1, 2.0
    step, radius = lambda_0 / (4 * n * d * lambda_n), lambda_0 / (64 * n * d)
    factor = contraction_factor(n, d, lambda_0, lambda_n, step, radius).value
    assert factor.shape == (3, 3)
    np.testing.assert_allclose(1 - factor, step * lambda_0 / (2 * d), rtol=1e-7)


def test_claim_b_3_is_printed_with_m_for_n():
    """The proof's ‖v_2‖² ≤ 16 n² R² η² ‖r‖², and C_3 ≤ 2 ‖r‖ ‖v_2‖."""
    n, step, radius = 7, 0.3, 0.01
    chain = 2 * math.sqrt(16 * n**2 * radius**2 * step**2)
    np.testing.assert_allclose(unstable_change_term(n, step, radius).value, chain)
    printed = unstable_change_term(n, step, radius, m=700, printed=True).value
    np.testing.assert_allclose(printed, 100 * chain)
    with pytest.raises(ValueError, match=r"m is None; the printed Claim B.3 needs the width"):
        unstable_change_term(n, step, radius, printed=True)


def test_printed_terms_of_the_joint_claims():
    """What the proofs' norms, 2√m, give for the corrected terms: powers and constants."""
    n, d, m, lambda_n, step = 3, 5, 400, 2.0, 0.1
    size = 2 * m**0.5
    norms = WeightNorms(size, size, size * lambda_n**0.5)
    found = joint_unstable_gram_term(d, m, lambda_n, step, norms).value
    np.testing.assert_allclose(found, 16 * step * lambda_n / d)
    found = joint_unstable_change_term(n, d, m, lambda_n, step, norms).value
    np.testing.assert_allclose(found, 16 * step * (n * lambda_n) ** 0.5 / d)
    found = joint_second_order_term(n, d, m, lambda_n, step, 1.0, norms).value
    printed = joint_second_order_term(n, d, m, lambda_n, step, 1.0, norms, printed=True).value
    np.testing.assert_allclose(found, printed / (m * d) ** 0.5)
    found = joint_squared_change_term(d, m, lambda_n, step, norms).value
    printed = joint_squared_change_term(d, m, lambda_n, step, norms, printed=True).value
    np.testing.assert_allclose(found, printed * m / d)


@pytest.mark.parametrize("gaussian", [False, True])
def test_the_initial_error(gaussian):
    n, d, m, seeds, delta = 5, 3, 50, 4000, 0.2
    x = sphere(5, n, d)
    u = outputs(*draw(6, seeds, d, m, gaussian), x)[1]
    squared = frobenius(x - u) ** 2
    error = squared.std(ddof=1) / seeds**0.5
    assert abs(squared.mean() - expected_initial_error(n).value) < 4 * error
    bound = initial_error(n, delta).value
    assert np.mean(squared > bound) <= delta
    assert bound < initial_error(n, delta, printed=True).value == 2 * n / delta


def test_distances_of_both_layers_solve_their_equations():
    args = (3, np.array([500.0, 5000.0]), 0.2, 1.5, 0.4)
    for dynamics in ("flow", "descent"):
        for printed in (False, True):
            r_w, r_a = joint_distances(*args, 60.0, 40.0, dynamics, printed=printed)
            again = joint_encoder_distance(*args, 60.0, r_a.value, dynamics).value
            np.testing.assert_allclose(again, r_w.value, rtol=1e-12)
            again = joint_decoder_distance(*args, 40.0, r_w.value, dynamics, printed=printed).value
            np.testing.assert_allclose(again, r_a.value, rtol=1e-12)
    r_w, r_a = joint_distances(3, 10.0, 0.2, 1.5, 4.0, 60.0, 40.0, "flow")
    assert np.isinf([r_w.value, r_a.value]).all()


def test_descent_with_small_steps_is_promised_half_the_rate_of_the_flow():
    flow = error_decay_flow(2.0, 3, 0.4).value
    descent = error_decay_descent(2e6, 3, 0.4, 1e-6).value
    np.testing.assert_allclose(descent**2, flow, rtol=1e-6)


def test_arrays_traces_and_dtypes(dtype):
    lambda_0 = jnp.asarray([0.1, 0.2], dtype)
    value = error_decay_flow(jnp.asarray([1.0, 2.0], dtype)[:, None], 2, lambda_0[None]).value
    assert value.shape == (2, 2)
    assert value.dtype == dtype
    compiled = jax.jit(lambda l: neuron_distance(3, 100, l, 1.5, 2.0, "flow").value)(lambda_0)
    direct = neuron_distance(3, 100, np.asarray(lambda_0), 1.5, 2.0, "flow").value
    np.testing.assert_allclose(compiled, direct, rtol=1e-6)


def test_errors_at_the_door():
    with pytest.raises(ValueError, match="dynamics is 'sgd'; expected one of"):
        neuron_distance(3, 10, 0.1, 1.0, 1.0, "sgd")
    with pytest.raises(ValueError, match="lambda_0 is 0"):
        error_decay_flow(1.0, 3, 0)
    with pytest.raises(ValueError, match=r"delta is 1\.0; expected a probability"):
        initial_error(3, 1.0)
    with pytest.raises(ValueError, match=r"d is 2\.5; expected a whole number"):
        kernel_term(2.5, 0.1, 0.1)
    with pytest.raises(ValueError, match="radius is -1"):
        pattern_change_probability(-1)
    with pytest.raises(ValueError, match="features is -1"):
        joint_unstable_gram_norm(10, 1.0, WeightNorms(1.0, 1.0, -1.0))
