"""`load`: one door to installed data sets and to the user's files."""

import difflib
import math
import os
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ntkflow.checks import positive_int
from ntkflow.data import cifar, idx, labels, named, npz, table
from ntkflow.data.dataset import Dataset, Samples
from ntkflow.data.files import intact_gzip, only_set, open_bytes

_TEXT = (".csv", ".tsv", ".txt", ".data", ".dat")
_WHERE = (
    "Nothing is downloaded. MNIST: train-images-idx3-ubyte.gz and its three companions, from "
    "https://ossci-datasets.s3.amazonaws.com/mnist/, or Keras' mnist.npz; CIFAR: the 'python "
    "version' of https://www.cs.toronto.edu/~kriz/cifar.html, unpacked."
)
_BLOCK = 2**22  # numbers converted at a time: 32 MB of float64 on the way


def load(
    name_or_path: str | os.PathLike,
    *,
    split: str = "train",
    classes: Any = None,
    labels: str = "auto",
    label_column: int | str | None = None,
    unit_norm: bool = False,
    flatten: bool = True,
    limit: int | None = None,
    seed: int = 0,
    dtype=None,
) -> Dataset:
    """Load a data set by its name, or from a file or folder.

    By name: "breast_cancer" (n = 569, d = 30), "diabetes" (442, 10) and "digits" (1797, 64),
    which come with scikit-learn. From files, nothing being downloaded:

    - MNIST and relatives in IDX form, plain or .gz: a folder with the usual four files, or a
      file of images whose labels lie beside it;
    - .npz with `x_train, y_train, x_test, y_test` (as Keras has them) or `x, y`;
    - CIFAR-10 and CIFAR-100: the folder of Python batches, or one batch. They are pickles, and
      loaded so that they can build arrays but run no code;
    - tables of numbers as text (CSV; commas, semicolons, tabs or spaces; .gz too). A first line
      without numbers is a header; a first column without a name is a row index and left out.

    Pixels, which are unsigned bytes in files, are scaled to [0, 1], and so are digits'. Other
    inputs stay as they are.

    Args:
      name_or_path: one of the names, or a path; for a folder called like a name: "./digits".
      split: "train" or "test", where files have both.
      classes: keep these classes only, by number or by name, in this order.
      labels: "signs": −1 for the first and +1 for the second of two classes, shape (n,);
        "one_hot": shape (n, o), columns in the order of `classes`, or increasing; "standardized":
        (y − mean)/std, by the mean and standard deviation of the whole training set (of the
        chosen classes, before `limit`); "raw": as in the file, classes as whole numbers. "auto":
        "signs" for two classes, "one_hot" for more, "standardized" for real numbers. Names of
        classes are numbered in alphabetical order. In a table, whole numbers with more than 20
        different values are taken for real numbers, unless classes are asked for here.
      label_column: the column of a table that holds the labels: its name, or its number from 0,
        or from −1 at the end; the last one by default.
      unit_norm: scale each input to ‖x‖ = 1.
      flatten: x of shape (n, d); otherwise images are (n, height, width, channels).
      limit: draw so many samples at random, the same number of each class as far as they last.
      seed: of that draw. With the same seed, a smaller subset lies in the larger one.
      dtype: floating-point type of x and y; by default JAX's own, float32 unless x64 is enabled.

    Returns:
      `Dataset`, the pair (x, y), in the order of the file.

    Raises:
      ValueError: an unknown name or option, classes that are absent, more samples asked than
        there are, a file that is corrupt, truncated or not finite, an input of norm 0 that
        should become 1; each says where.
      FileNotFoundError: no such file; says where it comes from.
      ImportError: scikit-learn is not installed.

    Example:
      >>> x, y = load("digits", classes=(3, 8), unit_norm=True)
      >>> x.shape, y.shape, sorted(set(y.tolist()))
      ((357, 64), (357,), [-1.0, 1.0])
      >>> x, y = load("digits", limit=100, flatten=False)
      >>> x.shape, y.shape, y.sum(axis=0).tolist()
      ((100, 8, 8, 1), (100, 10), [10.0, 10.0, 10.0, 10.0, 10.0, 10.0, 10.0, 10.0, 10.0, 10.0])
    """
    dtype = _float_dtype(dtype)
    if split not in ("train", "test"):
        raise ValueError(f"split is {split!r}; expected 'train' or 'test'.")
    source = str(name_or_path)
    samples = _read(name_or_path, split, label_column)
    if len(samples.x) != len(samples.y) or len(samples.x) == 0:
        raise ValueError(
            f"{source} holds {len(samples.x)} inputs and {len(samples.y)} labels; expected as "
            "many of one as of the other, and at least one."
        )
    rows, y = _targets(samples, source, classes, labels, limit, seed)
    x = _inputs(samples.x, rows, source, dtype, unit_norm)
    if flatten:
        x = x.reshape(len(x), -1)
    return Dataset(jnp.asarray(x), jnp.asarray(y if y.dtype.kind == "i" else y.astype(dtype)))


