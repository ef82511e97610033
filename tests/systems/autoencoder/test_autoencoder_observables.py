"""Observers of the autoencoder: what their names say, in every regime."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_close, compiled, samples

from ntkflow.systems.autoencoder.gram import limit_gram
from ntkflow.systems.autoencoder.network import append_constant
from ntkflow.systems.autoencoder.observables import observables, step_observables
from ntkflow.training.observe import Snapshot

N, D, M, STEP = 4, 3, 11, 2.0
REGIMES = ("encoder", "decoder", "both")


def sphere(seed, n=N, d=D):
    x = np.asarray(samples(seed, n, d))
    return jnp.asarray(x / np.linalg.norm(x, axis=1, keepdims=True))


def split(encoder, decoder, trains):
    leaves = {"encoder": encoder, "decoder": decoder}
    names = ("encoder", "decoder") if trains == "both" else (trains,)
    fixed = {name: leaf for name, leaf in leaves.items() if name not in names}
    return {"params": {name: leaves[name] for name in names}} | ({"fixed": fixed} if fixed else {})


@compiled
def observe(snapshot):
    return {name: see(snapshot) for name, see in step_observables(STEP).items()}


class Numpy:
    """The same network in NumPy, neuron by neuron, with one step of descent taken."""

    def __init__(self, w, a, x, trains):
        self.w, self.a, self.x, self.trains = w, a, x, trains
        self.scale = 1 / np.sqrt(a.size)
        self.z = x @ w
        self.active = self.z > 0
        self.hidden = self.z * self.active
        self.errors = x - self.scale * self.hidden @ a.T
        self.w_gradient = -self.scale * x.T @ ((self.errors @ a) * self.active)
        self.a_gradient = -self.scale * self.errors.T @ self.hidden

    def kernel(self, rows=None):
        """K of shape (nd, nd); `rows` (n, m) keeps neurons by the row's sample."""
        rows = np.ones_like(self.active) if rows is None else rows
        n, (d, m) = len(self.x), self.a.shape
        total = np.zeros((n, d, n, d))
        for i in range(n):
            for j in range(n):
                for r in np.flatnonzero(rows[i]):
                    if self.trains != "decoder" and self.active[i, r] and self.active[j, r]:
                        outer = np.outer(self.a[:, r], self.a[:, r])
                        total[i, :, j] += self.x[i] @ self.x[j] * outer
                    if self.trains != "encoder":
                        total[i, :, j] += self.hidden[i, r] * self.hidden[j, r] * np.eye(d)
        return total.reshape(n * d, n * d) / m

    def next(self):
        w = self.w - STEP * self.w_gradient * (self.trains != "decoder")
        a = self.a - STEP * self.a_gradient * (self.trains != "encoder")
        return Numpy(w, a, self.x, self.trains)


