"""Observers, certificates and assumptions: runs that hold, records that do not, broken data."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import assert_close, compiled, samples

from ntkflow.systems.node_scaling.assumptions import (
    assumptions_on_activation,
    assumptions_on_data,
    assumptions_on_network,
)
from ntkflow.systems.node_scaling.bounds import measure_setting
from ntkflow.systems.node_scaling.bounds_descent import largest_step_size, required_width_descent
from ntkflow.systems.node_scaling.bounds_smooth import required_width
from ntkflow.systems.node_scaling.certificates import (
    certificate_gradient_descent,
    certificate_gradient_flow,
)
from ntkflow.systems.node_scaling.lemmas import certificate_lemmas
from ntkflow.systems.node_scaling.network import NodeScaledNetwork
from ntkflow.systems.node_scaling.observables import observables
from ntkflow.systems.node_scaling.scales import block, node_scales, zipf
from ntkflow.training.descent import descend
from ntkflow.training.losses import squared_loss
from ntkflow.training.observe import Snapshot

GAMMA, STEP = 0.4, 0.05
SCALES = node_scales(zipf(30, 0.5), GAMMA)


def data(dtype="float64"):
    x = np.asarray(samples(5, 5, 4))
    x = x / np.linalg.norm(x, axis=1, keepdims=True)
    return jnp.asarray(x, dtype), jnp.asarray(np.asarray(samples(6, 5)), dtype)


def descent(activation, scales, steps, every, step_size, gamma, dtype="float64"):
    """An experiment of seeds: initialize, descend, return what certificates read."""
    module = NodeScaledNetwork(scales, activation=activation, param_dtype=dtype)
    observe = observables(activation, gamma=gamma, step_size=step_size)
    loss = squared_loss(module.apply)
    run = descend(loss, optax.sgd(step_size), steps, observe=observe, every=every)

    def experiment(key, x, y):
        trajectory = run(module.init(key, x), (x, y))
        return trajectory.history, trajectory.steps

    return experiment


def steep_tanh(z):
    return jnp.tanh(1.2 * z)


@functools.cache
def of_two_seeds(activation):
    """Of ReLU in float32; of tanh and of `steep_tanh`, which are one program, in float64."""
    relu = activation is jax.nn.relu
    dtype = "float32" if relu else "float64"
    histories, steps = _runs(dtype)
    seeds = slice(2) if relu or activation is jnp.tanh else slice(2, 4)
    return {name: np.asarray(record)[seeds] for name, record in histories.items()}, steps


@functools.cache
def _runs(dtype):
    x, y = data(dtype)
    keys, slopes = jax.random.split(jax.random.key(0), 2), jnp.ones(2)
    if dtype == "float64":
        keys, slopes = jnp.concatenate([keys, keys]), jnp.array([1.0, 1.0, 1.2, 1.2])

    def run(key, slope):
        activation = jax.nn.relu if dtype == "float32" else lambda z: jnp.tanh(slope * z)
        return descent(activation, SCALES, 200, 20, STEP, GAMMA, dtype)(key, x, y)

    history, steps = compiled(jax.vmap(run))(keys, slopes)
    return history, np.asarray(steps)[0]


def failing(entries):
    return [entry.statement for entry in entries if not np.all(entry.holds)]


def sources(entries):
    return [entry.source.removeprefix("Caron et al. (2023), ") for entry in entries]


def test_lemmas_are_never_violated_along_tanh_runs():
    history, steps = of_two_seeds(jnp.tanh)
    certificate = certificate_lemmas(history, steps, data(), SCALES, GAMMA, activation=jnp.tanh)
    assert certificate.applies
    assert certificate.holds.shape == (2,)
    assert failing(certificate.claims) == []
    assert sources(certificate.claims) == [
        "Lemma E.1",
        "Lemma E.1, equation (15)",
        "Lemma H.2",
        "equations (17) and (18)",
        *["Lemma E.4"] * 3,
        "Lemma E.4, equation (23)",
        "Lemma H.3",
    ]
    for claim in certificate.claims:
        assert claim.ratio.shape == (2,)
        assert claim.ratio.max() < 1
    assert (history["loss"][:, -1] < 0.5 * history["loss"][:, 0]).all()  # it went somewhere


@pytest.mark.parametrize("activation", [jax.nn.relu, steep_tanh])
def test_lemmas_of_relu_and_of_a_slope_above_1(activation):
    """E.1 for every node along small steps; for ReLU nothing is claimed that wants σ''."""
    history, steps = of_two_seeds(activation)
    dtype = history["residual_norm"].dtype
    certificate = certificate_lemmas(
        history, steps, data(dtype), SCALES, GAMMA, activation=activation
    )
    assert failing(certificate.claims) == []
    assert all(claim.slack.dtype == dtype for claim in certificate.claims)
    smooth = activation is not jax.nn.relu
    assert len(certificate.claims) == (9 if smooth else 4)
    assert failing(certificate.hypotheses) == (["|σ'| ≤ 1"] if smooth else [])


def test_every_lemma_can_fail():
    """Seven copies of a run with one record changed in each, and one as it was."""
    history, steps = of_two_seeds(jnp.tanh)
    changed = {name: np.stack([record[0]] * 8) for name, record in history.items()}
    changed["residual_norm"][1] = changed["residual_norm"][1, 0]  # nothing was learnt
    changed["weight_distance"][2, -1] += 1e4
    changed["gradient_norm"][3, -1, 4] *= 1e3
    changed["gram_change"][4, -1] *= 100
    changed["asymmetric_change"][5, -1] *= 1e3
    changed["weight_distance"][6] = 0  # nothing has moved,
    changed["gram_smallest_eigenvalue"][6, -1] = 0  # and yet the kernel has
    changed["next_residual_norm"][7, -1] *= 1.2
    certificate = certificate_lemmas(changed, steps, data(), SCALES, GAMMA, activation=jnp.tanh)
    expected = {1: "Lemma E.1", 2: "Lemma E.1, equation (15)", 3: "Lemma H.2"}
    expected |= {4: "equations (17) and (18)", 5: "Lemma E.4", 6: "Lemma E.4, equation (23)"}
    expected |= {7: "Lemma H.3"}
    for seed, lemma in expected.items():
        broken = [claim for claim in certificate.claims if not claim.holds[seed]]
        assert lemma in sources(broken)
    assert certificate.holds.tolist() == [True] + 7 * [False]


def slow_sine(z):
    """Of slope at most 1 and curvature at most ¼: a small M makes for small widths."""
    return 4 * jnp.sin(z / 4)


@pytest.mark.quick
def test_theorems_4_1_and_h_1_apply_and_hold():
    """Steps below the theorem's follow the flow; by a fifth larger they are above one cap."""
    x, y, gamma, delta = jnp.array([[1.0]]), jnp.zeros(1), 0.9, 0.9
    scales = node_scales(block(4096, 1024), gamma)
    setting = measure_setting(x, y, gamma, activation=slow_sine, delta=delta)
    step = 0.99 * float(largest_step_size(setting).value)
    assert required_width_descent(setting, step).value < len(scales)
    assert required_width(setting).value < len(scales)
    run = descent(slow_sine, scales, 6, 3, step, None)
    history, steps = compiled(run)(jax.random.key(0), x, y)
    arguments = {"activation": slow_sine, "delta": delta}
    flow = certificate_gradient_flow(history, steps * step, (x, y), scales, gamma, **arguments)
    assert flow.theorem.startswith("Caron et al. (2023), Theorem 4.1")
    two = {name: np.stack([values, values]) for name, values in history.items()}
    two["step_size"] = two["step_size"] * np.array([[1.0], [1.2]])
    descended = certificate_gradient_descent(two, steps, (x, y), scales, gamma, **arguments)
    for certificate in (flow, descended):
        assert failing(certificate.claims) == []
    assert failing(flow.hypotheses) == []
    assert descended.applies.tolist() == [True, False]
    (cap,) = failing(descended.hypotheses)
    assert cap == "η ≤ γκ_n d² / 8n²"


