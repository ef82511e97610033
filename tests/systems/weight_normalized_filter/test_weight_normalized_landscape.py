"""Minima and saddles: where the gradient is 0, which of them are minima, and Lemma 5.1."""

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import assert_close, compiled, samples

from ntkflow.systems.weight_normalized_filter.landscape import (
    best_output,
    global_minimum,
    has_spurious_minimum,
    in_basin,
    saddle_angle,
    spurious_conditions,
    spurious_loss,
    spurious_minimum,
    success_conditions,
)
from ntkflow.systems.weight_normalized_filter.limits import certificate_limit, limit
from ntkflow.systems.weight_normalized_filter.network import Teacher
from ntkflow.systems.weight_normalized_filter.population import (
    population_gradients,
    population_loss,
)
from ntkflow.training.descent import descend

K, P = 4, 3
THRESHOLD = (K + np.pi - 1) / np.pi  # of (1ᵀa*)²/‖a*‖²: 1.955
RATIOS = [0.0, 1.0, 1.9, 2.0, 4.0]
FILTER = np.array([1.2, -0.4, 0.9])


def teacher_of(ratio, norm=1.3, length=2.0, dtype="float64"):
    across = np.array([1.0, -2.0, 0.5, 0.5])
    unit = across / np.linalg.norm(across)
    output = norm * (np.sqrt(ratio / K) / np.sqrt(K) + np.sqrt(1 - ratio / K) * unit)
    shared = length * FILTER / np.linalg.norm(FILTER)
    return Teacher(np.asarray(shared, dtype), np.asarray(output, dtype))


def g(phi):
    phi = np.asarray(phi)
    return (np.pi - phi) * np.cos(phi) + np.sin(phi)


def variables_at(shared, output):
    return {"params": {"filter": np.asarray(shared), "output": np.asarray(output)}}


turned = compiled(jax.vmap(limit, in_axes=(0, None)))
gradients = compiled(population_gradients)
losses = compiled(jax.vmap(population_loss, in_axes=(0, None)))
ORDER = jax.flatten_util.ravel_pytree(variables_at(np.zeros(P), np.zeros(K)))[1]
hessian = compiled(
    lambda point, teacher: jax.jacfwd(
        lambda flat: jax.flatten_util.ravel_pytree(population_gradients(ORDER(flat), teacher))[0]
    )(jax.flatten_util.ravel_pytree(point)[0])
)


@compiled
def at_both(teacher):
    """The two points; gradients and losses with two lengths of v; and what is stated of them."""
    points = [global_minimum(teacher), spurious_minimum(teacher)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(2 * points))
    lengths = jnp.asarray([1.0, 1.0, 0.3, 0.3], teacher.filter.dtype)
    stacked["params"]["filter"] *= lengths[:, None]
    slopes = jax.vmap(population_gradients, (0, None))(stacked, teacher)
    values = jax.vmap(population_loss, (0, None))(stacked, teacher)
    return points, slopes, values, spurious_loss(teacher).value, has_spurious_minimum(teacher)


@pytest.mark.quick
@pytest.mark.parametrize("ratio", RATIOS)
def test_both_points_are_stationary(ratio, dtype):
    """Up to rounding, with ‖w*‖ ≠ 1 and along the ray of v; and the loss is as stated."""
    _, slopes, values, bound, _ = at_both(teacher_of(ratio, dtype=dtype))
    rounding = 8 * np.finfo(dtype).eps * (2.0 * 1.3) ** 2
    for leaf in jax.tree.leaves(slopes):
        assert leaf.dtype == dtype
        assert np.abs(leaf).max() <= rounding
    np.testing.assert_allclose(values, [0, bound, 0, bound], rtol=0, atol=rounding)


@pytest.mark.quick
@pytest.mark.parametrize("ratio", RATIOS)
def test_the_loss_at_the_spurious_point(ratio):
    """The matrix form of Theorem 5.5, ¼/π [a*ᵀMa* − bᵀM⁻¹b], and the number at 1ᵀa* = 0."""
    teacher = teacher_of(ratio)
    w, a = (np.asarray(part) for part in teacher)
    m = np.ones((K, K)) + (np.pi - 1) * np.eye(K)
    b = (np.ones((K, K)) - np.eye(K)) @ a
    size = np.linalg.norm(w)
    (_, point), _, _, bound, exists = at_both(teacher)
    np.testing.assert_allclose(point["params"]["output"], size * np.linalg.solve(m, b), rtol=1e-12)
    expected = size**2 * (a @ m @ a - b @ np.linalg.solve(m, b)) / (4 * np.pi)
    np.testing.assert_allclose(bound, expected, rtol=1e-12)
    share = float(bound) / (size**2 * (a @ a))
    if ratio == 0:
        np.testing.assert_allclose(share, 0.133264, atol=5e-7)
    assert share >= 0.133263
    # Below ¼ exactly where it is a minimum.
    assert (share < 0.25) == bool(exists) == (ratio < THRESHOLD)


