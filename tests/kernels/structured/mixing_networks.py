"""Networks whose outputs depend on other samples too."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from networks import VECTOR, Network, chain, inputs, linen, mixing, shapes


@mixing
def training_batch_norm():
    module = chain(nn.Dense(5), nn.BatchNorm(use_running_average=False), nn.Dense(2))
    network = linen(module)

    def apply(variables, x):
        return module.apply(variables, x, mutable=["batch_stats"])[0]

    return network._replace(apply=apply)


@mixing
def softmax_over_samples():
    return Network(
        lambda w, x: jax.nn.softmax(x @ w, axis=0), shapes(w=(4, 2))["w"], *inputs(*VECTOR)
    )


@mixing
def attention_between_samples():
    def apply(w, x):
        return jax.nn.softmax((x @ w) @ x.T) @ x

    return Network(apply, shapes(w=(4, 4))["w"], *inputs(*VECTOR))


@mixing
def centred_by_the_batch():
    return Network(lambda w, x: (x - x.mean(0)[None]) @ w, shapes(w=(4, 2))["w"], *inputs(*VECTOR))


@mixing
def previous_sample():
    return Network(lambda w, x: jnp.roll(x, 1, 0) @ w, shapes(w=(4, 2))["w"], *inputs(*VECTOR))


@mixing
def reversed_samples():
    return Network(lambda w, x: jnp.tanh(x @ w)[::-1], shapes(w=(4, 2))["w"], *inputs(*VECTOR))


@mixing
def convolution_along_samples():
    """A convolution along the sample axis."""

    def apply(w, x):
        y = jax.lax.conv_general_dilated(
            x.T[:, :, None], w, (1,), "SAME", dimension_numbers=("NHC", "HIO", "NHC")
        )
        return y[:, :, 0].T

    return Network(apply, shapes(w=(3, 1, 1))["w"], *inputs(*VECTOR))


@mixing
def centred_in_a_scan_of_layers():
    def apply(w, x):
        layer = lambda h, w: (jnp.tanh((h - h.mean(0)[None]) @ w), None)  # noqa: E731
        return jax.lax.scan(jax.checkpoint(layer), x, w)[0]

    return Network(apply, shapes(w=(2, 4, 4))["w"], *inputs(*VECTOR))


@mixing
def centred_in_a_jitted_layer():
    layer = jax.jit(lambda w, h: (h - h.mean(0)[None]) @ w)
    return Network(jax.checkpoint(layer), shapes(w=(4, 2))["w"], *inputs(*VECTOR))


@mixing
def centred_across_vmap():
    def apply(w, x):
        one = lambda sample: (sample - jax.lax.pmean(sample, "batch")) @ w  # noqa: E731
        return jax.vmap(one, axis_name="batch")(x)

    return Network(apply, shapes(w=(4, 2))["w"], *inputs(*VECTOR))