def test_theorem_a_1_is_that_of_relu():
    """It does not apply at a width of 30; a second seed that learns nothing breaks its (b)."""
    history, steps = of_two_seeds(jax.nn.relu)
    two = {name: values.copy() for name, values in history.items()}
    two["residual_norm"][1] = two["residual_norm"][1, 0]
    certificate = certificate_gradient_flow(
        two, 1e3 * steps, data("float32"), SCALES, GAMMA, activation=jax.nn.relu
    )
    assert certificate.theorem.startswith("Caron et al. (2023), Theorem A.1")
    widths = failing(certificate.hypotheses)
    assert len(widths) == 3
    assert all(name.endswith(" ≤ m") for name in widths)
    sources = [claim.source.split(", ", 1)[1] for claim in certificate.claims]
    assert sources[2:] == [f"Theorem A.1, ({part})" for part in "abcd"]
    rate = certificate.claims[3]
    assert rate.statement == "L(t) ≤ exp(−γκ_n t/2) L(0)"
    assert not rate.holds[1]


BROKEN = {
    "0 < ‖x_i‖": lambda x, y: (x.at[0].set(0.0), y),
    "‖x_i‖ ≤ 1": lambda x, y: (x.at[1].multiply(2.0), y),
    "x_i ≠ c x_k": lambda x, y: (x.at[2].set(-0.5 * x[3]), y),
    "|y_i| ≤ C": lambda x, y: (x, y.at[0].set(9.0)),
}


