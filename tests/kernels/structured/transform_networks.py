"""Networks with loops, conditions, custom derivatives and other transforms within."""

import functools

import jax
import jax.numpy as jnp
from networks import SERIES, VECTOR, Network, inputs, network, shapes


@network
def unrolled_recurrence():
    def apply(p, x):
        h = jnp.zeros((x.shape[0], 4))
        for t in range(x.shape[1]):
            h = jnp.tanh(x[:, t] @ p["w"] + h @ p["u"] + p["b"][None])
        return h @ p["out"]

    return Network(apply, shapes(w=(3, 4), u=(4, 4), b=(4,), out=(4, 2)), *inputs(*SERIES))


@network
def scanned_recurrence():
    """Two scans, the second backwards and two steps at a time; an output after each step."""

    def apply(p, x):
        def step(h, x_t):
            h = jnp.tanh(x_t @ p["w"] + h @ p["u"] + p["b"][None])
            return h, h @ p["v"]

        start = jnp.broadcast_to(p["start"], (x.shape[0], 4))
        _, ys = jax.lax.scan(step, start, jnp.swapaxes(x, 0, 1))
        h, _ = jax.lax.scan(step, start, ys, reverse=True, unroll=2)
        return h @ p["out"] + ys.mean(0)[:, :2]

    params = shapes(w=(3, 4), u=(4, 4), b=(4,), v=(4, 3), start=(1, 4), out=(4, 2))
    return Network(apply, params, *inputs(*SERIES))


@network
def stacked_layers():
    """`lax.scan` over stacked weights, with a weight that all layers share, within a scan."""

    def apply(p, x):
        def layer(h, w):
            return jnp.tanh(h @ w + h @ p["shared"]), None

        def twice(h, _):
            return jax.lax.scan(layer, h, p["stack"])[0], None

        return jax.lax.scan(twice, x, length=2)[0] @ p["out"]

    return Network(apply, shapes(stack=(2, 4, 4), shared=(4, 4), out=(4, 2)), *inputs(*VECTOR))


@network
def nested_jit():
    @jax.jit
    def layer(p, x):
        return jnp.tanh(jax.jit(jnp.matmul)(x, p["w"]) + p["b"][None])

    @jax.jit
    def apply(p, x):
        h = layer(p["first"], x)
        return layer(p["second"], layer(p["second"], h))

    params = {"first": shapes(w=(4, 3), b=(3,)), "second": shapes(w=(3, 3), b=(3,))}
    return Network(apply, params, *inputs(*VECTOR))


@network
def straight_through():
    """A custom_jvp that is not the derivative: rounding forward, the identity backward."""

    @jax.custom_jvp
    def quantize(x):
        return jnp.round(2 * x) / 2

    @quantize.defjvp
    def _(primals, tangents):
        return quantize(*primals), tangents[0]

    def apply(p, x):
        return quantize(jnp.tanh(x @ quantize(p["w"]))) @ p["out"]

    return Network(apply, shapes(w=(4, 5), out=(5, 2)), *inputs(*VECTOR))


@network
def custom_jvp_layer():
    """A whole layer with a rule of its own, twice the derivative by the weights."""

    @jax.custom_jvp
    def layer(w, x):
        return jnp.sin(x @ w)

    @layer.defjvp
    def _(primals, tangents):
        (w, x), (dw, dx) = primals, tangents
        return layer(w, x), jnp.cos(x @ w) * (2 * (x @ dw) + dx @ w)

    def apply(p, x):
        return layer(p["second"], layer(p["first"], x))

    return Network(apply, shapes(first=(4, 5), second=(5, 2)), *inputs(*VECTOR))


@network
def custom_vjp_layer():
    """A whole layer with a rule of its own, three times the derivative by the weights."""

    @jax.custom_vjp
    def layer(w, x):
        return jnp.sin(x @ w)

    def forward(w, x):
        return layer(w, x), (w, x)

    def backward(residuals, cotangent):
        w, x = residuals
        cotangent = jnp.cos(x @ w) * cotangent
        return 3 * x.T @ cotangent, cotangent @ w.T

    layer.defvjp(forward, backward)

    def apply(p, x):
        return layer(p["second"], layer(p["first"], x)) @ p["out"]

    return Network(apply, shapes(first=(4, 5), second=(5, 4), out=(4, 2)), *inputs(*VECTOR))


@network
def conditions():
    """`cond` on a parameter, on each sample by vmap, and a `switch`."""

    def apply(p, x):
        h = jax.lax.cond(p["gate"] > 5, jnp.sin, lambda h: h @ p["w"], x)

        def one(sample):
            return jax.lax.cond(sample.sum() > 0, lambda s: s @ p["v"], lambda s: s**2, sample)

        h = jax.lax.switch(1, [jnp.cos, lambda h: jnp.tanh(h) * p["gate"]], h)
        return jax.vmap(one)(h) @ p["out"]

    params = shapes(gate=(), w=(4, 4), v=(4, 4), out=(4, 2))
    return Network(apply, params, *inputs(*VECTOR))


@network
def loops():
    """A `while_loop` on the inputs, a `fori_loop` as the layers of a flow."""

    def apply(p, x):
        def halve(state):
            i, y = state
            return i + 1, y / 2

        _, x = jax.lax.while_loop(lambda state: state[0] < 2, halve, (0, x))
        step = lambda _, h: h + 0.3 * jnp.tanh(h @ p["w"] + p["b"][None])  # noqa: E731
        return jax.lax.fori_loop(0, 3, step, x) @ p["out"]

    return Network(apply, shapes(w=(4, 4), b=(4,), out=(4, 2)), *inputs(*VECTOR))


@network
def one_sample_at_a_time():
    """A function of one sample, mapped by `vmap` and by `lax.map`."""

    def one(p, sample):
        return jnp.tanh(p["w"] @ sample + p["b"])

    def apply(p, x):
        h = jax.vmap(one, (None, 0))(p["first"], x)
        return jax.lax.map(functools.partial(one, p["second"]), h)

    params = {"first": shapes(w=(4, 4), b=(4,)), "second": shapes(w=(2, 4), b=(2,))}
    return Network(apply, params, *inputs(*VECTOR))


@network
def ensemble():
    """Members by vmap over the parameters, and their product."""

    def member(p, x):
        return jnp.tanh(x @ p["w"] + p["b"][None]) @ p["out"]

    def apply(p, x):
        return jax.vmap(member, (0, None))(p, x).prod(0)

    return Network(apply, shapes(w=(3, 4, 3), b=(3, 3), out=(3, 3, 2)), *inputs(*VECTOR))


@network
def two_views_in_one_batch():
    """Each sample and its negative stand in one batch of 2n and part again."""

    def apply(p, x):
        h = jnp.tanh(jnp.concatenate([x, -2 * x]) @ p["w"] + p["b"][None])
        a, b = jnp.split(h, 2)
        return (a * b) @ p["out"]

    return Network(apply, shapes(w=(4, 3), b=(3,), out=(3, 2)), *inputs(*VECTOR))


@network
def flattened_batch():
    """Positions join the batch: (n · t, c), and the sample axis ends up last before it returns."""

    def apply(p, x):
        n, t, c = x.shape
        h = jnp.tanh(x.reshape(n * t, c) @ p["w"] + p["b"][None]).reshape(n, t, 4)
        h = jnp.tanh(h.transpose(1, 2, 0) * p["positions"][:, :, None])
        return jnp.tensordot(h, p["out"], ((0, 1), (0, 1)))

    params = shapes(w=(3, 4), b=(4,), positions=(5, 4), out=(5, 4, 2))
    return Network(apply, params, *inputs(*SERIES))
