"""A network and its linearization in lock step, and the ratio that the gap is of the order of."""

import functools

import helpers
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree

from ntkflow.systems.composite.constants import NearIsometry, measure_near_isometry
from ntkflow.systems.composite.lazy import lazy_gap, lazy_ratio
from ntkflow.training.descent import descend
from ntkflow.training.linear import linearize
from ntkflow.training.losses import squared_loss

total = functools.partial(squared_loss, reduction="sum")


def smooth(variables, x):
    """V tanh(W x), an input to every output."""
    params = variables["params"]
    return jnp.tanh(x @ params["hidden"]) @ params["output"] * variables["fixed"]["scale"]


@functools.cache
def problem(dtype="float64", width=8):
    draw = lambda seed, *shape: helpers.samples(seed, *shape).astype(dtype)  # noqa: E731
    params = {"hidden": draw(0, 3, width), "output": draw(1, width, 2) / width**0.5}
    variables = {"params": params, "fixed": {"scale": jnp.ones((), dtype)}}
    return variables, (draw(2, 5, 3), draw(3, 5, 2))


@functools.cache
def results():
    """Of the rates 0.02 and 0.01, mapped."""
    variables, data = problem()
    run = lambda rate: lazy_gap(smooth, total, rate, 7, every=3)(variables, data)  # noqa: E731
    return jax.tree.map(np.asarray, helpers.compiled(jax.vmap(run))(jnp.array([0.02, 0.01])))


def result():
    return jax.tree.map(lambda leaf: leaf[0], results())


@pytest.mark.quick
def test_both_runs_are_those_of_descend():
    variables, data = problem()
    pair = result()
    applies = (smooth, linearize(smooth, variables))
    ends, losses = (pair.variables, pair.linear_variables), (pair.loss, pair.linear_loss)
    runs = [descend(total(apply), optax.sgd(0.02), 7, every=3) for apply in applies]
    singles = helpers.compiled(lambda *given: [run(*given) for run in runs])(variables, data)
    for trajectory, end, loss in zip(singles, ends, losses, strict=True):
        helpers.assert_close(loss, trajectory.history["loss"])
        jax.tree.map(helpers.assert_close, end, trajectory.params)
        assert pair.steps.tolist() == trajectory.steps.tolist() == [0, 3, 6, 7]


def test_dtype_is_that_of_the_network(dtype):
    pair = jax.eval_shape(lazy_gap(smooth, total, 0.02, 7, every=3), *problem(dtype))
    assert {leaf.dtype for leaf in jax.tree.leaves(pair[1:])} == {np.dtype(dtype)}


def test_records_are_distances_of_the_two_runs():
    variables, (x, _) = problem()
    pair = result()
    for record in (pair.gap, pair.output_distance, pair.parameter_distance, pair.movement):
        assert record[0] < 1e-14
        assert record[-1] > 1e-3

    @helpers.compiled
    def distances(network, linear):
        apart = smooth(network, x) - linearize(smooth, variables)(linear, x)
        norm = lambda tree: jnp.linalg.norm(ravel_pytree(tree)[0])  # noqa: E731
        difference = jax.tree.map(jnp.subtract, network, linear)
        return norm(apart), norm(difference), norm(jax.tree.map(jnp.subtract, network, variables))

    found = distances(pair.variables, pair.linear_variables)
    records = (pair.output_distance, pair.parameter_distance, pair.movement)
    for value, record in zip(found, records, strict=True):
        helpers.assert_close(record[-1], value)
    helpers.assert_close(pair.gap, np.abs(np.asarray(pair.loss) - np.asarray(pair.linear_loss)))
    assert pair.variables["fixed"]["scale"] == 1  # the collection is not trained