def _float_dtype(dtype) -> np.dtype:
    asked = jnp.dtype(float if dtype is None else dtype)
    if not jnp.issubdtype(asked, jnp.floating):
        raise ValueError(f"dtype is {asked}; expected a floating-point type, e.g. 'float32'.")
    granted = jax.dtypes.canonicalize_dtype(asked)
    if dtype is not None and granted != asked:
        raise ValueError(
            f"dtype is {asked}, which JAX turns into {granted} now; for float64, start with "
            "jax.config.update('jax_enable_x64', True)."
        )
    return np.dtype(granted)


def _read(name_or_path: str | os.PathLike, split: str, column: int | str | None) -> Samples:
    if isinstance(name_or_path, str) and name_or_path in named.NAMES:
        only_set(name_or_path, split)
        _no_column(name_or_path, column)
        return named.read(name_or_path)
    path = Path(name_or_path).expanduser()
    if not path.exists():
        raise _not_found(name_or_path, path)
    form = _form(path)
    if form == "table":
        only_set(path, split)
        return table.read(path, -1 if column is None else column)
    _no_column(str(path), column)
    if form == "npz":
        return npz.read(path, split)
    reader = {"idx": idx, "cifar": cifar}[form]
    return reader.read_folder(path, split) if path.is_dir() else reader.read_file(path, split)


def _no_column(source: str, column: int | str | None) -> None:
    if column is not None:
        raise ValueError(
            f"label_column is {column!r}, but {source} is no table; leave it out: "
            "this form of data says itself which are the labels."
        )


