"""Observers and certificates of the deep networks: runs that hold, runs that fail, many seeds."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_close, compiled
from once import constants_once

from ntkflow.systems.deep import certificates, limits
from ntkflow.systems.deep.certificates import certificate_gradient_descent
from ntkflow.systems.deep.constants import measured_norms
from ntkflow.systems.deep.limits import limit
from ntkflow.systems.deep.networks import ConvolutionalResNet, FullyConnected, ResNet, hidden
from ntkflow.systems.deep.observables import Step, observables, step_observables
from ntkflow.training.losses import squared_loss
from ntkflow.training.observe import Snapshot

RATE = "‖y − u(k)‖² ≤ (1 − ηλ_0/2)ᵏ ‖y − u(0)‖²"
STEP_RATE = "‖y − u(k+1)‖² ≤ (1 − ηλ_0/2) ‖y − u(k)‖²"
SQUARED = "‖u(k+1) − u(k)‖² ≤ ⅛ ηλ_0 ‖y − u(k)‖²"
NARROW = ResNet(width=12, depth=2)


def normal(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape))


def unit(x):
    x = np.asarray(x)
    norms = np.linalg.norm(x.reshape(len(x), -1), axis=1)
    return jnp.asarray(x / norms.reshape(-1, *(1 for _ in x.shape[1:])))


@pytest.fixture(scope="module", autouse=True)
def once():
    with constants_once(certificates, limits):
        yield


class Recorder:
    """Plain gradient descent, recorded every ten steps; compiled once for each shape."""

    def __init__(self, module):
        loss = squared_loss(module.apply)

        def observe(params, initial, x, y, last, step_size):
            observers = step_observables(module, last, step_size)
            snapshot = Snapshot(0, params, initial, (x, y))
            return {name: observer(snapshot) for name, observer in observers.items()}

        def advance(params, x, y, step_size):
            def step(_, params):
                gradient = jax.grad(loss)(params, (x, y))
                return jax.tree.map(lambda leaf, g: leaf - step_size * g, params, gradient)

            return jax.lax.fori_loop(0, 10, step, params)

        self.observe, self.advance = compiled(observe), compiled(advance)

    def __call__(self, initial, x, y, last, step_size, records=3):
        params, rows = initial, []
        for _ in range(records):
            rows.append(jax.device_get(self.observe(params, initial, x, y, last, step_size)))
            params = self.advance(params, x, y, step_size)
        return jax.tree.map(lambda *leaves: np.stack(leaves), *rows), 10 * np.arange(records)


def drawn(module, x, seed):
    rng, m = np.random.default_rng(seed), module.width
    window = (module.filter_size,) if isinstance(module, ConvolutionalResNet) else ()
    shapes = {f"layer_{h}": (*window, m, m) for h in range(1, module.depth + 1)}
    shapes |= {"layer_1": (*window, x.shape[-1], m), "output": (*x.shape[1:-1], m)}
    draw = lambda shape: jnp.asarray(rng.normal(size=shape), x.dtype)  # noqa: E731
    return {"params": {name: draw(shape) for name, shape in shapes.items()}}


@pytest.fixture(scope="module")
def study():
    """Samples, labels, and a run (seeds, η) of a narrow ResNet, its seeds stacked."""
    x, y = unit(normal(0, 3, 6)), normal(1, 3)
    last, record = limit(NARROW, x).last, Recorder(NARROW)

    def run(seeds, step_size):
        runs = [record(drawn(NARROW, x, seed), x, y, last, step_size) for seed in seeds]
        return jax.tree.map(lambda *leaves: np.stack(leaves), *runs)

    return x, y, run, record


def by_statement(certificate):
    return {entry.statement: entry for entry in (*certificate.hypotheses, *certificate.claims)}


@pytest.mark.quick
def test_theorem_3_1_applies_and_holds():
    """Two samples, one layer, δ = 0.9 and labels near the outputs: what fits into a test."""
    module, x, delta = FullyConnected(width=4096, depth=1), jnp.asarray(np.eye(2)), 0.9
    params = drawn(module, x, seed=0)
    y = np.asarray(compiled(module.apply)(params, x)) + 1e-5 * np.array([1.0, -2.0])
    last, step_size = limit(module, x).last, 2e-8
    run = Recorder(module)(params, x, y, last, step_size)
    certificate = certificate_gradient_descent(*run, (x, y), module, step_size, delta=delta)
    failing = [entry.statement for entry in certificate.hypotheses if not entry.holds]
    assert failing == []
    assert certificate.applies
    assert certificate.holds
    for claim in certificate.claims:
        assert claim.margin > 0, claim.statement
    # A polynomial and a kink are refused, whatever the run.
    for activation, words in ((lambda z: z * z, "is a polynomial"), (jax.nn.relu, "has a kink")):
        other = FullyConnected(width=4096, depth=1, activation=activation)
        with pytest.raises(ValueError, match=words):
            certificate_gradient_descent(*run, (x, y), other, step_size)


def test_a_narrow_network_with_a_large_step_fails_and_the_certificate_says_where(study):
    x, y, run, _ = study
    history, steps = run(range(4), 3.0)
    certificate = certificate_gradient_descent(history, steps, (x, y), NARROW, 3.0)
    entries = by_statement(certificate)
    assert not certificate.applies.any()
    assert not certificate.holds.any()
    assert not entries[RATE].holds.any()
    assert not entries[SQUARED].holds.any()
    assert not entries["R' ≤ R"].holds.any()
    assert not entries["η ≤ what the proof's constants allow"].holds.any()
    assert entries["‖x_i‖ = 1, to 10⁻⁶"].holds
    # What holds for all steps at the first record holds here too.
    assert entries["‖x^(h)(0)‖ ≤ c_{x,0}"].holds.all()
    rows = {row["statement"]: row for row in certificate.rows()}
    assert rows[RATE]["holds"] == 0
    assert rows[RATE]["source"] == "Du (2019), Theorem 3.2"


def test_a_practical_step_converges_faster_than_guaranteed(study):
    x, y, run, _ = study
    history, steps = run(range(4), 0.02)
    given = ((x, y), NARROW)
    many = certificate_gradient_descent(history, steps, *given, np.full(4, 0.02))
    entries = by_statement(many)
    for statement in (
        RATE,
        STEP_RATE,
        "‖W(k) − W(0)‖_F / √m ≤ R', of every layer and a",
        "‖W(k+1) − W(k)‖_F ≤ η Q'(k), of every layer and a",
        "‖x^(h)(k) − x^(h)(0)‖ within c R",
        "‖I_2(k)‖ ≤ ½ η² √n κ Q'²",
        "‖u(k+1) − u(k)‖² ≤ ν η² n Q'²",
        "‖G^(H)(k) − G^(H)(0)‖ ≤ B n R",
    ):
        assert entries[statement].holds.all(), statement
        assert (entries[statement].margin > 0).all(), statement
    assert not many.applies.any()

    # The verdict on one seed.
    single = jax.tree.map(lambda leaf: leaf[2], history)
    alone = certificate_gradient_descent(single, steps[2], *given, 0.02)
    for one, batch in zip(alone.claims, many.claims, strict=True):
        assert one.statement == batch.statement
        np.testing.assert_allclose(np.broadcast_to(batch.margin, 4)[2], one.margin, rtol=1e-12)

    # The same numbers as those of images of two pixels, under another theorem, and by norms that
    # were measured.
    params, image = drawn(NARROW, x, 2), ConvolutionalResNet(width=12, depth=2)
    measure = compiled(lambda p: measured_norms(p["params"], hidden(NARROW, p, x)))
    norms, data = jax.device_get(measure(params)), (np.asarray(x).reshape(3, 2, 3), y)
    other = certificate_gradient_descent(single, steps[2], data, image, 0.02, norms=norms)
    assert "Theorem 3.3" in other.theorem
    assert [claim.statement for claim in other.claims] == [c.statement for c in alone.claims]
    near = by_statement(other)["‖x^(h)(0)‖ ≤ c_{x,0}"]
    assert near.holds
    assert near.ratio > 0.99  # c_{x,0} is the largest norm itself


def test_divergence_is_data(study):
    x, y, run, _ = study
    history, steps = run(range(4), 1e6)
    assert not np.isfinite(history["squared_error"][:, -1]).any()
    certificate = certificate_gradient_descent(history, steps, (x, y), NARROW, 1e6)
    assert not certificate.holds.any()
    assert not by_statement(certificate)[RATE].holds.any()


def test_observers_are_what_their_names_say(study, dtype):
    """In float64 by the compiled observers of the run, in float32 those of images."""
    if dtype == "float64":
        module, (x, y, _, record) = NARROW, study
    else:
        module = ConvolutionalResNet(width=6, depth=2)
        x, y = (jnp.asarray(np.asarray(a), dtype) for a in (unit(normal(5, 3, 3, 2)), normal(6, 3)))
        record = Recorder(module)
    m, step_size, last = module.width, 0.1, jnp.asarray(np.eye(3), dtype)
    initial, params = (drawn(module, x, seed) for seed in (7, 8))
    seen = jax.device_get(record.observe(params, initial, x, y, last, step_size))
    names = list(params["params"])

    @compiled
    def wide(tree):  # u, the Jacobian by layer (n, p), and the features
        u = module.apply(tree, x)
        jacobian = jax.jacrev(lambda tree: module.apply(tree, x))(tree)["params"]
        return u, {k: v.reshape(3, -1) for k, v in jacobian.items()}, hidden(module, tree, x)

    params, initial = jax.device_get((params, initial))
    u, jacobian, features = jax.device_get(wide(params))
    _, jacobian_0, features_0 = jax.device_get(wide(initial))
    gram, gram_0 = (j["layer_2"] @ j["layer_2"].T for j in (jacobian, jacobian_0))
    full = sum(j @ j.T for j in jacobian.values())
    change = {k: -step_size * (u - np.asarray(y)) @ j for k, j in jacobian.items()}
    moved = {"params": {k: v + change[k].reshape(v.shape) for k, v in params["params"].items()}}
    after = np.asarray(compiled(module.apply)(moved, x))
    linear = -step_size * full @ (u - np.asarray(y))
    norms, norms_0 = (np.linalg.norm(f.reshape(2, 3, -1), axis=2) for f in (features, features_0))
    expected = {
        "squared_error": np.sum((u - y) ** 2),
        "last_gram_smallest_eigenvalue": np.linalg.eigvalsh(gram)[0],
        "gram_smallest_eigenvalue": np.linalg.eigvalsh(full)[0],
        "last_gram_change": np.linalg.norm(gram - gram_0, 2),
        "last_gram_error": np.linalg.norm(gram - np.eye(3), 2),
        "movement": [
            np.linalg.norm(params["params"][k] - initial["params"][k]) / np.sqrt(m) for k in names
        ],
        "feature_movement": np.linalg.norm((features - features_0).reshape(2, 3, -1), axis=2).max(
            axis=1
        ),
        "smallest_feature": norms.min(axis=1),
        "largest_feature": norms.max(axis=1),
    }
    assert norms.shape == norms_0.shape == (2, 3)
    for name, value in expected.items():
        assert seen[name].dtype == dtype, name
        # Eigenvalues of the full Gram matrix are as precise as its largest.
        assert_close(seen[name], np.asarray(value, dtype), scale=max(np.max(value), full.max()))
    step = seen["one_step"]
    taken = Step(
        movement=np.array([np.linalg.norm(change[k]) for k in names]),
        linear=linear,
        remainder=after - u - linear,
        squared_change=np.sum((after - u) ** 2),
        squared_error=np.sum((after - np.asarray(y)) ** 2),
    )
    scale = float(np.abs(after).max() + np.abs(linear).max())
    for found, value in zip(step, taken, strict=True):
        assert found.dtype == dtype
        assert_close(found, np.asarray(value, dtype), scale=max(scale, scale**2))
    assert np.abs(taken.remainder).max() > 1e-3 * scale  # a step that the linear part misses
    assert "last_gram_error" not in observables(module)


def test_what_is_refused(study):
    x, y, run, _ = study
    x = np.asarray(x)
    history, steps = run(range(4), 0.1)
    certify = certificate_gradient_descent
    partial = {name: value for name, value in history.items() if name != "one_step"}
    with pytest.raises(ValueError, match=r"lacks \['one_step'\]; .*step_observables\("):
        certify(partial, steps, (x, y), NARROW, 0.1)
    with pytest.raises(ValueError, match="the first at 0"):
        certify(history, steps + 2, (x, y), NARROW, 0.1)
    with pytest.raises(ValueError, match=r"the history 3 records"):
        certify(history, steps[:, :2], (x, y), NARROW, 0.1)
    with pytest.raises(ValueError, match="delta is"):
        certify(history, steps, (x, y), NARROW, 0.1, delta=4.0)
    with pytest.raises(ValueError, match="x has 3, y has 2"):
        certify(history, steps, (x, y[:2]), NARROW, 0.1)
    with pytest.raises(ValueError, match=r"1 pair of parallel rows: \(0, 2\)"):
        certify(history, steps, (x[[0, 1, 0]], y), NARROW, 0.1)
    nearly = unit(np.stack([x[0], x[1], x[0] + 5e-8 * x[1]]))
    with pytest.raises(ValueError, match="λ_0 of 2 layers and 3 samples is 0, up to rounding"):
        certify(history, steps, (nearly, y), NARROW, 0.1)
