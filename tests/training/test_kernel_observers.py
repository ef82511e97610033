import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import assert_close, compiled, samples

from ntkflow import studies
from ntkflow.kernels.empirical import empirical_ntk, ntk_diagonal
from ntkflow.kernels.spectrum import extreme_eigenvalues
from ntkflow.training.descent import descend
from ntkflow.training.kernel_observers import kernel_observer
from ntkflow.training.losses import squared_loss
from ntkflow.training.observe import Snapshot

N, D, O, WIDTH = 7, 3, 2, 5
SCALARS = (
    "trace",
    "smallest_eigenvalue",
    "largest_eigenvalue",
    "condition_number",
    "effective_rank",
    "alignment",
    "centered_alignment",
)


def apply(params, x):
    return jnp.tanh(x @ params["w"]) @ params["a"]


def setting(dtype="float64", seed=0):
    params = {"w": samples(seed, D, WIDTH, dtype=dtype), "a": samples(seed + 1, WIDTH, O)}
    params = jax.tree.map(lambda leaf: leaf.astype(dtype), params)
    return params, (samples(2, N, D, dtype=dtype), samples(3, N, O, dtype=dtype) + 1)


def snapshot(params, data, initial=None):
    return Snapshot(0, params, params if initial is None else initial, data)


def of_array(theta):
    """An observed moment whose kernel is a given array, and whose labels are 1, 2, 3, ..."""
    n = len(theta)
    return lambda params, x: params[x], snapshot(theta, (jnp.arange(n), jnp.arange(1.0, n + 1)))


def by_definition(theta, y):
    """The scalars in NumPy, of one matrix (m, m) and its targets (m, c)."""
    values = np.linalg.eigvalsh(theta)
    p = values / values.sum()
    return {
        "trace": values.sum(),
        "smallest_eigenvalue": values[0],
        "largest_eigenvalue": values[-1],
        "condition_number": values[-1] / values[0],
        "effective_rank": np.prod(p**-p),
        "alignment": alignment(theta, y),
    }


def alignment(theta, y):
    return np.sum(theta * (y @ y.T)) / np.linalg.norm(theta) / np.linalg.norm(y @ y.T)


def centered(theta, y):
    center = np.eye(len(y)) - 1 / len(y)
    theta = np.einsum("ik,kl...,lj->ij...", center, theta, center)
    return theta, center @ y


def as_matrix(theta):
    return theta.transpose(0, 2, 1, 3).reshape(N * O, N * O)


@pytest.mark.quick
def test_every_quantity_is_its_definition_along_a_run(dtype):
    params, (x, y) = setting(dtype)
    names = (*SCALARS, "eigenvalues", "distance", "change", "kernel")
    observer = kernel_observer(empirical_ntk(apply, outputs="trace"), names)
    run = descend(squared_loss(apply), optax.sgd(0.02), 5, every=2, observe={"ntk": observer})
    trajectory = compiled(run)(params, (x, y))
    history = trajectory.history["ntk"]
    assert set(history) == set(names)
    assert len(trajectory.steps) == 4
    y, thetas = np.asarray(y, float), np.asarray(history["kernel"], float)
    for k, theta in enumerate(thetas):
        expected = by_definition(theta, y)
        expected["centered_alignment"] = alignment(*centered(theta, y))
        expected["distance"] = np.linalg.norm(theta - thetas[0]) / np.linalg.norm(thetas[0])
        expected["change"] = np.linalg.norm(theta - thetas[0], ord=2)
        for name, value in expected.items():
            assert history[name].dtype == dtype
            # A rounding of Θ moves λ_min by ε λ_max.
            amplified = expected["condition_number"] if "_" in name else 1.0
            tolerance = 50 * jnp.finfo(dtype).eps * amplified
            np.testing.assert_allclose(history[name][k], value, rtol=tolerance, atol=tolerance)
    assert_close(history["eigenvalues"][:, 0], history["smallest_eigenvalue"])
    assert history["eigenvalues"].shape == (4, N)
    assert np.all(history["distance"][1:] > 0.01)
    assert np.all(history["change"][1:] > 0.01)