def neighbours(point, count=400):
    """Points around one: turns of the filter alone, then small moves of both."""
    shared, output = (np.asarray(point["params"][name]) for name in ("filter", "output"))
    both = np.arange(count)[:, None] >= count // 2
    along_v = np.where(both, 0.02, 0.3) * np.asarray(samples(1, count, P))
    along_a = np.where(both, 0.02, 0.0) * np.asarray(samples(2, count, K))
    return variables_at(shared[None, :] + along_v, output[None, :] + along_a)


@pytest.mark.parametrize("ratio", RATIOS)
def test_the_spurious_point_is_a_minimum_up_to_the_threshold(ratio):
    """The Hessian is 0 in v, so it cannot tell; the loss around the point can."""
    teacher = teacher_of(ratio)
    (_, point), _, _, bound, exists = at_both(teacher)
    matrix = hessian(point, teacher)
    m = np.ones((K, K)) + (np.pi - 1) * np.eye(K)
    expected = np.zeros((P + K, P + K))
    expected[P:, P:] = m / (2 * np.pi)
    np.testing.assert_allclose(matrix, expected, atol=1e-14)

    overlap = np.sum(np.asarray(point["params"]["output"]) * np.asarray(teacher.output))
    assert bool(exists) == (overlap < 0) == (ratio < THRESHOLD)
    around = neighbours(point)
    cosine = around["params"]["filter"] @ FILTER / np.linalg.norm(FILTER)
    phi = np.arccos(cosine / np.linalg.norm(around["params"]["filter"], axis=1))
    rise = np.asarray(losses(around, teacher)) - float(bound)
    if overlap < 0:
        assert rise.min() > 1e-9
    else:
        assert rise[:200].max() < -1e-9
    # The rise is a form in a and −g aᵀa*‖w*‖/2π, to the last term.
    moved = np.asarray(around["params"]["output"]) - np.asarray(point["params"]["output"])[None, :]
    sums = around["params"]["output"] @ np.asarray(teacher.output) * 2.0
    form = np.einsum("ni,ij,nj->n", moved, m, moved) / (4 * np.pi)
    np.testing.assert_allclose(rise, form - g(phi) * sums / (2 * np.pi), atol=1e-13)


def test_with_one_patch_it_is_a_saddle():
    """aᵀa* = 0 there: the loss falls when a follows the filter, though not by the filter alone."""
    single = Teacher(np.array([1.0, 0.0]), np.array([2.0]))

    @compiled
    def everything(phi):
        beside = {
            "params": {
                "filter": jnp.stack([jnp.cos(phi), jnp.sin(phi)]),
                "output": best_output(phi, single),
            }
        }
        there = spurious_minimum(single)["params"]["output"], spurious_loss(single).value
        return *there, has_spurious_minimum(single), population_loss(beside, single)

    for delta in (0.3, 0.03):
        output, base, exists, beside = jax.device_get(everything(np.pi - delta))
        assert output.tolist() == [0.0]
        np.testing.assert_allclose(base, 0.25 * 4)
        assert not exists
        assert float(beside) < base * (1 - delta**6 / 100)
    line = Teacher(np.array([1.0]), np.array([2.0]))
    assert has_spurious_minimum(line)  # p = 1: the filter cannot turn


def test_the_minima_of_table_51():
    """Where the table says 1 at k = 25 and 36 there is nothing but the global minimum."""
    ratios = np.array([0.0, 1.0, 4.0, 8.6, 8.7, 9.0, 16.0, 25.0])
    across = np.where(np.arange(25) == 0, 1.0, np.where(np.arange(25) == 1, -1.0, 0.0)) / 2**0.5
    output = np.sqrt(ratios)[:, None] / 25 + np.sqrt(1 - ratios / 25)[:, None] * across[None, :]
    np.testing.assert_allclose(np.sum(output, 1) ** 2 / np.sum(output**2, 1), ratios, atol=1e-12)
    teachers = Teacher(np.ones((8, 2)), output)
    has = compiled(jax.vmap(has_spurious_minimum))(teachers)
    assert has.tolist() == [True] * 4 + [False] * 4


def test_the_global_minimum_is_a_strict_one_but_for_the_length():
    teacher = teacher_of(1.0)
    values = np.linalg.eigvalsh(hessian(at_both(teacher)[0][0], teacher))
    assert abs(values[0]) < 1e-14
    assert values[1] > 0.05


UNIT = FILTER / np.linalg.norm(FILTER)
ACROSS = np.cross(UNIT, [0.0, 0.0, 1.0]) / np.linalg.norm(np.cross(UNIT, [0.0, 0.0, 1.0]))


