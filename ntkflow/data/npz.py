"""NumPy's .npz files, with the names that Keras gives, or plain x and y."""

import contextlib
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from ntkflow.data.dataset import Samples
from ntkflow.data.files import broken, only_set

# What zipfile and numpy raise on damaged content, as far as bytes were tried (see the tests).
_DAMAGE = (
    EOFError,
    KeyError,
    NotImplementedError,
    OSError,
    RuntimeError,
    ValueError,
    zipfile.BadZipFile,
    zlib.error,
)


@contextlib.contextmanager
def _archive(path: Path) -> Iterator[Mapping[str, np.ndarray]]:
    # Opened here: np.load leaves a file open whose archive is damaged.
    with path.open("rb") as file:
        if not zipfile.is_zipfile(file):
            raise broken(path, "an .npz file is a zip archive, and this is none")
        file.seek(0)
        try:
            # Pickles inside could run code, hence allow_pickle=False.
            with np.load(file, allow_pickle=False) as archive:
                yield archive
        except _DAMAGE as error:
            raise broken(path, f"NumPy cannot read it ({error})") from error


def read(path: Path, split: str) -> Samples:
    """`x_train, y_train, x_test, y_test`, or `x, y`; capital letters are as good."""
    with _archive(path) as archive:
        keys = {key.lower(): key for key in archive}
    names = [f"x_{split}", f"y_{split}"]
    if not keys.keys() >= set(names):
        names = ["x", "y"]
        if not keys.keys() >= set(names):
            raise ValueError(
                f"{path} holds the arrays {sorted(keys.values())}; expected x_{split} and "
                f"y_{split}, or x and y: np.savez(path, x=..., y=...)."
            )
        only_set(path, split)
    with _archive(path) as archive:
        x, y = (archive[keys[name]] for name in names)
        train = archive[keys["y_train"]] if names[1] == "y_test" and "y_train" in keys else None
    return Samples(x[..., None] if x.ndim == 3 and x.dtype == np.uint8 else x, y, (), train)
