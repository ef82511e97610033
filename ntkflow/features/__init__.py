"""Feature learning of any network: what its nodes moved, which matter, and what they are worth.

How far the nodes of a `flax.linen.Sequential` move, what it is worth without the least important
ones, and what another network learns from the four most important. All are pure functions, for
`jax.jit` and `ntkflow.over_seeds`:

>>> import flax.linen as nn, jax, ntkflow, optax
>>> from ntkflow import data, features
>>> model = nn.Sequential([nn.Dense(20), nn.relu, nn.Dense(1)])
>>> loss = ntkflow.squared_loss(model.apply, "mean")
>>> into, out = lambda path: path == ("layers_0", "kernel"), lambda path: "layers_2" in path
>>> x = jax.random.normal(jax.random.key(0), (40, 3))
>>> train, test = data.split(0, (x, x[:, :1] * x[:, 1:2]), (0.5, 0.5))
>>> run = ntkflow.descend(loss, optax.sgd(0.1), 300, every=100,
...                       observe={"moved": features.displacement(into)})
>>> curve = features.pruning_curve(loss, out, removed=[0, 10, 20])
>>> transfer = features.transfer(nn.Sequential(model.layers[:2]).apply, 4,
...                              features.ExternalNetwork(outputs=1), ntkflow.squared_loss,
...                              optax.sgd(0.01), steps=100)
>>> @jax.jit
... def experiment(key):
...     variables, _, _, history = run(model.init(key, x), train)
...     importance = features.importance(variables, into, out)
...     learned = transfer(key, variables, importance, train, test)
...     moved = features.largest_displacement(history["moved"])
...     return moved, curve(variables, importance, test), learned.test_outputs
>>> [result.shape for result in experiment(jax.random.key(1))]  # records, removed, test samples
[(4,), (3,), (20, 1)]
"""

from ntkflow.features.external import (
    ExternalNetwork as ExternalNetwork,
    Transfer as Transfer,
    top_features as top_features,
    transfer as transfer,
)
from ntkflow.features.nodes import (
    displacement as displacement,
    importance as importance,
    largest_displacement as largest_displacement,
    node_norms as node_norms,
    ranking as ranking,
)
from ntkflow.features.pruning import prune as prune, pruning_curve as pruning_curve
