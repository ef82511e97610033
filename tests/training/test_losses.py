import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from helpers import MLP, NNXNetwork, assert_close, samples

from ntkflow.training.losses import cross_entropy_loss, gradient_scale, squared_loss


def apply(w, x):
    return x @ w


X, W = samples(0, 5, 3), samples(1, 3, 2)
Y = samples(2, 5, 2)


@pytest.mark.parametrize(("reduction", "factor"), [("half_sum", 0.5), ("sum", 1.0), ("mean", 0.1)])
def test_reductions_and_their_gradient(reduction, factor):
    f = X @ W
    assert_close(squared_loss(apply, reduction)(W, (X, Y)), factor * jnp.sum((f - Y) ** 2))
    by_output = jax.grad(lambda f: squared_loss(lambda f, x: f, reduction)(f, (X, Y)))(f)
    assert_close(by_output, gradient_scale(reduction, f.size) * (f - Y))


@pytest.mark.parametrize("reduction", ["half_sum", "mean"])
def test_the_dtype_is_the_promoted_one(reduction):
    low = squared_loss(apply, reduction)
    single = [a.astype(jnp.float32) for a in (W, X, Y)]
    assert low(single[0], tuple(single[1:])).dtype == jnp.float32
    assert low(W, tuple(single[1:])).dtype == jnp.float64


def test_cross_entropy_is_the_mean_negative_log_probability():
    labels = jnp.array([0, 1, 1, 0, 1])
    logits = np.asarray(X @ W)
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    expected = -np.log(p[np.arange(5), labels]).mean()
    loss = cross_entropy_loss(apply)
    assert_close(loss(W, (X, labels)), expected)
    assert_close(loss(W, (X, jax.nn.one_hot(labels, 2, dtype="float64"))), expected)


class TestBadInput:
    def test_reduction(self):
        with pytest.raises(ValueError, match=r"reduction is 'average'; expected one of .*'mean'"):
            squared_loss(apply, "average")

    def test_shapes_that_would_broadcast(self):
        with pytest.raises(ValueError, match=r"\(5, 1\) and the labels y \(5,\).* y\[:, None\]"):
            squared_loss(apply)(W[:, :1], (X, Y[:, 0]))

    @pytest.mark.parametrize("build", [squared_loss, cross_entropy_loss])
    def test_data(self, build):
        with pytest.raises(ValueError, match="x has 5, y has 4"):
            build(apply)(W, (X, Y[:4]))
        with pytest.raises(ValueError, match="expected a pair"):
            build(apply)(W, X)

    def test_cross_entropy_labels(self):
        with pytest.raises(ValueError, match=r"y has shape .* expected integers"):
            cross_entropy_loss(apply)(W, (X, Y[:, 0]))
        with pytest.raises(ValueError, match="logits have shape"):
            cross_entropy_loss(apply)(W[:, 0], (X, Y[:, 0]))

    def test_a_module_in_place_of_its_apply(self):
        for module in (MLP(2), NNXNetwork(nnx.Rngs(0)), 3):
            with pytest.raises(ValueError, match=r"expected .*function `apply\(params, x\)`"):
                squared_loss(module)
