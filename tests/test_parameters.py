import jax
import jax.numpy as jnp
import pytest
from flax import nnx
from helpers import MLP, NNXNetwork, compiled

from ntkflow.nnx import from_nnx
from ntkflow.parameters import partition


def sizes(tree):
    return [leaf.size for leaf in jax.tree.leaves(tree)]


def test_only_the_params_collection_is_selected():
    variables = {"params": {"w": jnp.ones(2)}, "batch_stats": {"mean": jnp.ones(3)}}
    selected, merge = partition(variables)
    assert sizes(selected) == [2]
    merged = merge(jax.tree.map(lambda leaf: leaf + 1, selected))
    assert merged["params"]["w"].tolist() == [2, 2]
    assert merged["batch_stats"]["mean"].tolist() == [1, 1, 1]


def test_paths_start_below_the_collection():
    params = compiled(MLP().init)(jax.random.key(0), jnp.ones((1, 4)))
    seen = []
    partition(params, lambda path: bool(seen.append(path)) or True)
    assert ("encoder", "kernel") in seen
    assert all(isinstance(name, str) for path in seen for name in path)


def test_paths_of_nnx_are_those_of_the_model():
    _, params = from_nnx(NNXNetwork(nnx.Rngs(0)))
    selected, _ = partition(params, lambda path: path == ("encoder", "kernel"))
    assert sizes(selected) == [24]


def test_integers_and_keys_are_constants():
    params = {"w": jnp.ones(2), "signs": jnp.array([1, -1]), "key": jax.random.key(0)}
    selected, merge = partition(params)
    assert sizes(selected) == [2]
    assert jax.tree.structure(merge(selected)) == jax.tree.structure(params)


def test_a_predicate_that_matches_nothing_is_told_what_there_is():
    with pytest.raises(ValueError, match=r"matches none of the parameters \['a/b'\]"):
        partition({"a": {"b": jnp.ones(1)}}, lambda path: "decoder" in path)
    with pytest.raises(ValueError, match="no parameter is floating point"):
        partition({"a": jnp.array([1])})
