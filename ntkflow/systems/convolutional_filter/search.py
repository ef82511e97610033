"""The search for an extreme filter at an angle from w*, among directions that are refined."""

import functools
import operator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from ntkflow.systems.convolutional_filter.network import product, unit_vector
from ntkflow.systems.convolutional_filter.population import (
    GradientTerms,
    Regions,
    moments_of,
    split,
)


class Estimate(NamedTuple):
    """An extreme over the filters at one angle.

    Attributes:
      value: the mean over samples of a quadratic (for L_cross, bilinear) form of Z_{++}, ….
      standard_error: of that mean, the filter and the vectors of the form being given; what
        searching for them on the same samples adds is not in it.
      filter: w, of norm ‖w*‖, shape (p,), where the extreme is taken.
    """

    value: jax.Array
    standard_error: jax.Array
    filter: jax.Array


def turn(phi: ArrayLike, dtype: Any) -> tuple[jax.Array, jax.Array]:
    """cos φ and sin φ, with sin π = 0: a rounded π would leave some of the samples in ++."""
    phi = jnp.asarray(phi, dtype)
    return jnp.cos(phi), jnp.where(phi >= jnp.asarray(np.pi, dtype), 0, jnp.sin(phi))


# The matrix of `GradientTerms`, and which of its eigenvalues, in ascending order.
_ENDS = {"gamma": ("both", 0), "smoothness": ("both", -1), "beta": ("student", -1)}
_CROSS = (("both", "student"), ("both", "teacher"), ("student", "teacher"))

QUANTITIES = (*_ENDS, "cross")

# (u·Z_A)(v·Z_B) as (A, u, B, v)
_Form = tuple[str, jax.Array, str, jax.Array]


def _extremes(
    terms: GradientTerms, names: tuple[str, ...]
) -> dict[str, tuple[jax.Array, list[_Form]]]:
    """The quantities at one filter, and the forms whose means have them for a sum."""
    found: dict[str, tuple[jax.Array, list[_Form]]] = {}
    ends = {name: _ENDS[name] for name in names if name in _ENDS}
    # One decomposition for all matrices of a kind: it is most of what there is to compile.
    if regions := list(dict.fromkeys(region for region, _ in ends.values())):
        values, vectors = jnp.linalg.eigh(jnp.stack([getattr(terms, r) for r in regions]))
        for name, (region, end) in ends.items():
            row = regions.index(region)
            vector = vectors[row, :, end]
            found[name] = values[row, end], [(region, vector, region, vector)]
    if "cross" in names:
        matrices = jnp.stack([getattr(terms, f"{a}_{b}") for a, b in _CROSS])
        left, values, right = jnp.linalg.svd(matrices)
        forms = [(a, left[i, :, 0], b, right[i, 0]) for i, (a, b) in enumerate(_CROSS)]
        found["cross"] = jnp.sum(values[:, 0]), forms
    return found


def at(
    w_star: jax.Array, phi: jax.Array, direction: jax.Array, samples: jax.Array
) -> tuple[jax.Array, Regions]:
    """The filter at angle φ from w* towards a unit vector, and the regions it makes of samples."""
    unit, (cosine, sine) = unit_vector(w_star), turn(phi, w_star.dtype)
    along = product(samples, unit)
    active = cosine * along + sine * product(samples, direction) > 0
    w = jnp.linalg.norm(w_star) * (cosine * unit + sine * direction)
    return w, split(active, along > 0, samples)


def best(
    names: tuple[str, ...],
    z: jax.Array,
    w_star: jax.Array,
    phi: jax.Array,
    directions: jax.Array,
    rounds: int,
) -> tuple[jax.Array, jax.Array]:
    """Find extremes of some QUANTITIES at an angle.

    Each has its own best filter; what is tried for one is tried for all of them.

    Args:
      names: of "gamma", "smoothness", "beta" and "cross"; the last two not yet divided by φ.
      z: patches (n, k, p).
      w_star, phi: w*, shape (p,), and an angle from it.
      directions: unit vectors orthogonal to w*, (m, p), tried first and moved along in `rounds`.

    Returns:
      The best directions, of shape (names, p), and their values; NaN where an input is.
    """
    sign = jnp.asarray([-1 if name == "gamma" else 1 for name in names], z.dtype)

    def scores(direction: jax.Array) -> jax.Array:
        w, parts = at(w_star, phi, direction, z)
        found = _extremes(moments_of(parts), names)
        # 0·w: of a filter NaN no patch is in any region, and all means would be 0.
        return sign * jnp.stack([found[name][0] for name in names]) + 0 * jnp.sum(w)

    def advance(
        best: tuple[jax.Array, jax.Array], weights: tuple[jax.Array, jax.Array]
    ) -> tuple[Any, None]:
        keep, move = weights
        moved = keep * best[0][:, None, :] + move * directions[None, :, :]
        tried = moved.reshape(-1, moved.shape[-1])
        tried /= jnp.linalg.norm(tried, axis=1, keepdims=True)
        found = jax.lax.map(scores, tried)
        values = jnp.max(found, axis=0)
        better = ~(values <= best[1])  # NaN replaces what there was
        chosen = jnp.where(better[:, None], tried[jnp.argmax(found, axis=0)], best[0])
        return (chosen, jnp.where(better, values, best[1])), None

    # The first round tries the directions themselves; in the scan, so as to compile it once.
    worst = jnp.zeros((len(names), w_star.size), z.dtype), jnp.full(len(names), -jnp.inf, z.dtype)
    weights = np.arange(rounds + 1) > 0, 0.5 ** np.arange(rounds + 1)
    weights = jax.tree.map(lambda a: jnp.asarray(a, z.dtype), weights)
    (chosen, values), _ = jax.lax.scan(advance, worst, weights)
    return chosen, sign * values


@functools.partial(jax.jit, static_argnames=("names", "rounds"))
def search(
    names: tuple[str, ...],
    z: jax.Array,
    w_star: jax.Array,
    phi: jax.Array,
    directions: jax.Array,
    rounds: int,
    held_out: jax.Array,
) -> dict[str, Estimate]:
    """Find extremes as `best` does, and measure them on `held_out`, patches (n', k, p)."""

    def judge(name: str, terms: GradientTerms, w: jax.Array, judged: Regions) -> Estimate:
        _, forms = _extremes(terms, (name,))[name]
        values = jnp.full(len(held_out), 0 * jnp.sum(w))  # NaN of a filter NaN, as in `best`
        for a, left, b, right in forms:
            values += product(getattr(judged, a), left) * product(getattr(judged, b), right)
        spread = jnp.std(values, ddof=1) if len(values) > 1 else jnp.full((), jnp.inf, values.dtype)
        return Estimate(jnp.mean(values), spread / len(values) ** 0.5, w)

    chosen, _ = best(names, z, w_star, phi, directions, rounds)
    terms = jax.vmap(lambda direction: moments_of(at(w_star, phi, direction, z)[1]))(chosen)
    judged = jax.vmap(lambda direction: at(w_star, phi, direction, held_out))(chosen)
    rows = [jax.tree.map(operator.itemgetter(i), (terms, *judged)) for i in range(len(names))]
    return {name: judge(name, *row) for name, row in zip(names, rows, strict=True)}
