"""What the small networks are made of on which all methods of the empirical NTK must agree.

`NETWORKS` maps names to functions that build networks, which the modules beside fill; `MIXING`
holds networks that mix samples, all others depend on each sample alone. Parameters are drawn in
float64 from N(0, ½²), variances and scales from |N(0, ½²)| + ½: no bias is zero and no scale is
one, so that none of them hides an error.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

VECTOR, SERIES, IMAGE = (4,), (5, 3), (6, 6, 2)
N1, N2 = 3, 2


class Network(NamedTuple):
    """`apply(params, x)`, and two sets of samples; `tolerance` is relative to the largest entry."""

    apply: Callable[[Any, Any], jax.Array]
    params: Any
    x1: jax.Array
    x2: jax.Array
    tolerance: float = 1e-10


NETWORKS: dict[str, Callable[[], Network]] = {}
MIXING: dict[str, Callable[[], Network]] = {}


def network(build):
    NETWORKS[build.__name__] = build
    return build


def mixing(build):
    MIXING[build.__name__] = build
    return build


def draw(tree, seed=0):
    """Parameters of the given shapes; variances and scales stay away from 0."""
    rng = np.random.default_rng(seed)

    def one(path, leaf):
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            return jnp.zeros(leaf.shape, leaf.dtype)
        name = jax.tree_util.keystr(path)
        values = 0.5 * rng.normal(size=leaf.shape)
        return jnp.asarray(np.abs(values) + 0.5 if "scale" in name or "var" in name else values)

    return jax.tree_util.tree_map_with_path(one, tree)


def shapes(**named):
    """A tree of parameters from shapes: `shapes(w=(4, 2), b=(2,))`."""
    return draw({name: jax.ShapeDtypeStruct(shape, float) for name, shape in named.items()})


def inputs(*shape, seed=1):
    rng = np.random.default_rng(seed)
    return jnp.asarray(rng.normal(size=(N1, *shape))), jnp.asarray(rng.normal(size=(N2, *shape)))


def tokens(length, size, seed=2):
    rng = np.random.default_rng(seed)
    x1, x2 = (rng.integers(size, size=(n, length)) for n in (N1, N2))
    x1[0, :2] = x1[0, 2]  # a token that repeats within a sample
    x2[0] = x1[1]
    return jnp.asarray(x1), jnp.asarray(x2)


def linen(module, x=VECTOR, tolerance=1e-10, **options):
    """A Linen module with variables of its shapes: its initializers are never compiled."""
    x1, x2 = inputs(*x) if isinstance(x[0], int) else x
    rngs = {"params": jax.random.key(0), **options.get("rngs", {})}
    variables = draw(jax.eval_shape(module.init, rngs, x1))
    return Network(functools.partial(module.apply, **options), variables, x1, x2, tolerance)


def spatial_mean(x):
    return x.mean((1, 2))


def flatten(x):
    return x.reshape(x.shape[0], -1)


def chain(*parts):
    return nn.Sequential(parts)
