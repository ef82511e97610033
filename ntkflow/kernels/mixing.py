"""Whether a network mixes samples, by its traces on two batches of different length."""

import itertools
from collections.abc import Callable, Iterable
from typing import Any

from ntkflow.kernels.jaxprs import Equation, Program, Variable, location


def refuse_mixing(one: Program, two: Program) -> None:
    """Refuse a network in which the result of a sample depends on other samples of its batch.

    An axis whose length differs between the two traces holds samples. What computes with samples
    must neither sum, sort, accumulate, reverse or slide along such an axis, nor take a fixed number
    of entries of it. Loops and branches are not looked into, indices that are arrays are not
    followed, and code that does other things for other numbers of samples is not compared.

    Args:
      one, two: traces of one function on different numbers of samples. Two and three tell more
        than one and two: with one sample, h[0] is no slice.

    Raises:
      ValueError: an operation along the samples, with the line of the user's code.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from ntkflow.kernels.jaxprs import trace
      >>> x1, x2 = (jax.ShapeDtypeStruct((n, 3), "float32") for n in (1, 2))
      >>> refuse_mixing(*(trace(lambda h: h - h.mean(1, keepdims=True), x) for x in (x1, x2)))
      >>> refuse_mixing(*(trace(lambda h: h - h.mean(0, keepdims=True), x) for x in (x1, x2)))
      Traceback (most recent call last):
      ValueError: The network mixes samples: reduce_sum at line 1 of ...
    """
    pairs = [[e for e in program.equations if e.name not in _SHAPING] for program in (one, two)]
    if [e.name for e in pairs[0]] != [e.name for e in pairs[1]]:
        return
    changed = zip(one.inputs, two.inputs, strict=True)
    sampled = {double for single, double in changed if single.shape != double.shape}
    for equation in two.equations:  # collects what is computed from the samples
        if any(isinstance(atom, Variable) and atom in sampled for atom in equation.inputs):
            sampled.update(equation.outputs)
    for single, double in zip(*pairs, strict=True):
        rule = _RULES.get(double.name)
        if rule is None or not any(variable in sampled for variable in double.outputs):
            continue
        if len(single.inputs[0].shape) == len(double.inputs[0].shape) and rule(single, double):
            raise ValueError(
                f"The network mixes samples: {double.name} at {location(double)} runs over the "
                "batch, as batch normalization in training mode does. Kernels of samples need "
                "frozen statistics (use_running_average=True), or another normalization."
            )


# Steps that traces may have or not, where an axis has size 1 in one of them.
_SHAPING = ("broadcast_in_dim", "reshape", "squeeze", "expand_dims", "copy", "transpose")

Rule = Callable[[Equation, Equation], bool]


def _along(axes: Callable[[Equation], Iterable[int]]) -> Rule:
    """The rule of what runs along axes of its first operand: none may hold samples."""

    def rule(single: Equation, double: Equation) -> bool:
        before, after = single.inputs[0].shape, double.inputs[0].shape
        return any(before[i] != after[i] for i in axes(double))

    return rule


def _takes_samples(single: Equation, double: Equation) -> bool:
    """Whether the result is as long with many samples as with few: it holds some of them alone."""
    operands, results = ([e.inputs[0].shape, e.outputs[0].shape] for e in (single, double))
    sizes = zip(*operands, *results, strict=True)
    return any(a != b and p == q > 0 for a, p, b, q in sizes)


def _in_windows(single: Equation, double: Equation) -> bool:
    params, shapes = double.params, (single.inputs[0].shape, double.inputs[0].shape)
    keys = ("window_dimensions", "window_strides", "padding")
    return any(itertools.starmap(_overlap, zip(*shapes, *(params[k] for k in keys), strict=True)))


def _in_convolution(single: Equation, double: Equation) -> bool:
    params, shapes = double.params, (single.inputs[0].shape, double.inputs[0].shape)
    numbers, kernel = params["dimension_numbers"], double.inputs[1].shape
    features = [e.inputs[0].shape[numbers.lhs_spec[1]] for e in (single, double)]
    groups = [e.params["feature_group_count"] for e in (single, double)]
    windows = zip(
        *([shape[i] for i in numbers.lhs_spec[2:]] for shape in shapes),
        [kernel[i] for i in numbers.rhs_spec[2:]],
        params["window_strides"],
        params["padding"],
        strict=True,
    )
    per_group = [size // count for size, count in zip(features, groups, strict=True)]
    return per_group[0] != per_group[1] or any(itertools.starmap(_overlap, windows))


def _overlap(before: int, after: int, size: int, stride: int, padding: Iterable[int]) -> bool:
    """Whether windows along an axis cover several samples.

    Samples that were flattened into the axis stay apart where windows fill each of them.
    """
    if before == after or size == 1:
        return False
    return size > stride or tuple(padding) != (0, 0) or (after - before) % stride != 0


_REDUCTIONS = ("sum", "prod", "max", "min", "and", "or", "xor")
_CUMULATIONS = ("sum", "prod", "max", "min", "logsumexp")


def _positions(axes: Iterable[Any]) -> list[int]:
    """Of the axes of a collective sum those of the array: the others are names of devices'."""
    return [axis for axis in axes if isinstance(axis, int)]


_RULES: dict[str, Rule] = {
    **{f"reduce_{name}": _along(lambda e: e.params["axes"]) for name in _REDUCTIONS},
    **{name: _along(lambda e: e.params["axes"]) for name in ("argmax", "argmin")},
    **{f"cum{name}": _along(lambda e: (e.params["axis"],)) for name in _CUMULATIONS},
    **dict.fromkeys(
        [f"reduce_window{suffix}" for suffix in ("", "_sum", "_max", "_min")], _in_windows
    ),
    **dict.fromkeys(["slice", "dynamic_slice"], _takes_samples),
    **dict.fromkeys(["psum", "pmax", "pmin"], _along(lambda e: _positions(e.params["axes"]))),
    "reduce": _along(lambda e: e.params["dimensions"]),
    "rev": _along(lambda e: e.params["dimensions"]),
    "sort": _along(lambda e: (e.params["dimension"],)),
    "top_k": _along(lambda e: (e.params.get("axis", -1),)),
    "fft": _along(lambda e: range(-len(e.params["fft_lengths"]), 0)),
    "dot_general": _along(lambda e: e.params["dimension_numbers"][0][0]),
    "conv_general_dilated": _in_convolution,
}