@pytest.mark.quick
@pytest.mark.parametrize("trains", REGIMES)
def test_observers_are_what_their_names_say(trains):
    x = sphere(0)
    w0, a0 = np.asarray(samples(1, D, M)), np.sign(np.asarray(samples(2, D, M)))
    w = w0 if trains == "decoder" else 0.6 * w0 - 0.3
    a = a0 if trains == "encoder" else 0.8 * a0 + 0.3
    now, initial = Numpy(w, a, np.asarray(x), trains), Numpy(w0, a0, np.asarray(x), trains)
    after = now.next()
    snapshot = Snapshot(7, split(w, a, trains), split(w0, a0, trains), (x, x))
    seen = observe(snapshot)

    k, k0 = now.kernel(), initial.kernel()
    h, h0 = (net.hidden @ net.hidden.T / M for net in (now, initial))
    limit, limit_h = (
        np.asarray(limit_gram(x, trains=trains)),
        np.asarray(limit_gram(x, None, "decoder")),
    )
    flipped = now.active != after.active
    lost = now.kernel(flipped)
    r = now.errors.reshape(-1)
    change = after.scale * after.hidden @ after.a.T - now.scale * now.hidden @ now.a.T
    unstable = np.stack(
        [
            now.scale * (after.a * after.hidden[i] - now.a * now.hidden[i]) @ flipped[i]
            for i in range(N)
        ]
    )
    second = change.reshape(-1) - unstable.reshape(-1) - STEP / D * (k - lost) @ r
    expected = {
        "squared_error": np.sum(now.errors**2),
        "encoder_distance": np.linalg.norm(w - w0),
        "decoder_distance": np.linalg.norm(a - a0),
        "largest_encoder_distance": max(np.linalg.norm(w - w0, axis=0)),
        "largest_decoder_distance": max(np.linalg.norm(a - a0, axis=0)),
        "encoder_norm": np.linalg.norm(w, 2),
        "decoder_norm": np.linalg.norm(a, 2),
        "hidden_norm": np.linalg.norm(now.hidden, 2),
        "gram_smallest_eigenvalue": np.linalg.eigvalsh(k)[0],
        "gram_change": np.linalg.norm(k - k0, 2),
        "gram_error": np.linalg.norm(k - np.kron(limit, np.eye(D)), 2),
        "decoder_gram_smallest_eigenvalue": np.linalg.eigvalsh(h)[0],
        "decoder_gram_change": np.linalg.norm(h - h0, 2),
        "decoder_gram_error": np.linalg.norm(h - limit_h, 2),
        "pattern_changes": np.mean(now.active != initial.active),
        "largest_encoder_gradient": max(np.linalg.norm(now.w_gradient, axis=0)),
        "encoder_gradient_norm": np.linalg.norm(now.w_gradient),
        "decoder_gradient_norm": np.linalg.norm(now.a_gradient),
        "step_size": STEP,
        "flips": flipped.sum(axis=1),
        "unstable_change": np.linalg.norm(unstable, axis=1),
        "second_order_change": np.linalg.norm(second),
        "perpendicular_gram_norm": np.linalg.norm(lost, 2),
        "kernel_term": -2 * STEP / D * r @ k @ r,
        "perpendicular_term": 2 * STEP / D * r @ lost @ r,
        "unstable_term": -2 * r @ unstable.reshape(-1),
        "second_order_term": -2 * r @ second,
        "squared_change": np.sum(change**2),
        "next_squared_error": np.sum(after.errors**2),
        "next_largest_encoder_distance": max(np.linalg.norm(after.w - w0, axis=0)),
        "next_encoder_norm": np.linalg.norm(after.w, 2),
        "next_hidden_norm": np.linalg.norm(after.hidden, 2),
    }
    assert expected.keys() == seen.keys()
    for name, value in expected.items():
        assert_close(seen[name], value, scale=10.0, factor=300)
    assert (flipped.sum() > 0) == (trains != "decoder")
    terms = ("kernel_term", "perpendicular_term", "unstable_term", "second_order_term")
    total = sum(seen[name] for name in (*terms, "squared_change"))
    assert_close(seen["next_squared_error"] - seen["squared_error"], total, scale=10.0)


def test_precision_follows_the_weights(dtype):
    x = sphere(3).astype(dtype)
    variables = split(samples(4, D, M).astype(dtype), samples(5, D, M).astype(dtype), "both")
    seen = jax.eval_shape(observe, Snapshot(0, variables, variables, (x, x)))
    for name, value in seen.items():
        whole, own = name == "flips", name == "step_size"
        assert value.dtype == ("int64" if whole else "float64" if own else dtype), name


def test_a_constant_input_is_the_limit_of_longer_inputs():
    """(x, 1)/√2 is what the encoder sees: the kernel's limit is that of these inputs."""
    x = sphere(6)
    generator = np.random.default_rng(7)
    encoder = generator.normal(size=(D + 1, 40_000))
    decoder = generator.choice([-1.0, 1.0], (D, 40_000))
    variables = split(encoder, decoder, "decoder")
    see = observables()["gram_error"]
    error = compiled(see)(Snapshot(0, variables, variables, (x, x)))
    seen = compiled(append_constant)(x)
    h, other = (np.asarray(limit_gram(of, trains="decoder")) for of in (seen, x))
    wrong = np.linalg.norm(other - h, 2)
    assert error < 0.05 < wrong / 4
