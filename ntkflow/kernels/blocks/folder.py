"""A folder for the result: one .npy file per array, and how far the tiles have come."""

import contextlib
import errno
import json
import os
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from numpy.lib.format import open_memmap

from ntkflow.files import claim, written_aside
from ntkflow.fingerprint import contents
from ntkflow.kernels.blocks.call import Call, name_of
from ntkflow.kernels.blocks.places import Place

if sys.platform != "win32":
    import fcntl

PROGRESS = "progress.json"
_SECONDS = 5.0  # between two records: writing one waits for the disk


def describe(call: Call, arrays: Any, x1: Any, x2: Any, results: Any) -> dict[str, Any]:
    """What makes a computation this one. The kernel's code is not part of it: only its name."""
    return {
        "kernel": name_of(call.function),
        "what it closes over": contents(call.function),
        "x1": contents(x1),
        "x2": contents(x2),
        "other arguments": contents((arrays, call.leaves, str(call.structure))),
        "result": {
            name: f"{leaf.dtype} {leaf.shape}"
            for name, leaf in zip(_names(results), jax.tree.leaves(results), strict=True)
        },
    }


@contextlib.contextmanager
def in_folder(folder: Path, results: Any, description: dict[str, Any]) -> Iterator["Folder"]:
    """Open the folder of a computation; what was written is recorded however it ends."""
    claim(folder, "kernel", description)
    place = Folder(folder, results)
    if place.complete:
        yield place
        return
    with _alone(folder):
        place = Folder(folder, results)  # another process may have finished since
        try:
            yield place
        finally:
            place.record()


class Folder(Place):
    """Files that are filled through the memory map of each, tile by tile.

    A tile counts as finished when the disk has it: first the data, then the record that says so.
    """

    def __init__(self, folder: Path, results: Any):
        self.folder, self.leaves, self.names = folder, jax.tree.leaves(results), _names(results)
        self.maps: list[Any] = []
        self.tiles = 0
        path = folder / PROGRESS
        if path.exists():
            try:
                known = json.loads(path.read_text())
                self.finished, self.tiles = int(known["finished"]), int(known["tiles"])
                self.tile = int(known["tile"][0]), int(known["tile"][1])
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(
                    f"{path} is damaged ({error!r}); choose another folder."
                ) from error
        self.complete = self.tile is not None and self.finished == self.tiles

    def begin(self, tile: tuple[int, int], tiles: int) -> None:
        if self.tile is None:
            self.tile, self.tiles = tile, tiles
            for name, leaf in zip(self.names, self.leaves, strict=True):
                _create(self._unfinished(name), leaf)
        self._open()
        self.record()

    def write(self, number: int, rows: slice, columns: slice, values: np.ndarray) -> None:
        self.maps[number][rows, columns] = values

    def done(self, tiles: int) -> None:
        self.finished += tiles
        if time.monotonic() > self.recorded + _SECONDS:
            self.record()

    def record(self) -> None:
        """Have the disk take what was written, and then say so."""
        if not self.maps:
            return
        for array in self.maps:
            array.flush()
        state = {"tile": self.tile, "tiles": self.tiles, "finished": self.finished}
        with written_aside(self.folder / PROGRESS) as temporary:
            temporary.write_text(json.dumps(state))
        self._open()  # anew: pages of the old maps no longer count as memory of this process
        self.recorded = time.monotonic()

    def result(self) -> list[Any]:
        self.record()
        self.maps = []
        for name in self.names:
            with contextlib.suppress(FileNotFoundError):  # it has its name already
                os.replace(self._unfinished(name), self.folder / f"{name}.npy")
        return [
            _map(self.folder / f"{name}.npy", leaf, "r")
            for name, leaf in zip(self.names, self.leaves, strict=True)
        ]

    def _open(self):
        self.maps = [
            _map(self._unfinished(name), leaf, "r+")
            for name, leaf in zip(self.names, self.leaves, strict=True)
        ]

    def _unfinished(self, name):
        return self.folder / f"{name}.npy.unfinished"


def _names(results: Any) -> list[str]:
    """File names for the arrays of a result, after their places in it."""
    paths = [path for path, _ in jax.tree_util.tree_flatten_with_path(results)[0]]
    named = [jax.tree_util.keystr(path, simple=True, separator=".") for path in paths]
    names = [re.sub(r"[^\w.-]", "_", name) or "kernel" for name in named]
    if len({name.lower() for name in names}) < len(names):  # some disks know no capitals
        names = [f"{i}.{name}" for i, name in enumerate(names)]
    return names


def _create(path: Path, leaf: Any) -> None:
    """Make a file of zeros, with room for all of it: filling a disk through a map is fatal."""
    open_memmap(path, mode="w+", dtype=leaf.dtype, shape=leaf.shape)
    if not hasattr(os, "posix_fallocate"):
        return
    with path.open("r+b") as file:
        try:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
        except OSError as error:
            if error.errno in (errno.EOPNOTSUPP, errno.EINVAL):  # it cannot set room aside
                return
            path.unlink()
            error.add_note(f"{path} takes {leaf.size * leaf.dtype.itemsize} bytes.")
            raise
        os.fsync(file.fileno())


def _map(path: Path, leaf: Any, mode: Any) -> np.ndarray:
    try:
        open_memmap(path, mode="r")  # in mode "r+" a file that was cut is filled up with zeros
        array = open_memmap(path, mode=mode)
        if (array.shape, array.itemsize) != (leaf.shape, leaf.dtype.itemsize):
            raise ValueError(f"it holds {array.dtype} {array.shape}")
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{path} is missing or damaged ({error}); choose another folder, or delete "
            f"{PROGRESS} to compute all tiles anew."
        ) from error
    # A .npy file knows no bfloat16: there it is two bytes of no type.
    return array if array.dtype == leaf.dtype else array.view(leaf.dtype)


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep other processes out, until this one is done or dead; not on Windows."""
    if sys.platform == "win32":
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ValueError(
                f"{folder} is being written by another process; wait for it, or choose another "
                "folder."
            ) from error
        except OSError:  # a network disk without locks
            pass
        yield
    finally:
        os.close(handle)
