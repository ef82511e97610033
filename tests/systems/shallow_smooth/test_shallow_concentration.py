"""How far M_0 is from its mean, the Lipschitz constant of Lemma 6, and p_1 to p_5 with ψ."""

import functools
import math

import helpers
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import gammaincc, ndtr

from ntkflow.systems.shallow_smooth import bounds, concentration, failure, setting
from ntkflow.systems.shallow_smooth.exponents import Exponents
from ntkflow.systems.shallow_smooth.network import gelu
from ntkflow.systems.shallow_smooth.requirements import smallest_integer
from ntkflow.systems.shallow_smooth.setting import DataConstants, Slack
from ntkflow.systems.shallow_smooth.spectra import ActivationConstants, constants

ONCE = Slack(k_1=1.0)  # (60) with k₁ = 1 holds of every draw below
IDENTITY = ActivationConstants(1.0, 0.0, np.array([0.0, 1.0, 0.0]), 0.0, Exponents(1.0, 1.0))
numbers = functools.cache(functools.partial(constants, terms=41))


@functools.cache
def inputs(n=20, d_0=10):
    x = np.asarray(helpers.samples(0, n, d_0))
    return x / np.linalg.norm(x, axis=1)[:, None]


@functools.cache
def data_of():
    return setting.data_constants(inputs(), 2)


@functools.cache
def deviations(omega1=1.0, seeds=30):
    """‖M_0 − E M_0‖ at d_1 = 2000, that of its first 200 neurons, the largest ‖w_i‖ and
    ‖φ(Xᵀw_i)‖; GELU."""
    x, phi = inputs(), numbers(gelu, scale=omega1)
    gram = x @ x.T
    mean = sum(c**2 / math.factorial(i) * gram**i for i, c in enumerate(phi.coefficients))
    np.fill_diagonal(mean, phi.coefficients[0] ** 2 + phi.coefficients[1] ** 2 + phi.tail)
    wide, narrow, *norms = map(np.array, zip(*_draws(seeds, omega1), strict=True))
    gaps = [
        np.linalg.norm(grams - width * mean, 2, axis=(-2, -1))
        for grams, width in ((wide, 2000), (narrow, 200))
    ]
    return *gaps, *norms


def _draws(seeds, omega1):
    generator = np.random.default_rng(1)
    for _ in range(seeds):
        hidden = omega1 * generator.standard_normal((10, 2000))
        inner = inputs() @ hidden
        features = inner * ndtr(inner)
        some = features[:, :200]
        norms = (np.linalg.norm(a, axis=0).max() for a in (hidden, features))
        yield features @ features.T, some @ some.T, *norms


@pytest.mark.quick
def test_printed_tail_of_the_gram_is_violated_and_the_corrected_holds():
    d_1, data = 2000, data_of()
    gaps, _, longest, _ = deviations()
    assert np.all(longest <= concentration.weight_norm(10, d_1, 1.0, 1.0).value)  # (60)

    def share(k_3, printed):
        bound = concentration.gram_deviation(
            numbers(gelu), data, d_1, 1.0, k_3, slack=ONCE, printed=printed
        )
        return np.mean(gaps > bound.value)

    for k_3 in (1.0, 1.5):  # of probability at most 0.37 and 0.11, if it were right
        error = (np.exp(-(k_3**2)) / len(gaps)) ** 0.5
        assert share(k_3, printed=True) > np.exp(-(k_3**2)) + 3 * error
        assert share(k_3, printed=False) == 0


def test_deviation_grows_like_the_root_of_the_width_and_the_square_of_omega():
    data, phi = data_of(), numbers(gelu)
    wide, narrow, *_ = deviations()
    small, *_ = deviations(0.1)
    for gaps, d_1, omega1 in ((wide, 2000, 1.0), (narrow, 200, 1.0), (small, 2000, 0.1)):
        bound = concentration.gram_deviation(phi, data, d_1, omega1, 1.0, slack=ONCE).value
        assert np.all(gaps <= bound)
    assert np.median(wide) / np.median(narrow) == pytest.approx(10**0.5, rel=0.3)
    # φ(z) ≈ z/2 for small z: M_0 scales like ω₁², the printed k_3 κ like ω₁
    assert np.median(small) / np.median(wide) < 0.01


