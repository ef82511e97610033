"""infinite_width: a network's kernels at infinite width, by following its traced computation.

From the outside in: `transform` is the door, `walk` goes from one operation to the next, `rules`,
`contractions`, `positions`, `elementwise` and `pieces` say what each makes of its operands.
Operands are `values`: axes over nodes, the `fields`. `moments` computes their covariances and
tangent kernels when they are asked for, in `views`, with `expectations`, `sums` and `windows`.
`laws` and `distributions` read how parameters are drawn.
"""

from ntkflow.kernels.infinite.transform import infinite_width as infinite_width