def _not_found(asked: str | os.PathLike, path: Path) -> Exception:
    if not isinstance(asked, str) or path.suffix or len(path.parts) > 1:
        return FileNotFoundError(f"No file or folder {path} (looked in {Path.cwd()}). {_WHERE}")
    close = difflib.get_close_matches(asked.lower(), named.NAMES, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return ValueError(
        f"Unknown data set {asked!r}: there is no file or folder of that name in {Path.cwd()}, "
        f"and the known names are {', '.join(map(repr, named.NAMES))}.{hint} Other data are read "
        f"from files: load('path/to/folder') or load('path/to/file'). {_WHERE}"
    )


def _form(path: Path) -> str:
    """Which reader a path is for: by its name where that is telling, else by its first bytes."""
    if path.is_dir():
        if idx.image_files(path):
            return "idx"
        if cifar.is_folder(path):
            return "cifar"
        inside = sorted(entry.name for entry in path.iterdir())
        raise ValueError(
            f"{path} holds neither MNIST's files nor CIFAR's batches, but "
            f"{', '.join(inside[:10]) or 'nothing'}{', ...' if len(inside) > 10 else ''}. "
            f"Name the folder that holds them directly, or one file. {_WHERE}"
        )
    name = path.name.lower()
    if name.endswith((".zip", ".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz")):
        raise ValueError(f"{path} is an archive; unpack it and name the folder inside.")
    if name.endswith(".npz"):
        return "npz"
    if name.removesuffix(".gz").endswith(_TEXT):
        return "table"
    if idx.is_name(name):
        return "idx"
    if name.startswith("data_batch_") or name == "test_batch":
        return "cifar"
    with intact_gzip(path), open_bytes(path) as file:
        head = file.read(3)
    marks = (("npz", b"PK"), ("cifar", b"\x80"), ("idx", b"\0\0"))
    return next((form for form, mark in marks if head.startswith(mark)), "table")


def _targets(
    samples: Samples,
    source: str,
    classes: Any,
    encoding: str,
    limit: int | None,
    seed: int,
) -> tuple[np.ndarray, np.ndarray]:
    """The rows to keep, and their encoded labels."""
    if encoding not in labels.ENCODINGS:
        close = difflib.get_close_matches(str(encoding), labels.ENCODINGS, n=1)
        raise ValueError(
            f"labels is {encoding!r}; expected one of {', '.join(map(repr, labels.ENCODINGS))}."
            + (f" Did you mean {close[0]!r}?" if close else "")
        )
    samples = labels.canonical(samples, source)
    if classes is not None or encoding in ("signs", "one_hot"):
        why = "classes=" if classes is not None else f"labels={encoding!r}"
        samples = labels.whole(samples, source, why)
    reference = samples.y if samples.train_labels is None else samples.train_labels
    rows, kinds = np.arange(len(samples.y)), None
    if samples.y.dtype.kind == "i":
        kinds = labels.present(samples)
        if classes is not None:
            kinds = labels.resolve(classes, samples, source)
            rows = np.flatnonzero(np.isin(samples.y, kinds))
            reference = reference[np.isin(reference, kinds)]
        if len(kinds) < 2 and encoding not in ("raw", "standardized"):
            raise ValueError(
                f"All labels in {source} are {kinds[0]}; expected at least two classes. "
                "For the number itself: labels='raw'."
            )
    if limit is not None:
        limit = positive_int("limit", limit)
        if limit > len(rows):
            raise ValueError(
                f"limit is {limit}, but {source} holds {len(rows)} samples"
                f"{' of these classes' if classes is not None else ''}; expected at most that."
            )
        rows = rows[labels.subset(samples.y[rows], limit, seed, by_class=kinds is not None)]
    if encoding == "auto":
        encoding = "standardized" if kinds is None else "signs" if len(kinds) == 2 else "one_hot"
    return rows, labels.encode(samples.y[rows], encoding, kinds, reference)


def _inputs(
    x: np.ndarray, rows: np.ndarray, source: str, dtype: np.dtype, unit_norm: bool
) -> np.ndarray:
    """The chosen rows as floating-point numbers, block by block in float64 on the way."""
    if x.dtype.kind not in "biuf" or x.ndim < 2 or 0 in x.shape:
        raise ValueError(
            f"The inputs in {source} have shape {x.shape} and type {x.dtype}; expected numbers, "
            "of shape (n, d) or (n, height, width, ...)."
        )
    pixels = x.dtype == np.uint8
    out = np.empty((len(rows), *x.shape[1:]), dtype)
    not_finite, zero = [], []
    height = max(1, _BLOCK // math.prod(x.shape[1:]))
    for start in range(0, len(rows), height):
        chosen = rows[start : start + height]
        block = x[chosen].reshape(len(chosen), -1).astype(float)
        if pixels:
            block /= 255
        largest = np.abs(block).max(axis=1, keepdims=True)
        if unit_norm:
            zero.extend(chosen[largest[:, 0] == 0])
            with np.errstate(invalid="ignore", divide="ignore"):  # reported below
                block /= largest  # so that no square overflows
                block /= np.sqrt(np.einsum("ij,ij->i", block, block))[:, None]
        with np.errstate(over="ignore"):
            out[start : start + height] = block.astype(dtype).reshape(-1, *x.shape[1:])
        finite = np.isfinite(out[start : start + height]).reshape(len(chosen), -1).all(axis=1)
        not_finite.extend(chosen[~finite & ((largest[:, 0] != 0) | (not unit_norm))])
    for bad, what, remedy in (
        (not_finite, f"are NaN, infinite or too large for {dtype}", "drop these samples"),
        (zero, "are zero, and cannot be scaled to norm 1", "drop them, or unit_norm=False"),
    ):
        if bad:
            listed = ", ".join(map(str, bad[:10])) + (", ..." if len(bad) > 10 else "")
            raise ValueError(
                f"{len(bad)} inputs in {source} {what}: rows {listed}, counted from 0 in the "
                f"file's order; {remedy}."
            )
    return out
