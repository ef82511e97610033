"""What is recorded along a run, on the population loss and on samples."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import compiled, samples

from ntkflow.systems.weight_normalized_filter.network import Teacher, sampled_loss
from ntkflow.systems.weight_normalized_filter.observables import observables
from ntkflow.training.descent import descend
from ntkflow.training.observe import Snapshot

TEACHER = Teacher(np.array([2.0, 0.0, 1.0]), np.array([1.0, -0.5, 0.3, 0.8]))
START = {"params": {"filter": np.array([0.3, 0.8, 0.6]), "output": np.array([0.2, -0.4, 0.1, 0.3])}}


@pytest.mark.quick
def test_the_records_are_what_they_are_called(dtype):
    teacher, start = jax.tree.map(lambda leaf: leaf.astype(dtype), (TEACHER, START))
    snapshot = Snapshot(0, start, start, None)
    found = compiled(lambda now: {n: f(now) for n, f in observables(teacher).items()})(snapshot)
    assert {value.dtype.name for value in found.values()} == {dtype}
    v, a = (np.asarray(START["params"][name]) for name in ("filter", "output"))
    w, b = (np.asarray(part) for part in TEACHER)
    size = np.linalg.norm(w)
    expected = {
        "angle": np.arccos(v @ w / np.linalg.norm(v) / size),
        "output_error": np.linalg.norm(a - size * b),
        "sum_error": abs(a.sum() - size * b.sum()),
        "overlap": a @ b,
        "total": a.sum(),
        "filter_norm": np.linalg.norm(v),
    }
    assert sorted(found) == sorted(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=20 * np.finfo(dtype).eps)


def test_on_samples_the_teacher_stays_the_reference():
    z = np.asarray(samples(0, 64, 4, 3))
    y = np.maximum(z @ TEACHER.filter, 0) @ TEACHER.output
    optimizer, observe = optax.sgd(0.1), observables(TEACHER)
    run = compiled(descend(sampled_loss, optimizer, steps=200, every=100, observe=observe))
    history = run(START, (z, y)).history
    batches = descend(sampled_loss, optimizer, 200, every=100, batch_size=16, observe=observe)
    traced = jax.eval_shape(batches, START, (z, y), jax.random.key(0)).history
    assert jax.tree.map(np.shape, traced) == jax.tree.map(np.shape, history)
    assert (np.diff(history["output_error"]) < 0).all()
    for name in ("angle", "output_error", "sum_error", "loss"):
        assert history[name][-1] < 0.05 * history[name][0]
    assert (np.diff(history["filter_norm"]) > 0).all()


def test_what_is_refused():
    with pytest.raises(ValueError, match="teacher is of type tuple"):
        observables((jnp.ones(2), jnp.ones(3)))
    snapshot = Snapshot(0, START, START, None)
    with pytest.raises(ValueError, match=r"those of the teacher \(2,\)"):
        observables(Teacher(jnp.ones(2), jnp.ones(4)))["angle"](snapshot)