def test_outputs_are_one_matrix_or_one_kernel_each():
    params, data = setting()
    y = np.asarray(data[1])
    full = kernel_observer(empirical_ntk(apply), (*SCALARS, "distance", "change"))
    other = jax.tree.map(lambda leaf: 1.1 * leaf, params)
    observed = compiled(full)(snapshot(params, data, other))
    kernel = compiled(empirical_ntk(apply))
    theta, start = (np.asarray(kernel(p, data[0])) for p in (params, other))
    expected = by_definition(as_matrix(theta), y.reshape(-1, 1))
    moved, targets = centered(theta, y)
    moved, targets = as_matrix(moved), targets.reshape(-1, 1)
    expected["centered_alignment"] = alignment(moved, targets)
    expected["distance"] = np.linalg.norm(theta - start) / np.linalg.norm(start)
    expected["change"] = np.linalg.norm(as_matrix(theta - start), ord=2)
    for name, value in expected.items():
        np.testing.assert_allclose(observed[name], value, rtol=1e-9, err_msg=name)

    per_output = kernel_observer(empirical_ntk(apply, outputs="diagonal"), (*SCALARS, "change"))
    observed = compiled(per_output)(snapshot(params, data, other))
    for a in range(O):
        block, target = theta[:, :, a, a], y[:, a : a + 1]
        expected = by_definition(block, target)
        expected["centered_alignment"] = alignment(*centered(block, target))
        expected["change"] = np.linalg.norm(block - start[:, :, a, a], ord=2)
        for name, value in expected.items():
            assert observed[name].shape == (O,)
            np.testing.assert_allclose(observed[name][a], value, rtol=1e-9, err_msg=name)


def test_alignment_is_one_for_the_labels_own_kernel_and_centering_forgets_constants():
    y = samples(0, N, O)
    names = ("alignment", "centered_alignment")
    own = compiled(kernel_observer(lambda params, x: 3 * y @ y.T + params, names))
    observed = own(snapshot(jnp.zeros(()), (y, y)))
    np.testing.assert_allclose([float(observed[name]) for name in names], 1.0, rtol=1e-12)
    observed = own(snapshot(jnp.array(50.0), (y, y)))
    np.testing.assert_allclose(observed["centered_alignment"], 1.0, rtol=1e-12)
    assert observed["alignment"] < 0.9
    observed = own(snapshot(jnp.zeros(()), (y, y + jnp.array([[4.0, -2.0]]))))
    np.testing.assert_allclose(observed["centered_alignment"], 1.0, rtol=1e-12)
    assert observed["alignment"] < 0.9


def test_what_is_not_resolved_is_zero_and_bounds_the_condition_number(dtype):
    a = samples(0, 4, 3).astype(dtype)  # rank 3 of 4
    kernel, moment = of_array(a @ a.T)
    names = ("smallest_eigenvalue", "largest_eigenvalue", "condition_number")
    observed = compiled(kernel_observer(kernel, names))(moment)
    extremes = extreme_eigenvalues(a @ a.T)
    assert float(observed["smallest_eigenvalue"]) == float(extremes.smallest) == 0.0
    assert_close(observed["largest_eigenvalue"], extremes.largest)
    np.testing.assert_allclose(
        observed["condition_number"], 1 / (4 * jnp.finfo(dtype).eps), rtol=1e-5
    )


def test_effective_rank_of_equal_eigenvalues_is_their_number():
    observer = compiled(kernel_observer(of_array(np.eye(6))[0], "effective_rank"))
    for rank in (1, 3, 6):
        _, moment = of_array(2 * jnp.diag(jnp.arange(6) < rank).astype(float))
        np.testing.assert_allclose(observer(moment)["effective_rank"], rank, rtol=1e-12)


def test_change_is_a_spectral_norm_of_either_sign(dtype):
    theta = jnp.diag(jnp.array([5.0, 1.0, 2.0], dtype))
    kernel, moment = of_array(theta)
    for reference, change in ((np.diag([4.0, 4.0, 2.5]), 3.0), (np.diag([1.0, 1.0, 3.0]), 4.0)):
        observer = kernel_observer(kernel, "change", reference=reference.astype(dtype))
        np.testing.assert_allclose(observer(moment)["change"], change, rtol=1e-6)
    # Small beside the kernel, it keeps its digits: of the difference, not of the kernel.
    near = theta + jnp.diag(jnp.array([0, 0, 2.0**-20], dtype))
    observer = kernel_observer(kernel, "change", reference=near)
    np.testing.assert_allclose(observer(moment)["change"], 2.0**-20, rtol=1e-6)


