"""Escape times: in closed form, step by step, and by a loop in NumPy's 80-bit floating point."""

import decimal
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import assert_close, compiled

from ntkflow.systems.saddles import bounds
from ntkflow.systems.saddles.arguments import Constants
from ntkflow.systems.saddles.escape import (
    escape_times,
    perturbed_escape_times,
    simulate,
    simulate_perturbed,
)
from ntkflow.systems.saddles.lipschitz import smoothness
from ntkflow.systems.saddles.octopus import octopus, stage
from ntkflow.systems.saddles.scaled import Scaled, to_scaled
from ntkflow.training.descent import descend

TAU = math.e
START = np.random.default_rng(0).uniform(-1, 1, 5)
TABLE = {  # L: first t with |x_1|, …, |x_i| ≥ 2τ from START, at γ = 1, τ = e, η = 1/(4L)
    1.0: [8, 26, 72, 198, 539],
    1.5: [11, 42, 146, 500, 1708],
    2.0: [13, 61, 256, 1054, 4334],
    math.e: [17, 95, 491, 2510, 12820],
    3.0: [18, 111, 613, 3372, 18539],
}
NOISE = {"radius": TAU / 100, "gradient_threshold": TAU / 100, "waiting_time": 1}


def reference(starts, smoothness, step_size, limit, curvature=1.0, kind=np.longdouble):
    """Gradient descent on the octopus, of many starts (n, d) at once, as the thesis prints it.

    L, η and γ are numbers, or one of each start. Its own splines, and 80-bit numbers, whose
    exponents reach to 2^−16445. Returns A_k and T_k.
    """
    z, (n, d), tau = np.abs(starts).astype(kind), starts.shape, kind(TAU)
    big, eta, small = (np.full(n, value, kind) for value in (smoothness, step_size, curvature))
    left, right, bend = -2 * small * tau, -4 * big * tau, 2 * big
    secant = (right - left) / tau
    c_2 = (3 * secant - bend + 4 * small) / tau
    c_3 = -(2 * secant - bend + 2 * small) / tau**2
    buffer, times = np.full(z.shape, np.inf), np.full(z.shape, np.inf)
    for t in range(limit + 1):
        behind = np.cumprod(z >= 2 * tau, axis=1).astype(bool)
        previous = np.column_stack([np.ones(len(z), bool), behind[:, :-1]])
        buffer[(previous & (z >= tau)) & np.isinf(buffer)] = t
        times[behind & np.isinf(times)] = t
        if np.isfinite(times).all():
            break
        slope = 2 * big[:, None] * z  # waiting
        for i in range(d):
            active = previous[:, i] & ~behind[:, i]
            crossing = active & (z[:, i] > tau)
            u, delta = z[:, i] - 2 * tau, z[:, i] - tau
            cubic = left - 2 * small * delta + c_2 * delta**2 + c_3 * delta**3
            both = big + small
            g_2 = -small - both * (10 * (u / tau) ** 3 + 15 * (u / tau) ** 4 + 6 * (u / tau) ** 5)
            bent = -30 * both * u**2 * delta**2 / tau**5
            after = z[:, i + 1] if i + 1 < d else 0 * u
            slope[:, i] = np.where(active, -2 * small * z[:, i], slope[:, i])
            slope[:, i] = np.where(crossing, cubic + bent * after**2, slope[:, i])
            if i + 1 < d:
                slope[:, i + 1] = np.where(crossing, 2 * g_2 * after, slope[:, i + 1])
        slope = np.where(behind, 2 * big[:, None] * (z - 4 * tau), slope)
        z = np.abs(z - eta[:, None] * slope)
    return buffer, times


LONG = np.concatenate([START, np.random.default_rng(2).uniform(-1, 1, 45)])


@pytest.mark.quick
def test_closed_form_times_are_those_of_the_table_and_grow_as_predicted(dtype):
    """In fifty dimensions; the time at which a stage is entered does not depend on later ones."""
    for big, expected in TABLE.items():
        times = escape_times(jnp.asarray(LONG, dtype), Constants(big), step_size=0.25 / big).stage
        assert times.dtype == dtype
        assert times[:5].tolist() == expected
        limit = float(bounds.growth_ratio(Constants(big), step_size=0.25 / big).value)
        assert abs(limit - (1 + math.log(2) / math.log(1 + 0.5 / big))) < 1e-12
        assert limit > 1 + big
        times = np.asarray(times)
        assert abs(times[11:40] / times[10:39] / limit - 1).max() < 1e-4