def test_linear_network_has_no_gap():
    x, y = helpers.samples(4, 5, 3), helpers.samples(5, 5)
    run = helpers.compiled(lazy_gap(lambda w, x: x @ w, squared_loss, 0.1, 5))
    pair = run(helpers.samples(6, 3), (x, y))
    helpers.assert_close(pair.gap, np.zeros(6), scale=float(pair.loss[0]))
    helpers.assert_close(pair.output_distance, np.zeros(6), scale=float(jnp.linalg.norm(y)))
    assert pair.loss[-1] < pair.loss[0]


def test_rates_are_mapped():
    mapped = results()
    assert mapped.gap.shape == (2, 4)
    assert np.all(mapped.movement[1, 1:] < mapped.movement[0, 1:])


def test_relative_gap_follows_ratio_with_residual_not_without():
    # c f on c y, with steps η/c², is the same path: gap/h(θ₀) and the ratio with its residual stay.
    variables, (x, y) = problem()
    probe = jax.tree.map(lambda leaf: np.asarray(leaf) + 0.1, variables)

    @helpers.compiled
    @jax.vmap
    def scaled(c):
        apply = lambda v, x: c * smooth(v, x)  # noqa: E731
        pair = lazy_gap(apply, total, 0.02 / c**2, 7, every=7)(variables, (x, c * y))
        near = measure_near_isometry(apply, variables, x, probe=probe)
        residual = jnp.linalg.norm(apply(variables, x) - c * y)
        gap = pair.gap[-1] / pair.loss[0]
        return gap, lazy_ratio(near, residual).value, lazy_ratio(near).value

    gaps, ratios, bare = scaled(jnp.array([1.0, 5.0]))
    helpers.assert_close(gaps[1], gaps[0], factor=1e5)
    helpers.assert_close(ratios[1], ratios[0], factor=1e5)
    helpers.assert_close(bare[1], bare[0] / 5, factor=1e5)


def test_output_scale_makes_training_lazy():
    # Chizat et al. (2019): c (f − f₀) with labels that stay: gap and ratio fall like 1/c.
    variables, (x, y) = problem()

    def gap(c):
        start = smooth(variables, x)
        apply = lambda v, x: c * (smooth(v, x) - start)  # noqa: E731
        pair = lazy_gap(apply, total, 0.02 / c**2, 7, every=7)(variables, (x, y))
        return pair.gap[-1]

    gaps = helpers.compiled(jax.vmap(gap))(jnp.array([10.0, 100.0, 1000.0]))
    np.testing.assert_allclose(np.diff(np.log10(gaps)), -1, atol=0.1)


def test_ratio_of_a_near_isometry():
    near = NearIsometry(mu=0.5, nu=2.0, smoothness=5.0)
    bound = lazy_ratio(near, residual=2.0, constant=3.0)
    assert float(bound.value) == pytest.approx(3 * 2 * 5 / 4)
    assert bound.constant == 3.0
    assert "residual" in bound.source
    assert float(lazy_ratio(NearIsometry(0.0, 0.0, 1.0)).value) == np.inf
    assert float(jax.jit(lambda nu: lazy_ratio(near._replace(nu=nu)).value)(2.0)) == 1.25
    with pytest.raises(ValueError, match=r"residual is -1.0; expected 0 or greater"):
        lazy_ratio(near, residual=-1.0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"loss": None}, "loss is of type NoneType; expected a builder"),
        ({"learning_rate": -0.1}, "learning_rate is -0.1; expected 0 or greater"),
        ({"learning_rate": float("nan")}, "learning_rate holds NaN"),
        ({"steps": 0}, "steps is 0; expected a whole number"),
        ({"every": 0}, "every is 0; expected a whole number"),
        ({"apply": 3}, "apply is of type int"),
    ],
)
def test_refuses(arguments, message):
    good = {"apply": smooth, "loss": total, "learning_rate": 0.1, "steps": 2}
    with pytest.raises(ValueError, match=message):
        lazy_gap(**(good | arguments))


def test_refuses_a_loss_in_place_of_its_builder():
    variables, data = problem()
    with pytest.raises(ValueError, match="expected a builder"):
        lazy_gap(smooth, lambda apply: 0.0, 0.1, 2)(variables, data)