@pytest.mark.parametrize("name", BROKEN)
def test_each_part_of_assumption_2_1_fails_by_its_name(name):
    assert failing(assumptions_on_data(*data(), label_bound=8.0)) == []
    assert failing(assumptions_on_data(*BROKEN[name](*data()), label_bound=8.0)) == [name]


def test_data_that_break_everything_are_no_exception():
    """Equal inputs make κ_n = 0, with which no width suffices."""
    history, steps = of_two_seeds(jax.nn.relu)
    x, y = data()
    x = x.at[0].set(2 * x[1]).at[2].set(0.0)
    certificate = certificate_gradient_flow(
        history,
        steps,
        (x, 9 * y),
        SCALES,
        0.0,
        activation=jax.nn.relu,
        label_bound=1.0,
        variance=2.0,
    )
    failed = [name for name in failing(certificate.hypotheses) if "≤ m" not in name]
    parts = [*BROKEN, "v = 1: w_j ~ N(0, I)", "0 < γ", "0 < κ_n, up to rounding"]
    assert failed == parts
    assert np.isinf(certificate.hypotheses[-1].smaller)
    assert not certificate.applies


def test_each_assumption_holds_or_fails_by_itself(dtype):
    x, y = data()
    assert failing(assumptions_on_data(x.astype(dtype), y)) == []
    close = x.at[1].set(x[0]).at[1, 0].add(1e-5)  # a cosine of 1 − 10⁻¹¹, which float32 rounds
    close /= jnp.linalg.norm(close, axis=1, keepdims=True)
    assert failing(assumptions_on_data(close.astype(dtype), y)) == (
        ["x_i ≠ c x_k"] if dtype == "float32" else []
    )
    assert failing(assumptions_on_network(SCALES.astype(dtype), GAMMA)) == []
    assert failing(assumptions_on_network(SCALES.astype(dtype), 0.0, variance=2.0)) == [
        "v = 1: w_j ~ N(0, I)",
        "0 < γ",
    ]
    assert failing(assumptions_on_network(SCALES.astype(dtype), 0.9)) == ["γ/m ≤ λ_j"]