def exact(start, big, eta, limit):
    """Escape times up to a limit in decimal numbers of 60 digits, each wait a logarithm."""
    with decimal.localcontext(prec=60):
        x = [abs(decimal.Decimal(float(value))) for value in start]
        big, tau, eta = (decimal.Decimal(float(value)) for value in (big, TAU, eta))
        growth, decay = (1 + 2 * eta).ln(), (1 - 2 * eta * big).ln()
        c_2 = (3 * (2 - 4 * big) - 2 * big + 4) / tau
        c_3 = -(2 * (2 - 4 * big) - 2 * big + 2) / tau**2
        log, t, found = x[0].ln(), 0, []
        for after in x[1:]:
            wait = ((tau.ln() - log) / growth).to_integral_value(decimal.ROUND_CEILING)
            t += int(wait)
            z, log = (log + wait * growth).exp(), after.ln() + t * decay
            while z < 2 * tau:
                u, v = z / tau - 2, z - tau
                slope = -2 * tau - 2 * v + c_2 * v**2 + c_3 * v**3
                slope -= 30 * (big + 1) * u**2 * v**2 / tau**3 * (2 * log).exp()
                g_2 = -1 - (big + 1) * (10 * u**3 + 15 * u**4 + 6 * u**5)
                z, log, t = z - eta * slope, log + (1 - 2 * eta * g_2).ln(), t + 1
            if t > limit:
                return found
            found.append(t)


@pytest.mark.parametrize(("kind", "limit"), [("float32", 1e5), ("float64", 1e13)])
def test_closed_form_times_are_right_to_the_step_up_to_the_stated_size(kind, limit):
    """Beyond, to rounding. The same numbers in both: L, τ and η as they are stored."""
    start = np.asarray(LONG, kind)
    for big, eta in ((3.0, 1 / 12), (math.e, 0.02)):
        stored = [np.asarray(value, kind) for value in (big, eta)]
        times = np.asarray(escape_times(start, Constants(big), step_size=eta).stage, float)
        right = np.array(exact(start, *stored, 1e3 * limit), float)
        count = (right < limit).sum()
        assert count > 4
        np.testing.assert_array_equal(times[:count], right[:count])
        error = abs(times[: len(right)] / right - 1).max()
        assert error < 100 * np.finfo(kind).eps


def test_descent_in_float32_reaches_the_minimum_too():
    """In scaled arithmetic; `test_closed_form_steps_and_numpy_agree` holds the same in float64."""
    bigs = [math.e, 3.0]
    one = lambda big: simulate(  # noqa: E731
        jnp.asarray(START, "float32"),
        Constants(smoothness=big),
        step_size=0.25 / big,
        steps=18600,
        every=18600,
    )
    run = jax.device_get(compiled(jax.vmap(one))(jnp.array(bigs, "float32")))
    assert run.objective.dtype == np.float32
    np.testing.assert_array_equal(run.times.stage, [TABLE[big] for big in bigs])
    assert run.inside.all()
    # Stage 5 is entered 61 steps before the end at L = 3, each of which halves the distance.
    lowest = [-5 * (37 * big + 13) * TAU**2 / 6 for big in bigs]
    assert_close(run.objective[:, -1], np.asarray(lowest, "float32"))


def test_plain_floating_point_never_gets_there():
    """The trap: the waiting coordinate has become 0, or the smallest number that there is."""

    def run(big, x):
        value = lambda x, _: octopus(x, Constants(big))  # noqa: E731
        observe = {"stage": lambda s: stage(s.params, Constants(big))}
        trajectory = descend(value, optax.sgd(0.25 / big), 19000, observe=observe, every=19000)
        return trajectory(x, None).history["stage"][-1]

    plain = compiled(run)
    assert plain(jnp.array(math.e), jnp.asarray(START)) == 4
    assert plain(jnp.array(3.0), jnp.asarray(START)) == 4
    assert plain(jnp.array(1.0), jnp.asarray(START)) == 5
    # In float32 at L = 1 too, where stage 5 is due at step 539.
    assert plain(jnp.array(1.0, "float32"), jnp.asarray(START, "float32")) < 5


