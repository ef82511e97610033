import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from flax import nnx
from helpers import NNXNetwork, assert_close, compiled, samples

from ntkflow.nnx import from_nnx
from ntkflow.training.linear import linearize


def test_apply_is_the_model_as_a_pure_function():
    model, x = NNXNetwork(nnx.Rngs(0)), samples(0, 5, 4)
    apply, params = from_nnx(model)
    pure = compiled(apply)
    value, expected = pure(params, x), model(x)
    assert_close(value, expected)
    doubled = jax.tree.map(lambda leaf: 2 * leaf, params)
    assert not (pure(doubled, x) == value).any()
    assert_close(model(x), expected)  # the model itself was not touched
    assert_close(apply(params, x), expected)
    assert_close(compiled(linearize(apply, params))(params, x), expected)


def test_batch_statistics_are_no_parameters():
    model = nnx.BatchNorm(3, use_running_average=True, rngs=nnx.Rngs(0), param_dtype="float64")
    apply, params = from_nnx(model)
    assert len(jax.tree.leaves(params)) == 2  # scale and bias; mean and variance stay behind
    assert_close(apply(params, jnp.ones((2, 3))), model(jnp.ones((2, 3))))


def test_bad_input():
    with pytest.raises(ValueError, match=r"type Dense; expected an nnx.Module.*module.apply"):
        from_nnx(nn.Dense(3))
    with pytest.raises(ValueError, match="has no variable of type nnx"):
        from_nnx(nnx.Dropout(0.5, deterministic=True))