ACTIVATIONS = {
    "relu": (jax.nn.relu, ["|σ''| ≤ M < ∞", "σ is analytic: no breaks"]),
    "square": (lambda z: z * z, ["|σ'| ≤ 1", "σ is no polynomial"]),
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_assumptions_on_activations(name):
    activation, expected = ACTIVATIONS[name]
    assert failing(assumptions_on_activation(activation)) == expected


def test_the_case_of_relu_is_relu_alone():
    assert failing(assumptions_on_activation(jax.nn.relu, smooth=False)) == []
    leaky = assumptions_on_activation(jax.nn.leaky_relu, smooth=False)
    assert failing(leaky) == ["σ(z) = max(z, 0)"]


@pytest.fixture(scope="module")
def snapshot():
    kernel, fixed = samples(3, 4, 30), {"output": jnp.sign(samples(4, 30)), "scales": SCALES}
    initial, now = (
        {"params": {"kernel": array}, "fixed": fixed}
        for array in (kernel, kernel + 0.1 * samples(8, 4, 30))
    )
    return Snapshot(7, now, initial, data())


def test_observers_measure_what_they_say(snapshot):
    observe = observables(jnp.tanh, gamma=GAMMA, step_size=STEP)
    record = compiled(lambda snapshot: {name: f(snapshot) for name, f in observe.items()})(snapshot)
    (x, y), scales = map(np.asarray, snapshot.data), np.asarray(SCALES)
    now, before = (
        np.asarray(variables["params"]["kernel"])
        for variables in (snapshot.params, snapshot.initial_params)
    )
    signs = np.asarray(snapshot.params["fixed"]["output"])
    parts = {"gram": scales, "uniform": np.full(30, GAMMA / 30)}
    parts["asymmetric"] = scales - parts["uniform"]

    def jacobian(kernel):
        """∂f(x_i)/∂w_j, shape (n, d, m)."""
        slopes = np.sqrt(scales) * signs * (1 - np.tanh(x @ kernel / 2) ** 2)
        return x[:, :, None] / 2 * slopes[:, None, :]

    def theta(kernel, part):
        gradients = jacobian(kernel) * np.sqrt(part / scales)
        return np.einsum("idm,kdm->ik", gradients, gradients)

    def residual(kernel):
        return np.tanh(x @ kernel / 2) @ (np.sqrt(scales) * signs) - y

    gradient = np.einsum("i,idm->dm", residual(now), jacobian(now))
    distance = np.linalg.norm(now - before, axis=0)
    expected = {
        "residual_norm": np.linalg.norm(residual(now)),
        "weight_distance": distance,
        "largest_weight_distance": distance.max(),
        "gradient_norm": np.linalg.norm(gradient, axis=0),
        "gradient_change": np.sum((jacobian(now) - jacobian(before)) ** 2),
        "step_size": np.float64(STEP),
        "next_residual_norm": np.linalg.norm(residual(now - STEP * gradient)),
    }
    for name, part in parts.items():
        change = theta(now, part) - theta(before, part)
        expected[f"{name}_change"] = np.linalg.norm(change, 2)
        if name != "asymmetric":
            least = np.linalg.eigvalsh(theta(now, part))[0]
            expected[f"{name}_smallest_eigenvalue"] = least
    assert record.keys() == expected.keys()
    for name, value in expected.items():
        assert_close(record[name], value, factor=1000)


def test_observers_of_a_record_share_its_kernel(snapshot):
    """One product (n, m) by (m, n) for the kernel now, one for that at the start."""
    observe = observables(jnp.tanh)
    program = jax.jit(lambda snapshot: {name: f(snapshot) for name, f in observe.items()})
    text = program.lower(snapshot).compile().as_text()
    assert text.count('custom_call_target="lapack_dsyevd_ffi"') == 2
    # Both products have the shape (5, 5) and contract 30 nodes; x xᵀ contracts 4.
    products = [line for line in text.splitlines() if " dot(" in line and "f64[5,5]" in line]
    assert len([line for line in products if "f64[5,30]" in line]) <= 2


def test_networks_without_a_theorem_are_refused(snapshot):
    kernel, fixed = snapshot.params["params"], snapshot.params["fixed"]
    two = {"params": kernel, "fixed": {**fixed, "output": samples(4, 30, 2)}}
    trained = {
        "params": {**kernel, "output": fixed["output"]},
        "fixed": {"scales": fixed["scales"]},
    }
    for variables in (two, trained):
        now = snapshot._replace(params=variables, initial_params=variables)
        for observer in (observables(jnp.tanh)[name] for name in ("residual_norm", "gram_change")):
            with pytest.raises(ValueError, match="expected fixed signs"):
                observer(now)


def test_records_that_do_not_fit_are_refused():
    history, steps = of_two_seeds(jax.nn.relu)
    with pytest.raises(ValueError, match=r"record with observe=observables\(activation\)"):
        certificate_gradient_flow({}, steps, data(), SCALES, GAMMA, activation=jax.nn.relu)
    with pytest.raises(ValueError, match="the history 30 nodes; expected the λ of the run"):
        certificate_gradient_flow(
            history, steps, data(), SCALES[:2] / SCALES[:2].sum(), 0.1, activation=jax.nn.relu
        )
    with pytest.raises(ValueError, match="gamma is 2; expected a number in"):
        certificate_gradient_flow(history, steps, data(), SCALES, 2, activation=jax.nn.relu)


def test_data_and_choices_that_do_not_fit_are_refused(snapshot):
    """Labels of shape (n, 1) would broadcast to residuals (n, n)."""
    history, steps = of_two_seeds(jnp.tanh)
    x, y = data()
    column = snapshot._replace(data=(x, y[:, None]))
    with pytest.raises(ValueError, match=r"y has shape \(5, 1\) and the outputs \(5,\)"):
        observables(jnp.tanh)["residual_norm"](column)
    for name in ("gamma", "step_size"):
        with pytest.raises(ValueError, match=rf"{name} has shape \(2,\); expected one number"):
            observables(jnp.tanh, **{name: jnp.array([0.1, 0.2])})

    def lemmas(history=history, y=y, gamma=GAMMA, variance=1.0):
        options = {"activation": jnp.tanh, "variance": variance}
        return certificate_lemmas(history, steps, (x, y), SCALES, gamma, **options)

    with pytest.raises(ValueError, match="the theorems are for one output"):
        lemmas(y=y[:, None])
    with pytest.raises(ValueError, match=r"gamma has shape \(2,\); expected one number"):
        lemmas(gamma=np.array([0.4, 0.4]))
    with pytest.raises(ValueError, match=r"variance is -1\.0; expected a number greater than 0"):
        lemmas(variance=-1.0)
    with pytest.raises(ValueError, match="history is of type NoneType"):
        lemmas(history=None)
    less = {name: record for name, record in history.items() if name != "next_residual_norm"}
    with pytest.raises(ValueError, match=r"observables\(activation, gamma=γ, step_size=η\)"):
        lemmas(history=less)
    with pytest.raises(ValueError, match=r"delta has shape \(2,\); expected one number"):
        certificate_gradient_flow(
            history, steps, (x, y), SCALES, GAMMA, activation=jnp.tanh, delta=np.array([0.1, 0.2])
        )


def test_a_singular_kernel_and_a_run_that_diverged_are_no_exception():
    """An eigenvalue rounded below 0 counts as 0; NaN from some record on holds for no claim."""
    history, steps = of_two_seeds(jnp.tanh)
    changed = {name: record.copy() for name, record in history.items()}
    changed["gram_smallest_eigenvalue"][0, -1] = -1e-12
    for record in changed.values():
        record[1, 3:] = np.nan
    certificate = certificate_lemmas(changed, steps, data(), SCALES, GAMMA, activation=jnp.tanh)
    assert certificate.claims[0].holds[0]
    assert not any(claim.holds[1] for claim in certificate.claims)