def test_low_precision_is_observed_in_float32():
    theta = jnp.diag(jnp.array([1.0, 2.0, 4.0])).astype(jnp.bfloat16)
    kernel, moment = of_array(theta)
    observed = compiled(kernel_observer(kernel, SCALARS))(moment)
    assert {value.dtype.name for value in observed.values()} == {"float32"}
    assert [float(observed[name]) for name in SCALARS[:4]] == [7.0, 1.0, 4.0, 4.0]


def features(params, x):
    """The kernel of the output layer alone: cheap, and it moves with the first one."""
    hidden = jnp.tanh(x @ params["w"])
    return hidden @ hidden.T


class TestSamples:
    params, data = setting()
    theta = features(params, data[0])
    moment = snapshot(params, data, jax.tree.map(lambda leaf: 1.1 * leaf, params))

    def observe(self, samples, reference=None):
        names = ("kernel", "alignment", "distance")
        observer = kernel_observer(features, names, samples=samples, reference=reference)
        return compiled(observer)(self.moment)

    def test_a_number_is_spread_evenly(self):
        few, chosen = self.observe(3), self.observe(np.array([0, 2, 4]))
        assert_close(few["kernel"], chosen["kernel"])
        assert_close(self.observe(N)["kernel"], self.theta)

    def test_positions_choose_kernel_labels_and_reference(self):
        rows = np.array([5, 1, 2])
        reference = np.asarray(self.theta) + np.eye(N)
        observed = self.observe(rows, reference)
        block = np.asarray(self.theta)[rows][:, rows]
        assert_close(observed["kernel"], block)
        aligned = alignment(block, np.asarray(self.data[1])[rows])
        np.testing.assert_allclose(observed["alignment"], aligned, rtol=1e-12)
        distance = np.sqrt(3) / np.linalg.norm(block + np.eye(3))
        np.testing.assert_allclose(observed["distance"], distance, rtol=1e-9)
        assert_close(self.observe(rows, block + np.eye(3))["distance"], observed["distance"])


def test_a_reference_in_place_of_the_start_and_a_run_that_goes_on():
    params, data = setting()
    start = features(params, data[0])
    observe = {
        "own": kernel_observer(features, ("distance", "change")),
        "given": kernel_observer(features, ("distance", "change"), reference=start),
    }
    run = compiled(descend(squared_loss(apply), optax.sgd(0.02), 3, observe=observe))
    first = run(params, data)
    second = run(first.params, data, state=first.state)
    for trajectory in (first, second):
        own, given = (trajectory.history[name] for name in observe)
        for name in own:
            np.testing.assert_allclose(own[name], given[name], atol=1e-12)
    assert_close(first.history["own"]["distance"][-1], second.history["own"]["distance"][0])
    assert second.history["own"]["distance"][0] > 0.01


def test_the_diagonal_is_enough_for_the_trace():
    params, data = setting()
    full, diagonal = (build(apply, outputs="trace") for build in (empirical_ntk, ntk_diagonal))
    by_both = [kernel_observer(k, "trace")(snapshot(params, data)) for k in (full, diagonal)]
    assert_close(by_both[0]["trace"], by_both[1]["trace"])
    # With as many samples as outputs, the blocks of the diagonal have a kernel's shape.
    with pytest.raises(ValueError, match=r"returned shape \(1, 2, 2\) for 1 samples"):
        kernel_observer(ntk_diagonal(apply), "trace", samples=O)(snapshot(params, data))


@pytest.mark.parametrize(
    ("names", "calls"), [(SCALARS, 1), ((*SCALARS, "distance", "change", "kernel"), 2)]
)
def test_quantities_share_one_kernel(names, calls):
    counted = []

    def kernel(params, x):
        counted.append(len(x))
        return x @ x.T + jnp.eye(len(x))

    x = samples(0, N, D)
    jax.eval_shape(kernel_observer(kernel, names), snapshot(jnp.zeros(()), (x, x)))
    assert counted == [N] * calls