def test_lipschitz_constant_is_reached_and_the_printed_one_exceeded():
    # Equal rows along the first singular direction, of the largest norm that (60) allows.
    d_1, x, data = 100, inputs(), data_of()
    radius = concentration.weight_norm(10, d_1, 0.5, 1.0).value
    row = np.linalg.svd(x)[2][0] * radius
    first, second = np.tile(row, (d_1, 1)), np.tile(row * (1 - 1e-6), (d_1, 1))
    gram = lambda w: (x @ w.T) @ (x @ w.T).T  # noqa: E731
    change = np.linalg.norm(gram(first) - gram(second), 2) / np.linalg.norm(first - second)
    args = (IDENTITY, data, d_1, 0.5)
    right = concentration.gram_lipschitz(*args, slack=ONCE).value
    printed = concentration.gram_lipschitz(*args, slack=ONCE, printed=True).value
    assert change == pytest.approx(right, rel=2e-6)
    assert right / printed == pytest.approx(d_1**0.5 / 2)


def test_lipschitz_constant_holds_of_random_pairs():
    # Of tanh, whose slope is that of the identity.
    d_1, x, data = 50, inputs(), data_of()
    bound = concentration.gram_lipschitz(IDENTITY, data, d_1, 1.0, slack=ONCE).value
    radius = concentration.weight_norm(10, d_1, 1.0, 1.0).value
    pairs = 3 * np.random.default_rng(2).standard_normal((20, 2, d_1, 10))
    pairs *= np.minimum(1, radius / np.linalg.norm(pairs, axis=-1))[..., None]
    one, two = np.moveaxis(np.tanh(pairs @ x.T), 1, 0)
    gram = lambda features: features.swapaxes(-1, -2) @ features  # noqa: E731
    gaps = np.linalg.norm(gram(one) - gram(two), 2, axis=(-2, -1))
    distances = np.linalg.norm(pairs[:, 0] - pairs[:, 1], axis=(-2, -1))
    assert np.all(gaps <= bound * distances)
    assert np.all(gaps >= bound * distances / 1000)


def test_printed_p_2_is_violated_and_the_corrected_holds():
    # One input and φ(z) = z: M_0 = χ² of d_1 degrees, σ_min(M_0) < (1 − δ) d_1 for δ = √(2/d_1).
    d_1, seeds = 10_000, 200
    draws = np.random.default_rng(3).standard_normal((seeds, d_1))
    gram = np.sum(np.square(draws), axis=1)
    slack = Slack(delta_1=(2 / d_1) ** 0.5, delta_2=(2 / d_1) ** 0.5, k_1=1.0)
    data = DataConstants(n=1, d_0=10, norm=1.0, power=1.0, t=1)
    for failing, probability in (
        (gram <= (1 - slack.delta_1) * d_1, failure.smallest_gram_failure),
        (gram >= (1 + slack.delta_2) * d_1, failure.largest_gram_failure),
    ):
        share, error = np.mean(failing), np.std(failing) / seeds**0.5
        printed = probability(IDENTITY, data, d_1, 1.0, slack=slack, printed=True).value
        assert share - 4 * error > 0.02 > 1e4 * printed
        assert share - 4 * error <= probability(IDENTITY, data, d_1, 1.0, slack=slack).value


def test_lemma_6_corrected_asks_for_n_squared_and_matrix_chernoff_for_n():
    phi = numbers(gelu)

    def lipschitz(data, d_1):
        gap = concentration.gram_deviation(phi, data, d_1, 1.0, 1.0).value
        return gap <= 0.5 * bounds.expected_gram_smallest(phi, data, d_1).value

    def chernoff(data, d_1):
        return failure.smallest_gram_failure(phi, data, d_1, 1.0).value <= np.exp(-1)

    n = np.array([1e4, 1e8])
    for suffices, power in ((lipschitz, 2), (chernoff, 1)):
        widths = [
            smallest_integer(
                lambda d_1, data=data, suffices=suffices: bool(suffices(data, d_1)),
                start=3,
                largest=10**40,
            )
            for data in (setting.order_estimates(m, m**0.5) for m in n)
        ]
        slope = np.log(widths[1] / widths[0]) / np.log(n[1] / n[0])
        assert slope == pytest.approx(power, abs=0.25)  # logarithms apart


def test_chernoff_bounds_of_the_gram():
    data = DataConstants(n=4, d_0=4, norm=1.0, power=1.0, t=1)
    slack = Slack(delta_1=0.3, delta_2=0.4)
    d_1 = 50_000
    ratio = d_1 / (4 * 4 * math.log(d_1))  # B/(ℓR)² of the identity, k₁ = 2
    rest = d_1 * 4 * concentration.truncation(data, d_1, slack)
    assert rest < 1e-20  # what (60) cuts off
    smallest = failure.smallest_gram_failure(IDENTITY, data, d_1, 1.0, slack=slack).value
    assert smallest == pytest.approx(4 * (math.exp(-0.3) / 0.7**0.7) ** ratio)
    largest = failure.largest_gram_failure(IDENTITY, data, d_1, 1.0, slack=slack).value
    assert largest == pytest.approx(4 * (math.exp(0.4) / 1.4**1.4) ** ratio)


