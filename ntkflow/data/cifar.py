"""The Python batches of CIFAR-10 and CIFAR-100, which are pickles, read without trusting them."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np

from ntkflow.data.dataset import Samples
from ntkflow.data.files import broken, only_set


def _latin1(text: str, encoding: str) -> bytes:
    """What `_codecs.encode` is used for in pickles: the bytes that Python 3 wrote as text."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"encoding {encoding!r}")
    return text.encode("latin1")


# A pickle may call any function that it names: code from whoever wrote the file. These few
# rebuild arrays and bytes and do no more. NumPy's own two are private and have moved between
# its versions; the reduction of an array names them, wherever they live now.
_REBUILD, _FROM_BYTES = (np.zeros(1).__reduce_ex__(protocol)[0] for protocol in (2, 5))
_ALLOWED: dict[tuple[str, str], Any] = {
    ("_codecs", "encode"): _latin1,
    ("numpy", "dtype"): np.dtype,
    ("numpy", "ndarray"): np.ndarray,
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _REBUILD for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _FROM_BYTES for core in ("core", "_core")},
}


class _Forbidden(Exception):
    pass


class _ArraysOnly(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise _Forbidden(f"{module}.{name}")
        return _ALLOWED[module, name]


def is_folder(folder: Path) -> bool:
    """Whether a folder holds batches with CIFAR's names."""
    return any(folder.glob("data_batch_*")) or all(
        (folder / name).is_file() for name in ("train", "test", "meta")
    )


def read_folder(folder: Path, split: str) -> Samples:
    """The training or the test set of cifar-10-batches-py or cifar-100-python."""
    if any(folder.glob("data_batch_*")):
        batches = [f"data_batch_{i}" for i in range(1, 6)] if split == "train" else ["test_batch"]
    else:
        batches = [split]
    missing = [name for name in batches if not (folder / name).is_file()]
    if missing:
        raise FileNotFoundError(
            f"{folder} lacks {', '.join(missing)}; unpack the archive of CIFAR again."
        )
    parts = [_read_batch(folder / name) for name in batches]
    x, y = (np.concatenate(arrays) for arrays in zip(*(part[:2] for part in parts), strict=True))
    return _samples(x, y, parts[0][2], folder)


def read_file(path: Path, split: str) -> Samples:
    """One batch."""
    only_set(path, split, holds_test="test" in path.name)
    return _samples(*_read_batch(path), path.parent)


def _samples(x: np.ndarray, y: np.ndarray, classes: int, folder: Path) -> Samples:
    # The file has the colors outermost; channels last is what Flax convolves.
    x = x.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    # A batch may lack a class, the set does not.
    return Samples(x, y, _names(folder, classes), train_labels=np.arange(classes))


def _read_batch(path: Path) -> tuple[np.ndarray, np.ndarray, int]:
    content = _unpickle(path)
    key, classes = ("fine_labels", 100) if "fine_labels" in content else ("labels", 10)
    if not {"data", key} <= content.keys():
        raise ValueError(
            f"{path} holds {sorted(map(str, content))}; a batch of CIFAR holds 'data' and "
            "'labels' (CIFAR-10) or 'fine_labels' (CIFAR-100)."
        )
    x = content["data"]
    if not isinstance(x, np.ndarray) or x.dtype != np.uint8 or x.ndim != 2 or x.shape[1] != 3072:
        raise broken(path, "'data' is no array of bytes of shape (n, 3072)")
    try:
        y = np.asarray(content[key], dtype=int)
    except (TypeError, ValueError, OverflowError) as error:
        raise broken(path, f"{key!r} is no list of whole numbers") from error
    if y.shape != (len(x),):
        raise ValueError(f"{path} holds {len(x)} images, but {key!r} has shape {y.shape}.")
    if len(y) and (y.min() < 0 or y.max() >= classes):
        raise broken(path, f"{key!r} leaves the range 0 to {classes - 1}")
    return x, y, classes


def _names(folder: Path, classes: int) -> tuple[str, ...]:
    file, key = {10: ("batches.meta", "label_names"), 100: ("meta", "fine_label_names")}[classes]
    if not (folder / file).is_file():
        return ()
    names = _unpickle(folder / file).get(key, ())
    names = tuple(name.decode() if isinstance(name, bytes) else str(name) for name in names)
    return names if len(names) == classes else ()


def _unpickle(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            content = _ArraysOnly(file, encoding="bytes").load()
    except _Forbidden as error:
        raise ValueError(
            f"{path} is refused: loading it would call {error}, which no batch of CIFAR needs. "
            "Pickles can run any code; fetch the file again from a source you trust."
        ) from error
    except OSError:
        raise
    except Exception as error:  # damaged pickles raise nearly anything
        raise broken(path, f"it cannot be unpickled ({error})") from error
    if not isinstance(content, dict):
        raise broken(path, f"it holds a {type(content).__name__} instead of a dictionary")
    return {
        key.decode("latin1") if isinstance(key, bytes) else str(key): value
        for key, value in content.items()
    }
