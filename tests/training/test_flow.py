import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import assert_close, compiled, samples

from ntkflow.kernels.empirical import empirical_ntk
from ntkflow.prediction.mse import gradient_flow_mse
from ntkflow.training.descent import descend
from ntkflow.training.flow import gradient_flow
from ntkflow.training.losses import squared_loss

X, Y, W = samples(0, 6, 3), samples(1, 6), samples(2, 3)
TIMES = np.array([0.0, 0.1, 0.5, 2.0])
loss = squared_loss(lambda w, x: x @ w)


def network(params, x):
    return jnp.tanh(x @ params["encoder"]) @ params["decoder"]


PARAMS = {"encoder": samples(3, 3, 7), "decoder": samples(4, 7)}


@pytest.fixture(scope="module")
def first():
    """A flow to time ½, that others go on from."""
    return compiled(gradient_flow(loss, [0.5]))(W, (X, Y))


@pytest.mark.quick
def test_a_linear_model_follows_its_closed_form(dtype):
    x, y, w = (a.astype(dtype) for a in (X, Y, W))
    run = gradient_flow(loss, TIMES, observe={"f": lambda s: s.data[0] @ s.params})
    trajectory = compiled(run)(w, (x, y))
    closed = gradient_flow_mse(X @ X.T, Y)(TIMES, X @ W).train
    np.testing.assert_allclose(
        trajectory.history["f"], closed, atol=1e-6 if dtype == "float64" else 3e-3
    )
    assert trajectory.history["f"].dtype == trajectory.params.dtype == dtype
    assert trajectory.steps.tolist() == TIMES.astype(dtype).tolist()
    assert bool(trajectory.state.succeeded)


def test_the_flow_is_the_limit_of_small_steps():
    loss, data = squared_loss(network), (X, Y)
    observe = {"f": lambda s: network(s.params, s.data[0])}
    flow = compiled(gradient_flow(loss, [0.05], observe=observe))(PARAMS, data)
    errors = []
    for steps in (100, 200):
        run = compiled(descend(loss, optax.sgd(0.05 / steps), steps, every=steps, observe=observe))
        errors.append(np.abs(run(PARAMS, data).history["f"][-1] - flow.history["f"][-1]).max())
    assert errors[0] < 0.02
    np.testing.assert_allclose(errors[0] / errors[1], 2, rtol=0.1)  # first order in the step


def test_outputs_move_by_the_kernel():
    step = 1e-4
    run = gradient_flow(
        squared_loss(network), [step], observe={"f": lambda s: network(s.params, X)}
    )

    @compiled
    def compute(params):
        before = network(params, X)
        velocity = empirical_ntk(network)(params, X) @ (Y - before)
        return (run(params, (X, Y)).history["f"][0] - before) / step, velocity

    np.testing.assert_allclose(*compute(PARAMS), rtol=0.05)


def test_a_continued_flow_equals_a_whole_one(first):
    whole = compiled(gradient_flow(loss, [0.5, 2.0]))(W, (X, Y))
    second = compiled(gradient_flow(loss, [2.0]))(first.params, (X, Y), state=first.state)
    np.testing.assert_allclose(second.params, whole.params, atol=1e-6)
    assert_close(second.state.initial_params, W)


def test_trainable_holds_the_rest():
    run = gradient_flow(squared_loss(network), [0.1], trainable=lambda path: "decoder" in path)
    end = compiled(run)(PARAMS, (X, Y)).params
    assert (end["encoder"] == PARAMS["encoder"]).all()
    assert not (end["decoder"] == PARAMS["decoder"]).any()


def test_a_failed_solve_is_data_and_spares_the_other_seeds():
    # dw/dt = w³ blows up at t = 1/(2w²): at 0.5 for w = 1, never within 1 for w = 0.1.
    run = gradient_flow(lambda w, data: -(w**4) / 4, [0.1, 1.0], max_solver_steps=500)
    trajectory = compiled(jax.vmap(run, (0, None)))(jnp.array([1.0, 0.1]), None)
    assert trajectory.state.succeeded.tolist() == [False, True]
    assert not np.isfinite(trajectory.history["loss"][0, 1])
    np.testing.assert_allclose(trajectory.params[1], 0.1 / np.sqrt(1 - 0.02), rtol=1e-5)


def test_a_flow_that_failed_goes_on_from_where_it_stopped():
    decay = lambda w, data: 0.5 * jnp.sum(w**2)  # noqa: E731
    flow = compiled(gradient_flow(decay, [1.0, 10.0], max_solver_steps=3))
    stopped = flow(jnp.ones(2), None)
    assert not stopped.state.succeeded
    assert stopped.state.time < 1
    np.testing.assert_allclose(stopped.params, np.exp(-stopped.state.time), rtol=1e-6)
    rest = compiled(gradient_flow(decay, [10.0]))(stopped.params, None, None, stopped.state)
    np.testing.assert_allclose(rest.params, np.exp(-10.0), rtol=1e-3)


def test_parameters_keep_their_dtypes():
    params = {"a": jnp.ones(2, jnp.bfloat16), "b": jnp.ones(2, jnp.float32)}
    decay = lambda p, data: sum(jnp.sum(q.astype("float32") ** 2) for q in p.values())  # noqa: E731
    end = compiled(gradient_flow(decay, [0.1]))(params, None).params
    assert {name: leaf.dtype for name, leaf in end.items()} == {"a": jnp.bfloat16, "b": jnp.float32}


class TestBadInput:
    @pytest.mark.parametrize("times", [[], [[0.0]], [np.nan]])
    def test_shape_of_times(self, times):
        with pytest.raises(ValueError, match="times has shape"):
            gradient_flow(loss, times)

    @pytest.mark.parametrize("times", [[-1.0, 1.0], [1.0, 1.0], [2.0, 1.0]])
    def test_order_of_times(self, times):
        with pytest.raises(ValueError, match="expected increasing times from 0"):
            gradient_flow(loss, times)

    def test_loss(self):
        with pytest.raises(ValueError, match="gradient_flow got"):
            gradient_flow(optax.sgd(0.1), [1.0])

    def test_values(self):
        with pytest.raises(ValueError, match="data"):
            gradient_flow(loss, [1.0])(W, (X * np.nan, Y))

    def test_times_before_the_state(self, first):
        run = gradient_flow(loss, [0.0, 1.0])
        with pytest.raises(ValueError, match=r"has reached time 0.5 and times starts at 0"):
            run(first.params, (X, Y), state=first.state)
        later = lambda state: run(first.params, (X, Y), state=state).state.succeeded  # noqa: E731
        assert not compiled(later)(first.state)

    def test_key_and_state(self, first):
        with pytest.raises(ValueError, match="key is of FlowState; expected one PRNG key"):
            gradient_flow(loss, [2.0])(W, (X, Y), first.state)
        with pytest.raises(ValueError, match="state is of type int; expected FlowState"):
            gradient_flow(loss, [2.0])(W, (X, Y), state=3)