@compiled
def around_the_saddle(teacher):
    """Its angle; the points a little below, at and above it, and at φ = 0 and π; what is there."""
    saddle = saddle_angle(teacher)
    angles = jnp.stack([saddle - 0.1, saddle, saddle + 0.1, 0.0, np.pi])

    def at(phi):
        shared = jnp.cos(phi) * UNIT + jnp.sin(phi) * ACROSS
        point = {"params": {"filter": shared, "output": best_output(phi, teacher)}}
        return (
            point,
            population_loss(point, teacher),
            population_gradients(point, teacher),
            limit(point, teacher),
        )

    return saddle, *jax.vmap(at)(angles)


@pytest.mark.parametrize("ratio", [0.0, 1.0, 1.9])
def test_the_saddles_between(ratio):
    """Lemma 5.1 leaves out aᵀa* = 0: stationary, and with a(φ) the highest point on the way."""
    teacher = teacher_of(ratio)
    phi, points, values, slopes, limits = jax.device_get(around_the_saddle(teacher))
    assert np.pi / 2 - 1e-9 <= phi < np.pi
    rho = ratio / (K + np.pi - 1)
    np.testing.assert_allclose(g(phi), (1 - np.pi * rho) / (1 - rho), atol=1e-14)
    for leaf in jax.tree.leaves(slopes):
        assert np.abs(leaf[1]).max() < 1e-13
    assert not certificate_limit(jax.tree.map(lambda entry: entry[1], limits)).applies
    assert values[1] > values[[0, 2]].max()
    point = jax.tree.map(lambda leaf: leaf[1], points)
    assert np.linalg.eigvalsh(hessian(point, teacher))[0] < -1e-3
    for row, minimum in zip((3, 4), at_both(teacher)[0], strict=True):
        assert_close(points["params"]["output"][row], minimum["params"]["output"])


def test_without_a_spurious_minimum_there_is_no_saddle_between():
    assert np.isnan(float(around_the_saddle(teacher_of(2.0))[0]))
    # One patch is the border case, whatever rounding says.
    single = Teacher(np.ones((4, 2)), np.array([[1.0], [0.3], [0.7], [2.1]]))
    angles, exists = compiled(jax.vmap(lambda t: (saddle_angle(t), has_spurious_minimum(t))))(
        single
    )
    assert np.isnan(angles).all()
    assert not exists.any()


ETA, STEPS = 0.2, 2000
descent = descend(population_loss, optax.sgd(ETA), steps=STEPS, every=200)


@compiled
def descended(start, teacher):
    end = descent(start, teacher)
    return end.history["loss"], limit(end.params, teacher)


def run(start, teacher):
    """The losses, and what Lemma 5.1 speaks of at the end."""
    return jax.device_get(descended(start, teacher))


@compiled
def all_conditions(variables, teacher):
    return (
        success_conditions(variables, teacher).all,
        spurious_conditions(variables, teacher).all,
        in_basin(variables, teacher),
        in_basin(variables, teacher, printed=True),
    )


def start_of(teacher, phi, overlap):
    """v at φ, and a small a with the sign of aᵀa* given, 1ᵀa = 0."""
    output = overlap * (np.asarray(teacher.output) - np.mean(teacher.output))
    return variables_at(np.cos(phi) * UNIT + np.sin(phi) * ACROSS, output)


@pytest.mark.parametrize("ratio", [0.0, 0.3])
def test_runs_end_where_their_conditions_say(ratio):
    teacher = teacher_of(ratio)
    good, bad = start_of(teacher, 1.3, 0.1), start_of(teacher, 2.4, -0.1)
    assert [bool(entry) for entry in all_conditions(good, teacher)] == [True, False, True, True]
    assert [bool(entry) for entry in all_conditions(bad, teacher)] == [False, True, False, False]
    losses, points = zip(*(run(start, teacher) for start in (good, bad)), strict=True)
    base = float(at_both(teacher)[3])
    assert losses[0][-1] < 1e-20
    np.testing.assert_allclose(losses[1][-1], base, rtol=1e-5)
    assert losses[1][-1] >= base * (1 - 1e-12)
    assert points[0].angle < 1e-9
    assert points[0].global_distance < 1e-9
    assert 1e-4 < points[1].supplement < 2e-2  # like 1/t, not geometrically
    assert points[1].spurious_distance < 1e-4
    for point in points:
        certificate = certificate_limit(point)
        assert certificate.applies
        assert certificate.holds