def test_a_run_that_diverges_is_data():
    names = (*SCALARS[1:], "change")
    observer = kernel_observer(lambda w, x: w * (x @ x.T + jnp.eye(len(x))), names)
    loss = lambda w, data: w**4  # noqa: E731
    # Without jit, so that the last record has values that could be refused.
    run = descend(loss, optax.sgd(100.0), 8, every=8, observe={"k": observer})
    x = samples(0, N, D)
    trajectory = run(jnp.array(2.0), (x, x))
    for values in trajectory.history["k"].values():
        assert np.isfinite(values[0])
        assert np.isnan(values[-1])


def test_in_a_study():
    observer = kernel_observer(features, ("trace", "eigenvalues", "distance"), samples=4)
    data = setting()[1]

    def experiment(key, x, y):
        params = {"w": jax.random.normal(key, (D, WIDTH)), "a": jnp.ones((WIDTH, O))}
        run = descend(squared_loss(apply), optax.sgd(0.02), 2, observe={"ntk": observer})
        return run(params, (x, y))

    dims = {"ntk_eigenvalues": ("eigenvalue",)}
    study = studies.run(experiment, seeds=2, args=data, dims=dims, progress=False)
    assert {"ntk_trace", "ntk_eigenvalues", "ntk_distance", "loss"} < set(study.data_vars)
    assert study["ntk_trace"].dims == ("seed", "step")
    assert study["ntk_eigenvalues"].dims == ("seed", "step", "eigenvalue")
    assert not study["diverged"].any()
    np.testing.assert_allclose(study["ntk_eigenvalues"].sum("eigenvalue"), study["ntk_trace"])
    assert (study["ntk_distance"].isel(step=2) > 1e-3).all()


class TestErrors:
    params, data = setting()

    @pytest.mark.parametrize(
        ("arguments", "choices", "message"),
        [
            ((None, "trace"), {}, "kernel is of type NoneType; expected a function kernel"),
            ((apply, "determinant"), {}, r"quantities is 'determinant'; expected some of .*trace"),
            ((apply, ()), {}, r"quantities is \(\); expected some of"),
            ((apply, "trace"), {"samples": 0}, "samples is 0; expected a whole number"),
            ((apply, "trace"), {"samples": [0, 2, 0]}, "negative or repeated positions"),
            ((apply, "trace"), {"samples": [-1, 2]}, "negative or repeated positions"),
            ((apply, "trace"), {"samples": [True, False]}, r"dtype bool; .*np.flatnonzero"),
            ((apply, "trace"), {"reference": np.eye(2)}, '"distance" or "change" among them'),
        ],
    )
    def test_of_the_builder(self, arguments, choices, message):
        with pytest.raises(ValueError, match=message):
            kernel_observer(*arguments, **choices)

    @pytest.mark.parametrize(
        ("kernel", "names", "choices", "change", "message"),
        [
            (apply, "trace", {}, {}, r"shape \(7, 2\) for 7 samples; .*A network itself"),
            (lambda p, x: (x, x), "trace", {}, {}, "returned a tuple for 7 samples"),
            (lambda p, x: x[:, 0], "distance", {}, {}, 'a diagonal, which gives "trace" alone'),
            (None, "trace", {}, {"data": data[0]}, r"type .*; expected a pair \(x, y\)"),
            (None, "trace", {"samples": 8}, {}, "samples asks for 8 .*data hold 7"),
            (None, "trace", {"samples": [7]}, {}, "samples asks for 8 or more"),
            (None, "distance", {"reference": np.eye(3)}, {}, r"reference has shape \(3, 3\)"),
            (
                None,
                "alignment",
                {},
                {"data": (data[0], np.arange(7))},
                r"dtype int64; .*jax.nn.one_hot\(y, classes\)",
            ),
            (
                None,
                "centered_alignment",
                {},
                {"data": (data[0], np.ones((6, 2)))},
                r"y have shape \(6, 2\); expected \(7,\) or \(7, outputs\)",
            ),
            (
                lambda p, x: jnp.ones((len(x), len(x), 2, 2)),
                "alignment",
                {"samples": 3},
                {"data": (data[0], np.ones(7))},
                r"y have shape \(7,\); expected \(7, 2\).*on 3 of 7 samples",
            ),
        ],
    )
    def test_of_the_observer(self, kernel, names, choices, change, message):
        kernel = features if kernel is None else kernel
        moment = snapshot(self.params, self.data)._replace(**change)
        with pytest.raises(ValueError, match=message):
            kernel_observer(kernel, names, **choices)(moment)
