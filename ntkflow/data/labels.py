"""From the labels of a file to the targets of a loss: classes chosen, subset drawn, encoded."""

import difflib
import operator
from collections.abc import Iterable
from typing import Any

import numpy as np

from ntkflow.data.dataset import Samples

ENCODINGS = ("auto", "signs", "one_hot", "standardized", "raw")


def canonical(samples: Samples, source: str) -> Samples:
    """Labels as whole numbers of shape (n,) for classes, else as real numbers (n,) or (n, o)."""

    def settle(y: np.ndarray) -> np.ndarray:
        y = y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y
        if y.ndim not in (1, 2) or y.dtype.kind not in "biuf":
            raise ValueError(
                f"The labels in {source} have shape {y.shape} and type {y.dtype}; "
                "expected numbers, of shape (n,) or (n, o)."
            )
        whole = y.dtype.kind != "f" and y.ndim == 1
        y = y.astype(int if whole else float)
        bad = ~np.isfinite(y).reshape(len(y), -1).all(axis=1)
        if bad.any():
            raise ValueError(
                f"The labels in {source} hold NaN or infinite values: {bad.sum()} of {len(y)}, "
                f"the first in row {np.flatnonzero(bad)[0]}; drop these samples or fill them in."
            )
        return y

    train = samples.train_labels
    return samples._replace(
        y=settle(samples.y), train_labels=None if train is None else settle(train)
    )


def whole(samples: Samples, source: str, why: str) -> Samples:
    """`samples` with labels as classes, or a ValueError where they are real numbers."""
    known = samples.y if samples.train_labels is None else samples.train_labels
    for y in (samples.y, known):
        if y.ndim != 1 or (y != np.rint(y)).any():
            raise ValueError(
                f"{why} needs classes, but the labels in {source} are real numbers of shape "
                f"{y.shape}; expected labels='standardized' or 'raw', and no classes."
            )
    return samples._replace(y=samples.y.astype(int), train_labels=known.astype(int))


def present(samples: Samples) -> np.ndarray:
    """The classes of the training set, and of this one, in increasing order."""
    known = samples.y if samples.train_labels is None else samples.train_labels
    return np.union1d(samples.y, known)


def resolve(classes: Any, samples: Samples, source: str) -> np.ndarray:
    """The classes that a user names, by number or by name, as numbers in the user's order."""
    there = np.unique(samples.y)
    label = {int(k): samples.names[k] if samples.names else str(k) for k in there}
    numbers = []
    several = isinstance(classes, Iterable) and not isinstance(classes, str)
    for entry in classes if several else [classes]:
        if isinstance(entry, str):
            number = samples.names.index(entry) if entry in samples.names else None
        else:
            number = operator.index(entry) if hasattr(entry, "__index__") else None
        if number not in label:
            listed = [f"{k} ({label[k]})" if samples.names else str(k) for k in label]
            named = list(label.values()) if isinstance(entry, str) else []
            close = difflib.get_close_matches(str(entry), named, n=3)
            raise ValueError(
                f"{source} holds no class {entry!r}; those present are "
                f"{', '.join(listed[:20])}{', ...' if len(listed) > 20 else ''}."
                + (f" Did you mean {' or '.join(map(repr, close))}?" if close else "")
            )
        numbers.append(number)
    if len(numbers) < 2 or len(set(numbers)) < len(numbers):
        raise ValueError(
            f"classes is {classes!r}; expected at least two different ones, e.g. classes=(3, 8)."
        )
    return np.array(numbers)


def subset(y: np.ndarray, limit: int, seed: int, by_class: bool) -> np.ndarray:
    """`limit` rows drawn without replacement, in increasing order.

    By class, the classes get the same number each, up to one, as long as they last. With the
    same seed, a smaller subset lies in the larger one.
    """
    order = np.random.default_rng(seed).permutation(len(y))
    if by_class:
        drawn = y[order]
        grouped = np.argsort(drawn, kind="stable")
        _, starts, counts = np.unique(drawn[grouped], return_index=True, return_counts=True)
        rank = np.empty(len(y), dtype=int)
        rank[grouped] = np.arange(len(y)) - np.repeat(starts, counts)
        order = order[np.argsort(rank, kind="stable")]
    return np.sort(order[:limit])


def encode(
    y: np.ndarray, encoding: str, kinds: np.ndarray | None, reference: np.ndarray
) -> np.ndarray:
    """Targets from labels.

    Args:
      y: labels, (n,) or (n, o).
      encoding: one of `ENCODINGS`, without "auto".
      kinds: the classes in order; None for real numbers.
      reference: the labels whose mean and standard deviation standardize.
    """
    if encoding == "raw":
        return y
    if encoding == "standardized":
        mean, std = reference.mean(axis=0), reference.std(axis=0)
        if not np.all(std > 0):
            raise ValueError(
                "labels='standardized' divides by the labels' standard deviation, but all "
                "labels are equal; expected labels that vary, or labels='raw'."
            )
        return (y - mean) / std
    assert kinds is not None, encoding
    if encoding == "signs" and len(kinds) != 2:
        raise ValueError(
            f"labels='signs' needs two classes, not the {len(kinds)} that are there; "
            f"choose two, e.g. classes={tuple(kinds[:2].tolist())}, or labels='one_hot'."
        )
    if encoding == "signs":
        return np.where(y == kinds[1], 1.0, -1.0)
    return (y[:, None] == kinds[None, :]).astype(float)
