"""Runs held against Theorems 1 and 2: targets near the initial outputs, and far from them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import compiled, samples

from ntkflow.systems.composite import (
    LossConstants,
    NearIsometry,
    accumulate_length,
    ball_radius,
    certificate_gradient_descent,
    certificate_gradient_flow,
    descent_length,
    flow_path_length,
    largest_initial_loss,
    largest_step_size,
    measure_near_isometry,
    observables,
    output_change,
    path_length,
    singular_values,
    singular_values_in_ball,
    squared_loss_constants,
    step_observables,
)
from ntkflow.systems.shallow_smooth.network import ShallowSmooth
from ntkflow.systems.shallow_smooth.spectra import near_isometry
from ntkflow.training.descent import descend
from ntkflow.training.flow import gradient_flow
from ntkflow.training.losses import squared_loss

STEPS = 100
LOSS = functools.partial(squared_loss, reduction="sum")
CONSTANTS = squared_loss_constants("sum")
RATE = "h(w_i) ≤ (1 − ¼ η α μ²)ⁱ h(w₀)"
BALL = "‖w − w₀‖ ≤ ρ_Φ = μ / (2 β_Φ)"


def softplus(z):
    return jax.nn.softplus(z) - jnp.log(2.0).astype(z.dtype)


MODULE = ShallowSmooth(100, omega1=1.0, omega2=0.1, activation=softplus)


def by_statement(certificate):
    return {entry.statement: entry for entry in (*certificate.hypotheses, *certificate.claims)}


@pytest.fixture(scope="module")
def problem():
    """Two seeds: inputs, initial variables, their constants, and a direction of the targets."""
    x = samples(1, 5, 6)
    x = x / jnp.linalg.norm(x, axis=1)[:, None]
    away = samples(2, 5)[:, None]

    def setup(key):
        variables = MODULE.init(key, x)
        reach = 0.6  # ‖V‖ ≤ ‖V₀‖ + 0.6 in the ball, whose radius is smaller
        chi = jnp.linalg.norm(variables["params"]["output"], ord=2) + reach
        return variables, near_isometry(variables, x, softplus, largest_output_norm=chi)

    keys = jax.random.split(jax.random.key(0), 2)
    variables, near = jax.device_get(compiled(jax.vmap(setup))(keys))
    assert (ball_radius(near).value < 0.6).all()
    return x, variables, near, away / jnp.linalg.norm(away)


@pytest.fixture(scope="module")
def descent(problem):
    """Both seeds, from targets at a distance of the initial outputs, with steps of size η."""
    x, *_ = problem

    def run(variables, distance, step_size, away):
        y = MODULE.apply(variables, x) + distance * away
        optimizer = optax.chain(optax.sgd(step_size), accumulate_length())
        observe = step_observables(MODULE.apply, LOSS, step_size)
        trajectory = descend(LOSS(MODULE.apply), optimizer, STEPS, observe=observe)(
            variables, (x, y)
        )
        return trajectory.history, trajectory.steps, path_length(trajectory.state.optimizer)

    program = compiled(jax.vmap(run, in_axes=(0, 0, 0, None)))
    return lambda *arguments: jax.device_get(program(*arguments))


def largest_step(near, distance):
    return largest_step_size(near, CONSTANTS, 2 * distance).value


@pytest.fixture(scope="module")
def near_run(problem, descent):
    """h(w₀) at 0.9 of what (9) allows, and the largest η."""
    _, variables, near, away = problem
    distance = np.sqrt(0.9 * largest_initial_loss(near, CONSTANTS, "descent").value)
    return descent(variables, distance, largest_step(near, distance), away)


@pytest.mark.quick
@pytest.mark.parametrize("sharpened", [False, True])
def test_theorem_2_applies_and_holds(problem, near_run, sharpened):
    *_, near, _ = problem
    history, steps, length = near_run
    certificate = certificate_gradient_descent(
        history, steps, near, CONSTANTS, length=length, sharpened=sharpened
    )
    assert certificate.applies.shape == (2,)
    assert certificate.applies.all()
    assert certificate.holds.all()
    entries = by_statement(certificate)
    assert (entries[RATE].margin > 0).all()
    assert (entries[RATE].ratio < 1).all()
    assert (entries[BALL].ratio < 0.1).all()  # far inside, as the length's bound is not tight
    lengths = next(entry for name, entry in entries.items() if name.startswith("Σ"))
    np.testing.assert_array_equal(lengths.smaller[..., 0], length)
    assert (length >= history["distance"][:, -1]).all()  # longer than the chord
    # The PL condition is an equality, every record one: neither side may be the other by mistake.
    pl = entries["2 α_f f ≤ ‖∇f‖² (PL)"]
    np.testing.assert_allclose(pl.smaller, pl.larger, rtol=1e-6)


def test_the_last_length_bounds_every_record(problem, near_run):
    """Σ ‖w_{i+1} − w_i‖, added up from the records of ‖∇h‖, is what the optimizer counted."""
    history, _, length = near_run
    step_size, norms = np.asarray(history["step_size"]), np.asarray(history["gradient_norm"])
    np.testing.assert_allclose((step_size * norms)[:, :-1].sum(axis=1), length, rtol=1e-6)
    *_, near, _ = problem
    initial = history["loss"][:, 0]
    plain = descent_length(near, CONSTANTS, initial).value
    sharp = descent_length(near, CONSTANTS, initial, sharpened=True).value
    assert (length < sharp).all()
    assert (sharp < plain / 3).all()


def test_steps_that_are_too_large_break_the_hypothesis_and_the_claims(problem, descent):
    _, variables, near, away = problem
    distance = np.sqrt(0.9 * largest_initial_loss(near, CONSTANTS, "descent").value)
    step = 40 * largest_step(near, distance)
    record = descent(variables, distance, step, away)
    certificate = certificate_gradient_descent(*record[:2], near, CONSTANTS, length=record[2])
    assert not certificate.applies.any()
    failing = {h.statement[:4] for h in certificate.hypotheses if not h.holds.all()}
    assert "η ≤ " in failing
    assert not by_statement(certificate)[RATE].holds.any()  # it diverges
    rows = certificate.rows()
    assert {row["holds"] for row in rows if row["statement"] == RATE} == {0.0}


def test_far_targets_miss_the_condition_and_leave_the_ball(problem, descent):
    _, variables, near, away = problem
    distance = np.full(2, 3.0)
    record = descent(variables, distance, largest_step(near, distance), away)
    certificate = certificate_gradient_descent(*record[:2], near, CONSTANTS)
    assert not certificate.applies.any()
    failing = [h.statement for h in certificate.hypotheses if not h.holds.all()]
    assert len(failing) == 1
    assert failing[0].startswith("h(w₀) ≤ 0.000868 α μ⁶")
    assert not by_statement(certificate)[BALL].holds.any()


def test_an_unknown_or_understated_smoothness_is_a_failed_hypothesis(problem, near_run):
    *_, near, _ = problem
    unknown = near._replace(smoothness=np.nan)
    certificate = certificate_gradient_descent(*near_run[:2], unknown, CONSTANTS)
    assert not certificate.applies.any()
    understated = near._replace(smoothness=near.smoothness * 1e-3)
    certificate = certificate_gradient_descent(*near_run[:2], understated, CONSTANTS)
    failing = [h.statement for h in certificate.hypotheses if not h.holds.any()]
    assert failing == ["|σ(∇Φ*(w)) − σ(∇Φ*(w₀))| ≤ β_Φ ‖w − w₀‖ (Φ is β_Φ-smooth)"]
    overstated = near._replace(mu=near.nu)  # μ above σ_min
    certificate = certificate_gradient_descent(*near_run[:2], overstated, CONSTANTS)
    assert not by_statement(certificate)["μ_Φ ≤ σ_min(∇Φ*(w₀))"].holds.any()


@pytest.fixture(scope="module")
def flow(problem):
    x, variables, near, away = problem
    one = jax.tree.map(lambda leaf: leaf[0], (variables, near))
    times = np.concatenate([[0.0], np.geomspace(1e-3, 0.8, 20)])
    observe = observables(MODULE.apply, LOSS)
    run = gradient_flow(LOSS(MODULE.apply), times, observe=observe, atol=1e-11)

    def at(variables, distance):
        y = MODULE.apply(variables, x) + distance * away
        trajectory = run(variables, (x, y))
        return trajectory.history, trajectory.steps

    program = compiled(at)
    return *one, lambda *arguments: jax.device_get(program(*arguments))


def test_theorem_1_applies_and_holds(flow):
    variables, near, run = flow
    # 0.9 of what the sharpened condition allows: above (9) itself, so that only one applies.
    limit = largest_initial_loss(near, CONSTANTS, "flow", sharpened=True).value
    history, times = run(variables, np.sqrt(0.9 * limit))
    sharp, plain = (
        certificate_gradient_flow(history, times, near, CONSTANTS, sharpened=sharpened)
        for sharpened in (True, False)
    )
    assert sharp.applies
    assert sharp.holds
    assert not plain.applies
    assert plain.holds
    assert all(claim.margin > 0 for claim in sharp.claims[1:3])
    assert sharp.claims[-1].ratio < 1
    bound = flow_path_length(times, history["loss"])
    assert (bound >= history["distance"]).all()
    assert bound[-1] < 1.2 * history["distance"][-1]  # the path is nearly straight


def test_a_flow_that_starts_too_high_is_told(flow):
    variables, near, run = flow
    certificate = certificate_gradient_flow(*run(variables, np.float64(3.0)), near, CONSTANTS)
    assert not certificate.applies
    assert not by_statement(certificate)[BALL].holds


def test_lemma_1_and_lemma_4_at_random_points_of_the_ball(problem):
    x, variables, near, _ = problem
    variables, near = jax.tree.map(lambda leaf: leaf[0], (variables, near))
    radius = ball_radius(near).value
    lower, upper = (bound.value for bound in singular_values_in_ball(near))

    def at(key):
        leaves, structure = jax.tree.flatten(variables)
        keys = jax.random.split(key, len(leaves))
        noise = [jax.random.normal(k, leaf.shape) for k, leaf in zip(keys, leaves, strict=True)]
        noise = jax.tree.unflatten(structure, noise)
        size = radius / optax.tree.norm(noise)  # on the sphere, where least room is left
        point = jax.tree.map(lambda w, e: w + size * e, variables, noise)
        change = MODULE.apply(point, x) - MODULE.apply(variables, x)
        smooth = measure_near_isometry(MODULE.apply, variables, x, probe=point).smoothness
        return *singular_values(MODULE.apply, point, x), jnp.linalg.norm(change), smooth

    @compiled
    def everything(keys):
        return measure_near_isometry(MODULE.apply, variables, x), jax.vmap(at)(keys)

    exact, points = jax.device_get(everything(jax.random.split(jax.random.key(1), 8)))
    smallest, largest, change, smooth = points
    assert near.mu < exact.mu
    assert exact.nu < near.nu
    assert (lower <= smallest).all()
    assert (largest <= upper).all()
    assert (change <= output_change(near, radius).value).all()
    assert (smooth <= near.smoothness).all()
    assert (np.abs(smallest - exact.mu) <= near.smoothness * radius).all()


def test_lemma_1_is_tight_for_a_network_that_bends_as_fast_as_it_may():
    """Φ(w) = β w²/2: ∇Φ falls from μ to μ/2 at the edge of the ball, and no bound is lower."""
    near = NearIsometry(2.0, 2.0, 1.0)
    apply = lambda w, x: x @ jnp.square(w) / 2  # noqa: E731
    w, x = jnp.array([2.0]), jnp.ones((1, 1))
    edge = compiled(lambda w: singular_values(apply, w, x)[0])(w - ball_radius(near).value)
    assert float(edge) == pytest.approx(singular_values_in_ball(near)[0].value)


def test_a_record_in_float32(problem):
    """A linear network: no condition, and the theorem's own step."""
    apply = lambda w, x: x @ w  # noqa: E731
    x, y = jnp.diag(jnp.array([1.0, 2.0], "float32")), jnp.array([0.5, -0.5], "float32")
    step = 1 / 10.5
    run = descend(
        squared_loss(apply),
        optax.chain(optax.sgd(step), accumulate_length()),
        10,
        observe=step_observables(apply, squared_loss, step),
    )
    trajectory = jax.device_get(compiled(run)(jnp.zeros(2, "float32"), (x, y)))
    assert trajectory.history["loss"].dtype == "float32"
    length = path_length(trajectory.state.optimizer)
    assert length.dtype == "float32"
    certificate = certificate_gradient_descent(
        trajectory.history,
        trajectory.steps,
        NearIsometry(1.0, 2.0, 0.0),
        LossConstants(1.0, 1.0),
        length=length,
    )
    assert certificate.applies
    assert certificate.holds
    # Its smallest number is not that of float64: 0 is no μ here either.
    singular = certificate_gradient_descent(
        trajectory.history, trajectory.steps, NearIsometry(0.0, 2.0, 0.0), LossConstants(1.0, 1.0)
    )
    assert not by_statement(singular)["0 < μ_Φ (Definition 1)"].holds