def test_truncation_bounds_what_lies_beyond():
    slack = Slack(k_1=0.8)
    data = DataConstants(n=4, d_0=4, norm=1.0, power=1.0, t=1)
    for d_1 in (3, 100, 10_000):
        limit = 0.64 * 4 * math.log(d_1)
        exact = float(gammaincc(3.0, limit / 2))  # P(χ²_6 > limit)
        assert exact <= concentration.truncation(data, d_1, slack) <= 1
    # E[‖w‖²; ‖w‖ > R] = ω₁²d_0 P(χ²_{d_0+2} > (R/ω₁)²)
    squares = np.sum(np.square(np.random.default_rng(4).standard_normal((100_000, 4))), axis=1)
    beyond = np.where(squares > limit, squares, 0.0)
    error = beyond.std() / 100_000**0.5
    assert beyond.mean() == pytest.approx(4 * exact, abs=4 * error)


def test_weight_norm_failure_bounds_the_probability():
    slack = Slack(k_1=1.1, k_2=1.7)
    for d_1 in (10, 1000):
        tails = [
            d_1 * float(gammaincc(d / 2, k**2 * d * math.log(d_1) / 2))
            for d, k in ((5.0, 1.1), (2.0, 1.7))
        ]
        bound = failure.weight_norm_failure(5, d_1, 2, slack=slack).value
        assert min(sum(tails), 1) <= bound <= 1
    printed = failure.weight_norm_failure(5, 1000, 2, slack=slack, printed=True, constant=0.5)
    assert printed.value == pytest.approx(1000**-2.75 + 1000**-1.7)
    assert printed.constant == 0.5
    assert failure.weight_norm_failure(5, 1, 2).value == 1  # log 1 = 0: (60) never holds


def test_neuron_feature_norm_holds():
    data, phi = data_of(), numbers(gelu)
    _, _, longest, norms = deviations()
    k = longest / (10 * math.log(2000)) ** 0.5  # (60), reached
    bound = concentration.neuron_feature_norm(phi, data, 2000, 1.0, slack=Slack(k_1=k)).value
    assert np.all(norms <= bound)
    np.testing.assert_allclose(bound, phi.slope * data.norm * longest)


def test_constants_of_p_4_and_p_5():
    assert failure.output_norm_failure(40).value == pytest.approx(math.exp(-20))
    assert failure.output_norm_failure(40, constant=0.1).value == pytest.approx(math.exp(-4))
    assert failure.initial_output_failure(3.0).value == pytest.approx(2 * math.exp(-4.5))
    assert failure.initial_output_failure(0.5).value == 1  # clipped
    printed = failure.initial_output_failure(3.0, constant=1.0, printed=True)
    assert printed.value == pytest.approx(math.exp(-9))


@pytest.mark.parametrize("printed", [False, True])
def test_failure_probability_is_a_probability_that_falls_with_the_width(printed):
    data, phi = data_of(), numbers(gelu)
    widths = 10.0 ** np.arange(1, 9)
    psi = failure.failure_probability(phi, data, widths, 3, 1.0, printed=printed).value
    assert np.all((psi >= 0) & (psi <= 1))
    assert np.all(np.diff(psi) <= 0)
    assert psi[0] == 1
    assert psi[-1] < 0.03
    mapped = helpers.compiled(
        jax.vmap(lambda d: failure.failure_probability(phi, data, d, 3, 1.0, printed=printed).value)
    )
    helpers.assert_close(mapped(jnp.asarray(widths)), psi, factor=1e6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: concentration.weight_norm(10, 100, omega=0.0), "omega1 is 0.0"),
        (lambda: concentration.weight_norm(10, 0.5, 1.0), "d_1 is 0.5"),
        (
            lambda: concentration.gram_deviation(IDENTITY, data_of(), 10, 1.0, -1.0),
            "k_3 is -1.0; expected 0 or greater",
        ),
        (lambda: failure.output_norm_failure(10, constant=-1.0), "constant is -1.0"),
        (lambda: failure.weight_norm_failure(5, 9, 2, slack=Slack(k_1=-1.0)), "k_1 is -1.0"),
    ],
)
def test_refuses(call, message):
    with pytest.raises(ValueError, match=message):
        call()
