"""One file per dataset (netCDF4, by h5netcdf), written aside and renamed: never half a file."""

import importlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ntkflow.files import written_aside

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