def inverse_lipschitz(big, small):
    return 1 / float(smoothness(2, Constants(big, small)).gradient_lipschitz)


SETTINGS = (  # (L, γ, η): 1/ℓ, where 1 − 2ηL is not ½, the experiments' 1/(4L), close to 1/(2L)
    (1.0, 1.0, inverse_lipschitz(1.0, 1.0)),
    (2.0, 0.9, 0.125),
    (1.2, 1.0, 0.4),
)
CASES = {  # a start in five dimensions, L, γ, η
    **{f"L = {big}": (START, big, 1.0, 0.25 / big) for big in TABLE},
    "a corner": ([1.0, -1.0, 1.0, 1.0, 1.0], 1.5, 1.0, 0.1),
    "far below floats": ([1e-9, 1.0, -1e-200, 1e-3, 1e-300], 1.5, 1.0, 0.1),
    "in the first buffer": ([4.0, 0.5, 0.1, -0.2, 0.3], 1.5, 1.0, 0.1),
    "behind the first saddle": ([9.0, -4.5, 2.0, 0.1, 0.1], 1.5, 1.0, 0.1),
    "at τ": ([TAU, 0.5, 0.1, -0.2, 0.3], 1.5, 1.0, 0.1),
    "below τ": ([np.nextafter(TAU, 0), 0.5, 0.1, -0.2, 0.3], 1.5, 1.0, 0.1),
    "at 4τ, 2τ and τ": ([-4 * TAU, 2 * TAU, -TAU, 0.1, 0.1], 1.5, 1.0, 0.1),
    "below 2τ": ([4 * TAU, np.nextafter(2 * TAU, 0), 0.1, 0.1, 0.1], 1.5, 1.0, 0.1),
    "behind the second": ([-8.0, 7.0, 1.0, 0.4, 0.1], 1.5, 1.0, 0.1),
    "zero at 1": ([0.0, 0.5, 0.5, 0.5, 0.5], 1.5, 1.0, 0.1),
    "zero at 3": ([0.5, 0.5, 0.0, 0.5, 0.5], 1.5, 1.0, 0.1),
    "zero at 5": ([0.5, 0.5, 0.5, 0.5, -0.0], 1.5, 1.0, 0.1),
    "largest step": ([0.5, 0.5, 0.5, 0.5, 0.5], 2.0, 1.0, 0.25),
    "leaves": ([4.9, 2.71, 0.1, 0.1, 0.1], 1.0, 1.0, 0.001),
}
STEPS, RUNS = 2600, 8


@pytest.fixture(scope="module")
def many():
    """All of `CASES`, and random starts in each of `SETTINGS`: 2600 steps, and as many more."""
    random = np.random.default_rng(1).uniform(-1, 1, (len(SETTINGS), RUNS, 5))
    starts = np.concatenate([[case[0] for case in CASES.values()], *random])
    rows = [case[1:] for case in CASES.values()] + [s for s in SETTINGS for _ in range(RUNS)]
    big, small, eta = np.array(rows).T
    constants = Constants(big, small, np.full_like(big, TAU))
    step = lambda x, constants, eta: simulate(  # noqa: E731
        x, constants, step_size=eta, steps=STEPS, every=STEPS
    )
    stepped = compiled(jax.vmap(step))
    first = jax.device_get(stepped(Scaled(*np.frexp(starts)), constants, eta))
    second = stepped(Scaled(*(part[:, -1] for part in first.x)), constants, eta)
    closed = lambda x, constants, eta: escape_times(x, constants, step_size=eta)  # noqa: E731
    times = compiled(jax.vmap(closed))(starts, constants, eta)
    return jax.device_get((first, second, times, random))