def test_a_run_that_ends_in_nan_is_told():
    """No exception, no warning: neither hypotheses nor claims hold."""
    apply, x, y = lambda w, x: x @ jnp.square(w), jnp.ones((3, 2)), jnp.ones(3)
    step = 1e3
    observe = step_observables(apply, squared_loss, step)
    run = descend(squared_loss(apply), optax.sgd(step), 20, observe=observe)
    trajectory = jax.device_get(compiled(run)(jnp.array([1.0, 2.0]), (x, y)))
    assert np.isnan(trajectory.history["loss"][-1])
    record = trajectory.history, trajectory.steps, NearIsometry(1.0, 2.0, 1.0), CONSTANTS
    for certificate in (certificate_gradient_descent(*record), certificate_gradient_flow(*record)):
        assert not certificate.applies
        assert not any(claim.holds for claim in certificate.claims)


def test_refuses(near_run):
    near = NearIsometry(1.0, 2.0, 0.0)
    history, steps, _ = near_run
    kept = {name: history[name] for name in history if name not in ("next_loss", "step_size")}
    with pytest.raises(ValueError, match=r"lacks \['next_loss', 'step_size'\]; record with"):
        certificate_gradient_descent(kept, steps, near, CONSTANTS)
    with pytest.raises(ValueError, match="the first at 0"):
        certificate_gradient_flow(history, steps + 1.0, near, CONSTANTS)
    with pytest.raises(ValueError, match="holds 0 path lengths; expected one"):
        path_length(optax.sgd(0.1).init(jnp.ones(2)))
    with pytest.raises(ValueError, match=r"write module\.apply"):
        observables(MODULE, LOSS)
    with pytest.raises(ValueError, match="expected a builder"):
        observables(MODULE.apply, LOSS(MODULE.apply))
    with pytest.raises(ValueError, match=r"step_size is -0\.1; expected 0 or greater"):
        step_observables(MODULE.apply, LOSS, -0.1)