@pytest.mark.parametrize("ratio", RATIOS)
def test_lemma_51_in_terms_of_gradients_holds_anywhere(ratio, dtype):
    """The first claim is used to 1/π near φ = 0, to 2/π near π, and wholly at π/2."""
    teacher = teacher_of(ratio, dtype=dtype)
    w = np.asarray(teacher.filter) / 2
    across = np.cross(w, [0.0, 0.0, 1.0])
    phi = np.concatenate([np.linspace(0, np.pi, 41), [1e-6, np.pi - 1e-6]])
    shared = np.cos(phi)[:, None] * w[None, :] + np.sin(phi)[:, None] * across[None, :]
    points = variables_at(
        np.asarray(shared, dtype),
        np.asarray(0.5, dtype) + np.asarray(samples(5, len(phi), K, dtype=dtype)),
    )
    record = turned(points, teacher)
    certificate = certificate_limit(record)
    assert certificate.applies
    for claim in certificate.claims:
        assert claim.holds, claim.statement
    first = certificate.claims[0]
    assert first.smaller.dtype == dtype
    ratio = first.smaller[1:40] / first.larger[1:40]
    assert ratio.min() > 0.3
    assert ratio.max() > 0.95


def test_the_basin_but_for_one_point():
    """vᵀw* = aᵀa* = 1ᵀa* = 0 is in the printed set, and nothing ever moves there but a's rest."""
    teacher = Teacher(np.array([2.0, 0.0, 0.0]), np.array([1.0, -1.0, 2.0, -2.0]))
    start = variables_at([0.0, 1.0, 0.0], [1.0, 1.0, -1.0, -1.0])
    assert [bool(entry) for entry in all_conditions(start, teacher)[2:]] == [False, True]
    for _ in range(3):
        slopes = gradients(start, teacher)["params"]
        assert np.abs(slopes["filter"]).max() < 1e-14
        assert abs(float(np.asarray(slopes["output"]) @ teacher.output)) < 1e-14
        moved = start["params"]["output"] - 0.5 * np.asarray(slopes["output"])
        start = variables_at(start["params"]["filter"], moved)
    # The rest of the border is in the basin: vᵀw* = 0, or aᵀa* = 0, or both with 1ᵀa* ≠ 0.
    uneven = teacher._replace(output=np.array([1.0, -1.0, 2.0, -1.9]))
    for toward, output, other in (
        (0.0, [1.0, -0.5, 0.5, -1.0], teacher),
        (0.5, [1.0, 1.0, -1.0, -1.0], teacher),
        (0.0, [0.0, 0.0, 0.0, 0.0], uneven),
    ):
        start = variables_at([toward, 1.0, 0.0], output)
        assert [bool(entry) for entry in all_conditions(start, other)[2:]] == [True, True]
        loss, _ = run(start, other)
        assert loss[-1] < 1e-3 * loss[0]


@pytest.mark.quick
def test_conditions_one_by_one():
    teacher = Teacher(np.array([2.0, 0.0]), np.array([1.0, -1.0, 0.5, 0.0]))  # 1ᵀb = 1
    up, down = [1.0, 0.5], [-1.0, 0.5]
    cases = [
        (up, [1.0, 0.0, 0.0, 0.0], (True, True, True), (False, True, False)),
        (up, [1.0, 0.0, 0.0, 0.1], (True, False, True), (False, False, False)),
        (down, [-1.0, 0.0, 0.0, 0.0], (False, True, False), (True, True, True)),
        (down, [0.0, 0.0, 0.0, -0.5], (False, True, False), (False, True, True)),
        ([-0.01, 0.5], [-1.0, 0.0, 0.0, 0.0], (False, True, False), (True, True, False)),
    ]
    batch = variables_at([case[0] for case in cases], [case[1] for case in cases])
    both = compiled(
        jax.vmap(
            lambda v: (
                success_conditions(v, teacher),
                spurious_conditions(v, teacher),
                in_basin(v, teacher),
            )
        )
    )
    success, spurious, inside = jax.device_get(both(batch))
    for i, (_, _, of_success, of_spurious) in enumerate(cases):
        assert tuple(bool(entry[i]) for entry in success) == of_success
        assert tuple(bool(entry[i]) for entry in spurious) == of_spurious
        assert bool(success.all[i]) == all(of_success)
        assert bool(spurious.all[i]) == all(of_spurious)
    assert inside.tolist() == [True, False, False, False, False]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: spurious_minimum(Teacher(np.zeros(2), np.ones(3))), r"w\* is 0"),
        (lambda: global_minimum({"filter": np.ones(2)}), "teacher is of type dict"),
        (lambda: best_output(-1.0, teacher_of(1.0)), "angle is -1.0"),
        (lambda: best_output(np.ones(K), teacher_of(1.0)), r"phi has shape \(4,\)"),
        (lambda: certificate_limit({}), "point is of type dict; expected a Limit"),
        (
            lambda: in_basin(variables_at(np.ones(2), np.ones(K)), teacher_of(1.0)),
            r"The filter has shape \(2,\)",
        ),
    ],
)
def test_what_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