def test_closed_form_steps_and_numpy_agree_from_many_starts(many):
    first, _, times, random = many
    rows = np.arange(len(first.inside)) != list(CASES).index("leaves")
    assert first.inside[rows].all()
    for fast, slow in zip(times, first.times, strict=True):
        np.testing.assert_array_equal(np.where(fast <= STEPS, fast, np.inf)[rows], slow[rows])
    table = np.array(list(TABLE.values()))
    np.testing.assert_array_equal(times.stage[:5], table)
    assert (table > STEPS).sum() == 4
    assert first.x.exponent.min() < -1074  # where float64 ends
    limit, (big, small, eta) = 600, np.repeat(SETTINGS, RUNS, axis=0).T
    buffer, expected = reference(random.reshape(-1, 5), big, eta, limit, small)
    assert (np.isfinite(expected).reshape(len(SETTINGS), -1).mean(axis=1) > 0.5).all()
    for found, right in ((times.stage, expected), (times.buffer, buffer)):
        runs = found[len(CASES) :]
        np.testing.assert_array_equal(np.where(runs <= limit, runs, np.inf), right)


def test_two_runs_in_a_row_are_one_long_run(many):
    first, second, times, _ = many
    rows = np.arange(len(first.inside)) != list(CASES).index("leaves")
    left = np.maximum(times.stage - STEPS, 0)
    assert ((left > 0) & (left <= STEPS)).any()
    np.testing.assert_array_equal(
        second.times.stage[rows], np.where(left <= STEPS, left, np.inf)[rows]
    )


def test_starts_in_the_middle_of_the_domain_are_told_apart(many):
    _, _, times, _ = many
    stage = dict(zip(CASES, times.stage, strict=False))
    assert stage["in the first buffer"][0] < 3
    assert stage["behind the first saddle"][0] == 0
    assert 0 < stage["behind the first saddle"][1] < 3
    assert stage["at 4τ, 2τ and τ"][:2].tolist() == [0, 0]
    assert stage["below 2τ"][:2].tolist() == [0, 1]
    assert stage["behind the second"][:2].tolist() == [0, 0]


def test_a_coordinate_at_zero_never_leaves(many):
    """Said by inf, at once, also in a closed form that loops over crossings."""
    first, _, times, _ = many
    for zero in (1, 3, 5):
        row = list(CASES).index(f"zero at {zero}")
        assert np.isfinite(times.stage[row, : zero - 1]).all()
        assert np.isinf(times.stage[row, zero - 1 :]).all()
        assert np.isinf(times.buffer[row, zero - 1 :]).all()
        assert first.stage[row, -1] == zero - 1
        assert first.x.mantissa[row, -1, zero - 1] == 0
    # Steps of 5e-18 do not move 3.0: said at once too.
    assert np.isnan(escape_times(jnp.full(1, 3.0), step_size=1e-18).stage)
    alone = escape_times(jnp.zeros(1), step_size=0.05)
    assert alone.stage.tolist() == alone.buffer.tolist() == [math.inf]
    assert escape_times(jnp.ones(1), step_size=0.05).stage.tolist() == [
        reference(np.ones((1, 1)), math.e, 0.05, 100)[1][0, 0]
    ]


def test_at_the_largest_step_size_waiting_coordinates_become_zero(many):
    first, _, times, _ = many
    row = list(CASES).index("largest step")
    assert np.isfinite(times.stage[row, 0])
    assert np.isinf(times.stage[row, 1:]).all()
    assert first.x.mantissa[row, -1, 1:].tolist() == [0.0] * 4
    assert first.inside[row]


def test_iterates_beyond_the_domain_are_data(many):
    """From beyond [−1, 1]: at a small η, x_2 grows past τ before x_1 has crossed its buffer."""
    first, _, times, _ = many
    row = list(CASES).index("leaves")
    assert not first.inside[row]
    assert np.isnan(first.objective[row, -1])
    assert np.isnan(times.stage[row]).all()
    assert times.buffer[row, 0] == 0


