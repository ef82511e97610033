"""The network, its initial draw, the teacher, and the loss over samples."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_close, compiled, samples

from ntkflow.layers import ball
from ntkflow.systems.weight_normalized_filter.network import (
    Teacher,
    WeightNormalizedFilter,
    draw_patches,
    make_teacher,
    predict,
    sampled_loss,
    teacher_outputs,
)

N, K, P = 5, 4, 3


def variables_of(dtype="float64"):
    return {"params": {"filter": samples(1, P, dtype=dtype), "output": samples(2, K, dtype=dtype)}}


@pytest.mark.quick
def test_forward_is_equation_51(dtype):
    variables, z = variables_of(dtype), samples(3, N, K, P, dtype=dtype)
    teacher = Teacher(*(np.asarray(samples(4 + i, n, dtype=dtype)) for i, n in enumerate((P, K))))
    v, a = (np.asarray(variables["params"][name], float) for name in ("filter", "output"))
    expected, outputs = np.zeros(N), np.zeros(N)
    for n, sample in enumerate(np.asarray(z, float)):
        for i in range(K):
            expected[n] += a[i] * max(sample[i] @ v, 0) / np.sqrt(v @ v)
            outputs[n] += float(teacher.output[i]) * max(sample[i] @ teacher.filter, 0)

    @compiled
    def everything(variables):
        longer = {"params": {**variables["params"], "filter": 3 * variables["params"]["filter"]}}
        found = WeightNormalizedFilter(param_dtype=dtype).apply(variables, z)
        return found, predict(variables, z), predict(longer, z), teacher_outputs(teacher, z)

    found, predicted, of_longer, of_teacher = everything(variables)
    assert found.dtype == dtype
    for values in (found, predicted, of_longer):  # f does not depend on ‖v‖
        assert_close(values, expected.astype(dtype))
    assert_close(of_teacher, outputs.astype(dtype))


def test_the_initial_draw_is_that_of_theorem_54():
    """v on the unit sphere; a in the ball: (‖a‖/r)ᵏ is uniform, and no direction is preferred."""
    runs, radius = 2000, 0.7
    module = WeightNormalizedFilter(radius=radius, param_dtype="float64")
    draw = jax.vmap(lambda key: module.init(key, np.ones((1, K, P)))["params"])
    params = compiled(lambda: draw(jax.random.split(jax.random.key(0), runs)))()
    v, a = (np.asarray(params[name]) for name in ("filter", "output"))
    assert (v.shape, a.shape) == ((runs, P), (runs, K))
    np.testing.assert_allclose(np.linalg.norm(v, axis=1), 1, rtol=1e-6)
    norms = np.linalg.norm(a, axis=1)
    assert norms.max() <= radius * (1 + 1e-6)
    uniform = (norms / radius) ** K
    assert abs(uniform.mean() - 0.5) < 3 * np.sqrt(1 / 12 / runs)
    assert abs((uniform**2).mean() - 1 / 3) < 3 * np.sqrt(4 / 45 / runs)
    narrow = WeightNormalizedFilter(param_dtype="float32")
    shapes = jax.eval_shape(narrow.init, jax.random.key(0), np.ones((1, K, P)))["params"]
    assert {leaf.dtype.name for leaf in shapes.values()} == {"float32"}
    for rows in (v, a / norms[:, None]):
        d = rows.shape[1]
        assert np.abs(rows.mean(axis=0)).max() < 3.5 * np.sqrt(1 / d / runs)
        second = rows.T @ rows / runs
        assert np.abs(second - np.eye(d) / d).max() < 4 * np.sqrt(1 / d / runs)


@pytest.mark.quick
def test_teachers_have_the_ratio_that_was_asked_for():
    """And nothing else: the part of a* that is orthogonal to 1 has no preferred direction.

    In float32, where a sum that should be 0 is the hardest to have.
    """
    runs, dtype = 800, "float32"
    ratios = np.tile(np.array([0.0, 1.0, 2.5, K], dtype), runs // 4)
    build = jax.vmap(lambda key, ratio: make_teacher(key, K, P, ratio, norm=2.0, dtype=dtype))
    batch = compiled(lambda: build(jax.random.split(jax.random.key(1), runs), ratios))()
    assert {leaf.dtype.name for leaf in batch} == {dtype}
    wide = jax.eval_shape(lambda: make_teacher(jax.random.key(1), K, P, 1.0))
    assert {leaf.dtype.name for leaf in wide} == {"float64"}
    shared, output = (np.asarray(leaf) for leaf in batch)
    total, square = output.sum(axis=1), np.square(output).sum(axis=1)
    eps = np.finfo(dtype).eps
    np.testing.assert_allclose(square, 4, rtol=20 * eps)
    np.testing.assert_allclose(total**2 / square, ratios, rtol=0, atol=20 * eps * K)
    np.testing.assert_allclose(np.linalg.norm(shared, axis=1), 1, rtol=20 * eps)
    assert (total > -20 * eps).all()
    across = output[::4] / 2  # of ratio 0
    count = len(across)
    error = 4 / np.sqrt(count)
    np.testing.assert_allclose(across.T @ across / count, (np.eye(K) - 1 / K) / 3, atol=error / 3)
    assert np.abs(across.mean(axis=0)).max() < error / 2
    assert np.abs(shared.mean(axis=0)).max() < 4 / np.sqrt(P * runs)


def test_one_patch_leaves_no_choice():
    teacher = compiled(lambda: make_teacher(jax.random.key(1), 1, 1, 1.0, norm=3.0))()
    assert teacher.output.tolist() == [3.0]
    np.testing.assert_allclose(abs(float(teacher.filter[0])), 1)


def test_patches_are_standard_normal():
    z = np.asarray(compiled(lambda key: draw_patches(key, 1000, 2, 3))(jax.random.key(3)))
    assert z.shape == (1000, 2, 3)
    rows = z.reshape(1000, 6)
    assert np.abs(rows.mean(axis=0)).max() < 4 / np.sqrt(1000)
    assert np.abs(rows.T @ rows / 1000 - np.eye(6)).max() < 4 * np.sqrt(2 / 1000)
    narrow = jax.eval_shape(lambda key: draw_patches(key, 5, 2, 3, "float32"), jax.random.key(3))
    assert (narrow.shape, narrow.dtype) == ((5, 2, 3), "float32")


def test_the_sampled_loss_is_half_the_mean():
    variables, z, y = variables_of(), samples(6, N, K, P), samples(7, N)
    found, outputs = compiled(lambda v: (sampled_loss(v, (z, y)), predict(v, z)))(variables)
    np.testing.assert_allclose(found, np.mean(np.square(outputs - y)) / 2, rtol=1e-12)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: make_teacher(jax.random.key(0), 0, 3, 1.0), "k is 0; expected a whole number"),
        (lambda: make_teacher(jax.random.key(0), 4, 0, 1.0), "p is 0; expected a whole number"),
        (lambda: make_teacher(jax.random.key(0), 4, 3, 4.5), r"ratio is 4.5; .* in \[0, 4\]"),
        (lambda: make_teacher(jax.random.key(0), 4, 3, -1.0), "ratio is -1.0; expected a finite"),
        (lambda: make_teacher(jax.random.key(0), 1, 3, 0.5), "ratio is 0.5; expected 1"),
        (lambda: make_teacher(jax.random.key(0), 4, 3, 1.0, norm=0.0), "norm is 0.0"),
        (lambda: make_teacher(jax.random.key(0), 4, 3, jnp.ones(2)), r"ratio has shape \(2,\)"),
        (lambda: draw_patches(jax.random.key(0), 0, 4, 3), "n is 0"),
        (lambda: ball(-1.0), "radius is -1.0"),
        (lambda: predict(variables_of(), np.ones((K, P))), r"z has shape \(4, 3\)"),
        (lambda: predict(variables_of(), np.ones((2, P, K))), r"z has shape \(2, 3, 4\), the out"),
        (lambda: predict({"params": {"filter": np.ones(P)}}, np.ones((2, K, P))), "'output'"),
        (
            lambda: predict(
                {"params": {"filter": np.zeros(P), "output": np.ones(K)}}, np.ones((2, K, P))
            ),
            "filter is 0; expected a vector that has a direction",
        ),
        (lambda: teacher_outputs((np.ones(P), np.ones(K)), np.ones((2, K, P))), "of type tuple"),
        (
            lambda: teacher_outputs(Teacher(np.ones(P), np.zeros(K)), np.ones((2, K, P))),
            r"a\* is 0",
        ),
        (
            lambda: teacher_outputs(Teacher(np.ones(P), np.ones((K, 1))), np.ones((2, K, P))),
            r"a\* has shape \(4, 1\); expected one axis",
        ),
    ],
)
def test_what_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
