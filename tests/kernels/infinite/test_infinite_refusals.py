"""What the transform refuses, and that it says where it stands in the user's code: here."""

import re

import architectures
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from ntkflow.kernels import infinite_width
from ntkflow.layers import Dense

X = np.random.default_rng(0).normal(size=(3, 4))
IMAGES = np.ones((2, 6, 6, 2))
HERE = r"at line \d+ of \S*test_infinite_refusals\.py"


class Between(nn.Module):
    """A function of a field, between two layers."""

    function: object

    @nn.compact
    def __call__(self, x):
        return Dense(1)(self.function(Dense(8)(x)))


class Tied(nn.Module):
    @nn.compact
    def __call__(self, x):
        layer = Dense(8)
        x = layer(Dense(8)(x))
        return Dense(1)(layer(nn.relu(x)))


class Softmax(nn.Module):
    @nn.compact
    def __call__(self, x):
        queries, keys, values = (Dense(8)(x) for _ in range(3))
        scores = jnp.einsum("ntc,nsc->nts", queries, keys) / 8**0.5
        weights = nn.softmax(scores)
        return Dense(1)(jnp.einsum("nts,nsc->ntc", weights, values).mean(1))


def post_activation_sum(h):
    stream = nn.relu(h) + Dense(8)(h)
    return nn.relu(stream)