@pytest.fixture(scope="module")
def perturbed():
    """Ten starts in ten dimensions at L = 1, and their times."""
    starts = np.random.default_rng(3).uniform(-1, 1, (10, 10))
    keys = jax.random.split(jax.random.key(0), 10)
    settings = {"step_size": 0.25, **NOISE}
    run = lambda key, x: simulate_perturbed(  # noqa: E731
        key, x, Constants(1.0), steps=320, every=1, **settings
    )
    times = lambda key, x: perturbed_escape_times(  # noqa: E731
        key, x, Constants(1.0), limit=100, **settings
    )
    together = lambda key, x: (run(key, x), times(key, x))  # noqa: E731
    # Of plain descent by the program for fifty dimensions: earlier stages know nothing of later.
    plain = [
        escape_times(jnp.asarray([*x, *LONG[10:]]), Constants(1.0), step_size=0.25).stage
        for x in starts
    ]
    return *jax.device_get(compiled(jax.vmap(together))(keys, starts)), np.asarray(plain)[:, :10]


def test_perturbed_descent_takes_a_time_linear_in_the_dimension(perturbed):
    run, _, plain = perturbed
    assert run.inside.all()
    intervals = np.diff(np.asarray(run.times.stage), axis=1)[:, 1:]
    assert np.isfinite(intervals).all()
    mean, error = intervals.mean(axis=0), intervals.std(axis=0) / 10**0.5
    # Every saddle takes the same time, 24 steps, where plain descent takes 2.7 times the last's.
    assert (abs(mean - mean.mean()) < 4 * error + 1).all()
    assert 20 < mean.mean() < 30
    assert (plain[:, -1] > 100 * run.times.stage[:, -1]).all()
    # Noise is bounded by r = τ/100, and the minimum is found.
    size = np.abs(np.ldexp(*run.x))[:, -1]
    assert np.linalg.norm(size - 4 * TAU, axis=-1).max() < 2 * TAU / 100


def test_perturbed_times_are_those_of_the_recorded_run(perturbed):
    """Up to the limit: inf beyond."""
    run, times, _ = perturbed
    for one, other in zip(run.times, times, strict=True):
        np.testing.assert_array_equal(np.where(one <= 100, one, np.inf), other)
    assert np.isinf(times.stage).any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": jnp.array([0.5, 9.0])}, "outside of the domain: coordinate 2"),
        ({"x": to_scaled(jnp.array([0.5, 9.0]))}, "outside of the domain: coordinate 2"),
        ({"x": jnp.full((2, 3), 0.5)}, r"expected one start \(d,\). For several use jax.vmap"),
        ({"x": jnp.ones(0)}, "points of d ≥ 1"),
        ({"constants": Constants(0.5)}, "expected L ≥ γ"),
        ({"step_size": 0.0}, "step_size is 0.0"),
        ({"step_size": jnp.array([0.1, 0.2])}, "step_size has shape"),
    ],
)
@pytest.mark.parametrize("function", [simulate, simulate_perturbed, escape_times])
def test_they_refuse_at_the_door(function, change, message):
    arguments = {"x": jnp.array([0.5, 0.5]), "constants": Constants(), "step_size": 0.05} | change
    if function is not escape_times:
        arguments["steps"] = 3
    if function is simulate_perturbed:
        arguments |= {"key": jax.random.key(0), **NOISE}
    with pytest.raises(ValueError, match=message):
        function(**arguments)


def test_the_closed_form_refuses_larger_steps_and_the_perturbed_run_bad_noise():
    with pytest.raises(ValueError, match=r"expected 0 < η ≤ 1/\(2L\) = 0\.183"):
        escape_times(jnp.full(2, 0.5), step_size=0.2)
    noise = NOISE | {"radius": -1.0}
    with pytest.raises(ValueError, match="radius is -1"):
        simulate_perturbed(jax.random.key(0), jnp.ones(2), step_size=0.05, steps=3, **noise)
    with pytest.raises(ValueError, match="limit is 0"):
        perturbed_escape_times(jax.random.key(0), jnp.ones(2), step_size=0.05, limit=0, **NOISE)
    with pytest.raises(ValueError, match="limit is 4294967301; expected less than 2³¹"):
        perturbed_escape_times(
            jax.random.key(0), jnp.ones(2), step_size=0.05, limit=2**32 + 5, **NOISE
        )
    with pytest.raises(ValueError, match="steps is 2147483648; expected less than 2³¹"):
        simulate(jnp.ones(2), step_size=0.05, steps=2**31)
