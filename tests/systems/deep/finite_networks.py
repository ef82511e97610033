"""Networks of the general framework at finite width, weight by weight, and naive expectations."""

from typing import NamedTuple

import numpy as np


class Block(NamedTuple):
    """A layer of softplus with its factor, the bases (q, p', p) of its weights, and D, (p', p)."""

    bases: np.ndarray
    factor: float
    skip: np.ndarray | None = None


class Draws(NamedTuple):
    """Of each network: (1/m) X Xᵀ and (1/m) Σ X of layers 1, …, H−1, and G^(H)."""

    kernels: list[np.ndarray]
    means: list[np.ndarray]
    last: np.ndarray


def softplus(z):
    return np.logaddexp(0, z)


def logistic(z):
    return 1 / (1 + np.exp(-z))


def shifts(size, positions, circular=False):
    """The q matrices of a convolution, (q, p, p): column l of a patch is x_{l + o}."""
    offsets = range(-(size // 2), size // 2 + 1)
    if circular:
        return np.stack([np.roll(np.eye(positions), o, axis=1) for o in offsets])
    return np.stack([np.eye(positions, k=o) for o in offsets])


def draw(x, blocks, width, networks, seed=0) -> Draws:
    """Initialize networks f = ⟨a, X^(H)⟩/√m one after another and take their statistics."""
    found = [_draw(np.random.default_rng((seed, k)), x, blocks, width) for k in range(networks)]
    kernels, means, last = zip(*found, strict=True)
    stacked = [[np.stack(layer) for layer in zip(*each, strict=True)] for each in (kernels, means)]
    return Draws(*stacked, np.stack(last))


def _draw(generator, x, blocks, width):
    x, kernels, means = np.asarray(x, np.float32), [], []
    for h, block in enumerate(blocks):
        above = block.bases.shape[1]
        inputs = np.einsum("kab,ibc->iakc", block.bases.astype(np.float32), x)
        inputs = inputs.reshape(len(x), above, -1) / (width**0.5 if h else 1)
        weights = generator.standard_normal((inputs.shape[-1], width), np.float32)
        u = inputs @ weights
        if h < len(blocks) - 1:
            kept = 0 if block.skip is None else np.einsum("ab,ibc->iac", block.skip, x)
            x = (kept + block.factor * softplus(u)).astype(np.float32)
            kernels.append(np.einsum("iac,jbc->ijab", x, x) / width)
            means.append(x.mean(axis=-1))
    slopes = block.factor * logistic(u) * generator.standard_normal((above, width), np.float32)
    products = (np.einsum("iac,jbc->ijab", z, z) for z in (slopes, inputs))
    return kernels, means, np.prod(list(products), axis=0).sum(axis=(-1, -2)) / width


def deviations(draws, limit):
    """(mean − limit) in standard errors of the mean, the largest of all entries."""
    error = draws.std(axis=0, ddof=1) / len(draws) ** 0.5
    return np.abs((draws.mean(axis=0) - np.asarray(limit)) / error).max()


_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(200)
_WEIGHTS = _WEIGHTS / _WEIGHTS.sum()


def expectation(f, g, k11, k12, k22):
    """E[f(u) g(v)] on a grid of 200 × 200 nodes, to 1e-12 at variances up to 9; k11 > 0."""
    u = k11**0.5 * _NODES[:, None]
    v = k12 / k11 * u + max(k22 - k12**2 / k11, 0.0) ** 0.5 * _NODES[None, :]
    return _WEIGHTS @ (f(u) * g(v)) @ _WEIGHTS


def average(f, k):
    return _WEIGHTS @ f(k**0.5 * _NODES)


def expectations(f, covariance):
    """E[f(U_l)], (n, p), and E[f(U_l) f(V_r)], (n, n, p, p), of covariances (n, n, p, p)."""
    n, _, p, _ = covariance.shape
    first, second = np.zeros((n, p)), np.zeros((n, n, p, p))
    for i in range(n):
        for l in range(p):
            first[i, l] = average(f, covariance[i, i, l, l])
            for j in range(n):
                for r in range(p):
                    law = covariance[i, i, l, l], covariance[i, j, l, r], covariance[j, j, r, r]
                    second[i, j, l, r] = expectation(f, f, *law)
    return first, second