OPERATIONS = {
    "sort": (Between(lambda h: jnp.sort(h)), X, "the operation sort on random fields"),
    "maximum over channels": (Between(lambda h: h.max(1, keepdims=True)), X, "reduce_max"),
    "softmax of scores": (Softmax(), IMAGES.reshape(2, 36, 2), "reduce_max"),
    "post-activation sum": (Between(post_activation_sum), X, "a sum or average of activations"),
    "maximum pooling": (
        nn.Sequential(
            [Dense(8), lambda x: nn.max_pool(x, (2, 2)), lambda x: x.mean((1, 2)), Dense(1)]
        ),
        IMAGES,
        "reduce_window_max",
    ),
    "activation of a pooled activation": (
        nn.Sequential(
            [Dense(8), nn.relu, lambda x: x.mean((1, 2)), lambda x: nn.tanh(x), Dense(1)]
        ),
        IMAGES,
        "nonlinear function of what is no Gaussian field",
    ),
    "tied weights": (Tied(), X, "a parameter that enters at two places"),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_operations_without_a_limit_are_named_with_their_place(name):
    module, x, reason = OPERATIONS[name]
    with pytest.raises(ValueError, match=f"cannot follow.*{reason}") as caught:
        infinite_width(module)(x)
    assert "ntkflow.monte_carlo_kernel" in str(caught.value)
    if name != "tied weights":  # used in the layer, which stands in another file
        assert re.search(HERE, str(caught.value)), caught.value


@pytest.mark.quick
def test_the_line_is_that_of_the_operation():
    def network(h):
        h = 2 * h
        return jnp.sort(h)

    line = network.__code__.co_firstlineno + 2
    with pytest.raises(ValueError, match=rf"sort at line {line} of \S*test_infinite_refusals\.py"):
        infinite_width(Between(network))(X)


@pytest.mark.parametrize(
    "function", [lambda h: h - h.mean(0, keepdims=True), lambda h: h[::-1] @ h.T @ h]
)
def test_networks_that_mix_samples_are_refused(function):
    with pytest.raises(ValueError, match=f"mixes samples: .*{HERE}"):
        infinite_width(Between(function))(X)


def test_batch_normalization_in_training_is_refused():
    module = nn.BatchNorm(use_running_average=False, param_dtype=float)

    def apply(variables, x):
        return module.apply(variables, x, mutable=["batch_stats"])[0]

    for network in (module, (module.init, apply)):
        with pytest.raises(ValueError, match="use_running_average=True"):
            infinite_width(network)(X)


# Channels that do not stand side by side with themselves.
MEETINGS = [
    lambda h: (h[:, :, None] * h[:, None, :]).reshape(len(h), -1),
    lambda h: h + h.reshape(-1, 2, 4).swapaxes(1, 2).reshape(h.shape),
    lambda h: h.reshape(-1, 4, 2)[..., 0] * h[:, :4],
    lambda h: nn.relu(h) * h[:, :1],
]


@pytest.mark.parametrize("function", MEETINGS)
def test_channels_of_a_field_that_meet_other_channels_of_it_are_refused(function):
    with pytest.raises(ValueError, match=f"meet other channels of the same .*{HERE}"):
        infinite_width(nn.Sequential([Dense(8), function, Dense(1)]))(X)


class Gate(nn.Module):
    """One random number for all channels, and then a nonlinear function or not."""

    function: object

    @nn.compact
    def __call__(self, x):
        h = Dense(64)(x) * Dense(1)(x)
        return Dense(1)(self.function(Dense(64)(h)))


def test_functions_of_what_all_channels_share_are_refused():
    assert infinite_width(Gate(lambda h: h))(X).ntk.shape == (len(X), len(X))
    with pytest.raises(ValueError, match="a random number that all channels share"):
        infinite_width(Gate(nn.tanh))(X)


class Scaled(nn.Module):
    @nn.compact
    def __call__(self, x):
        scale = self.param("scale", nn.initializers.ones, ())
        return Dense(1)(scale * nn.relu(Dense(8)(x)))


def test_trained_scalars_are_refused_and_fixed_ones_followed():
    with pytest.raises(ValueError, match="a parameter that all channels share"):
        infinite_width(Scaled())(X)
    fixed = infinite_width(Scaled(), trainable=lambda path: "scale" not in path)(X)
    plain = infinite_width(nn.Sequential([Dense(8), nn.relu, Dense(1)]))(X)
    np.testing.assert_allclose(fixed.ntk, plain.ntk, rtol=1e-12)


@jax.custom_jvp
def straight_through(x):
    return jnp.sign(x)


straight_through.defjvp(lambda primals, tangents: (straight_through(*primals), tangents[0]))


def test_a_derivative_rule_that_is_no_derivative_is_refused():
    with pytest.raises(ValueError, match="custom derivative rule is not its derivative"):
        infinite_width(nn.Sequential([Dense(8), straight_through, Dense(1)]))(X)


@pytest.mark.parametrize(
    "initializer", [nn.initializers.orthogonal(), nn.initializers.delta_orthogonal()]
)
def test_entries_that_depend_on_each_other_are_refused(initializer):
    module = nn.Conv(8, (3, 3), kernel_init=initializer, param_dtype=float)
    module = nn.Sequential([module, lambda x: x.mean((1, 2)), Dense(1)])
    with pytest.raises(ValueError, match="layers_0/kernel has entries that depend on each other"):
        infinite_width(module)(IMAGES)


def test_outputs_must_be_independent_fields():
    module = nn.Sequential([architectures.Conv(8, (3, 3)), nn.relu, Dense(2)])
    with pytest.raises(ValueError, match=r"shape \(1, 6, 6, 2\) for one sample, with positions"):
        infinite_width(module)(IMAGES)
    pair = (lambda key, x: jax.random.normal(key, (2,)), lambda w, x: x.sum((1, 2, 3)))
    with pytest.raises(ValueError, match="output is a number in the limit"):
        infinite_width(pair)(IMAGES)
    averaged = nn.Sequential([Dense(8), nn.relu, lambda x: x.mean(1)])
    with pytest.raises(ValueError, match="averages over channels without random weights"):
        infinite_width(averaged)(X)


def test_inputs_are_checked():
    kernel = infinite_width(Dense(1))
    with pytest.raises(ValueError, match="x1 hold no samples"):
        kernel(np.zeros((0, 4)))
    with pytest.raises(ValueError, match=r"x2 holds NaN.*index \(1, 2\)"):
        kernel(X, np.where(np.arange(12).reshape(3, 4) == 6, np.nan, 1.0))
    with pytest.raises(ValueError, match=r"\(3, 4\) and x2 \(3, 5\).*one shape"):
        kernel(X, np.zeros((3, 5)))


def test_trainable_must_match_something():
    with pytest.raises(ValueError, match=r"matches none of the parameters.*params/kernel"):
        infinite_width(Dense(1), trainable=lambda path: "encoder" in path)(X)
    with pytest.raises(ValueError, match="trainable is 'kernel'; expected a predicate"):
        infinite_width(Dense(1), trainable="kernel")


def test_what_is_no_network_is_refused():
    for module in (3, nn.relu, (nn.relu,)):
        with pytest.raises(ValueError, match="expected a Flax Linen module or a pair of functions"):
            infinite_width(module)
    with pytest.raises(ValueError, match="An NNX model holds values, not how they were drawn"):
        infinite_width(nnx.Linear(4, 1, rngs=nnx.Rngs(0)))
