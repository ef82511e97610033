"""One file per dataset (netCDF4, by h5netcdf), written aside and renamed: never half a file."""

import contextlib
import importlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import xarray


def require(*modules: str) -> Any:
    """Import what the extra `study` brings, the first one returned, or say how to install it."""
    try:
        first, *_ = [importlib.import_module(module) for module in modules]
        return first
    except ImportError as error:
        raise ImportError(
            f"Studies need {' and '.join(modules)} ({error}): pip install 'ntkflow[study]'"
        ) from error


@contextlib.contextmanager
def written_aside(path: Path) -> Iterator[Path]:
    """A new name to write under, renamed to `path` if all went well and removed if not."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # A directory of its own, so that no other process ever writes under the same name.
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".writing-") as aside:
        temporary = Path(aside) / path.name
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)


def save(dataset: "xarray.Dataset", path: str | os.PathLike[str]) -> None:
    """Write a study to one netCDF4 file; a failure on the way leaves an older file as it was.

    Any netCDF4 or HDF5 reader opens the file; `load` gives the same dataset back.

    Args:
      dataset: what `run` returned, or any dataset made from it.
      path: where to; the folder is made if it is missing, an existing file is replaced.

    Raises:
      ImportError: the extra `study` is not installed.
    """
    require("h5netcdf", "h5py")
    with written_aside(Path(path)) as temporary:
        dataset.to_netcdf(temporary, engine="h5netcdf")


def load(path: str | os.PathLike[str]) -> "xarray.Dataset":
    """Read a study that `save` wrote, into memory.

    Args:
      path: the file.

    Returns:
      The dataset, identical to the one that was saved.

    Raises:
      FileNotFoundError: no such file.
      ValueError: the file is damaged, truncated, or of another kind.
      ImportError: the extra `study` is not installed.
    """
    xarray = require("xarray", "h5netcdf", "h5py")
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}; expected a study saved by studies.save.")
    try:
        # Units such as "s" belong to the reader: nothing here is a calendar date.
        with xarray.open_dataset(
            path, engine="h5netcdf", decode_times=False, decode_timedelta=False
        ) as dataset:
            return dataset.load()
    except (OSError, KeyError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"{path} cannot be read as a netCDF4 file: truncated, damaged, or of another kind "
            f"({error}). Restore it from a copy, or run the study again."
        ) from error
