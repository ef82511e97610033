"""How each operation that is not elementwise acts on the values of a network, by its name."""

from collections.abc import Callable
from typing import Any

from ntkflow.kernels.infinite.contractions import conv_general_dilated, dot_general, gather
from ntkflow.kernels.infinite.positions import (
    concatenate,
    cumsum,
    pad,
    reduce_sum,
    reduce_window_sum,
    rev,
    slice_,
    split,
    stack,
    tile,
    unstack,
)
from ntkflow.kernels.infinite.values import broadcast, reshape, squeeze, transpose

RULES: dict[str, Callable[..., Any]] = {
    "dot_general": dot_general,
    "conv_general_dilated": conv_general_dilated,
    "reduce_sum": reduce_sum,
    "reduce_window_sum": reduce_window_sum,
    "slice": slice_,
    "split": split,
    "stack": stack,
    "unstack": unstack,
    "tile": tile,
    "optimization_barrier": lambda context, params, *values: list(values),
    "pad": pad,
    "rev": rev,
    "cumsum": cumsum,
    "concatenate": concatenate,
    "gather": gather,
    "reshape": lambda context, params, x: reshape(x, params["new_sizes"]),
    "transpose": lambda context, params, x: transpose(x, params["permutation"]),
    "squeeze": lambda context, params, x: squeeze(x, params["dimensions"]),
    "broadcast_in_dim": lambda context, params, x: broadcast(
        x, params["shape"], params["broadcast_dimensions"]
    ),
}
STRUCTURAL = frozenset(["reshape", "transpose", "squeeze", "broadcast_in_dim"])
