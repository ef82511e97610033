"""The door: a kernel becomes a function that computes it tile by tile."""

import contextlib
import functools
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from ntkflow import checks
from ntkflow.devices import local_devices
from ntkflow.kernels.blocks.call import abstract, check_results, on_host, signature_of, split
from ntkflow.kernels.blocks.folder import describe, in_folder
from ntkflow.kernels.blocks.places import Devices, Host
from ntkflow.kernels.blocks.plan import make_plan
from ntkflow.kernels.blocks.tiles import compute


def in_blocks(
    kernel: Callable[..., Any],
    *,
    to: str | os.PathLike[str] = "host",
    max_bytes: int = 2**30,
    devices: int | Sequence[jax.Device] | None = None,
    progress: bool = False,
) -> Callable[..., Any]:
    """Compute a kernel tile by tile, in bounded memory, on all local devices at once.

    Tiles are about as large as `max_bytes` allows: candidates are compiled, and measured by XLA's
    own account of their arguments, results and temporaries. Any number of samples: all tiles have
    one shape, and those at the edge are filled up with samples whose entries are dropped. With
    x2=None tiles below the diagonal are mirrored, and those on it are kernel(x1, None); the
    result is exactly symmetric.

    Outside the budget are the data, which lie in the host's memory, the result, and the arrays
    that a kernel closes over, constants of its program. Pass those as arguments: in
    `functools.partial(kernel, params)` they are found, too.

    Build it once and call it often: programs are kept, for the shapes of the last calls.

    **On the devices** the result is split by rows. JAX splits an axis evenly or not at all, so
    where the rows do not divide by the number of devices, rows and columns are cut into the grid
    of even pieces that uses most devices: 10 × 10 on 4 devices lies in 2 × 2 pieces, 9 × 9 in 3 × 1
    on three of them, and a prime number of samples on one.

    **In a folder** each array of the result is a `.npy` file (`kernel.npy`, or the name of the
    field, `ntk.npy`), which may be larger than the memory; until all tiles are there it is called
    `.npy.unfinished`. A computation that was stopped or killed goes on from there, in another
    process, too: finished tiles are recorded every 5 seconds (or with every round of tiles, where
    that takes longer), and when an exception ends the work. It keeps the size of tile that it
    began with; the same program, as on the same CPU, then gives the same bits (on a GPU XLA may
    choose another one each time). A complete folder is opened, and nothing computed.

    One folder holds one result. It is refused for other samples or arguments, for a result of
    other shapes or dtypes, and for a kernel of another name or one that closes over other values.
    Not compared are the kernel's code, versions of libraries, devices and budget: after a change
    of the code choose another folder.

    Args:
      kernel: a function with arguments named x1 and x2, among any others (params, a key), that
        returns an array (n1, n2, ...) or a pytree of them; each entry depends on its own pair of
        samples alone. Of the other arguments, arrays are handed to the program; all else, a
        number or a string, is a constant of it.
      to: where the result goes: "host", "devices", or a folder, as a `pathlib.Path`.
      max_bytes: bytes of memory on each device, for the other arguments and for two tiles: one at
        work, and one on its way to the host.
      devices: local devices to use, or how many; None takes all. CPU devices share one memory.
      progress: whether to show a bar on the standard error stream.

    Returns:
      A function with the arguments of `kernel` and with its result, to be called outside of
      `jit`: NumPy arrays; or sharded arrays; or read-only `numpy.memmap`s of the folder's files.
      It does not depend on tiles and devices beyond rounding.

    Raises:
      ValueError: `kernel` has no arguments x1 and x2, or a device is not local; and when called:
        one pair of samples needs more than `max_bytes`, or so do the tiles that a folder was
        begun with; samples are missing or NaN; the result has no leading axes (n1, n2), or, with
        x2=None, further axes that are not (o,) or (o, o); the folder belongs to another
        computation, is damaged, or is being written by another process.
      OSError: the disk has no room for the result: asked for before the first tile.
      ImportError: `progress` without rich.

    Example:
      >>> def gram(x1, x2=None):
      ...     return x1 @ (x1 if x2 is None else x2).T
      >>> x = np.arange(30.0).reshape(10, 3)
      >>> bool((in_blocks(gram, max_bytes=2000)(x) == x @ x.T).all())
      True

      >>> import tempfile
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     theta = in_blocks(gram, to=Path(folder) / "gram")(x)
      ...     print(theta[9, 9], [file.name for file in sorted(Path(folder).glob("*/*"))])
      2354.0 ['kernel.npy', 'manifest.json', 'progress.json']
    """
    function, given, named = kernel, (), {}
    if isinstance(kernel, functools.partial):
        function, given, named = kernel.func, kernel.args, kernel.keywords
    signature = signature_of(function)
    budget = checks.positive_int("max_bytes", max_bytes)
    mesh = Mesh(np.array(local_devices(devices)), ("device",))
    if not (to in ("host", "devices") or isinstance(to, os.PathLike)):
        raise ValueError(
            f'to is {to!r}; expected "host", "devices" or a folder, as pathlib.Path({to!r}).'
        )

    @functools.lru_cache(maxsize=16)
    def trace(call, arrays, x1, x2):
        return check_results(jax.eval_shape(call.fill, arrays, x1, x2), x1, x2)

    @functools.lru_cache(maxsize=16)
    def plan(call, arrays, x1, x2, begun):
        return make_plan(mesh, budget, call, arrays, x1, x2, trace(call, arrays, x1, x2), begun)

    def blocked(*args: Any, **kwargs: Any) -> Any:
        bound = signature.bind(*given, *args, **{**named, **kwargs})
        x1, x2 = bound.arguments["x1"], bound.arguments.get("x2")
        x1, x2 = on_host("x1", x1), None if x2 is None else on_host("x2", x2)
        call, arrays = split(function, bound)
        shapes = jax.tree.map(abstract, (arrays, x1, x2))
        results = trace(call, *shapes)
        if to == "host":
            opened: Any = contextlib.nullcontext(Host(results))
        elif to == "devices":
            opened = contextlib.nullcontext(Devices(results, mesh.devices.ravel().tolist()))
        else:
            opened = in_folder(Path(to), results, describe(call, arrays, x1, x2, results))
        with opened as place:
            if not place.complete:
                chosen = plan(call, *shapes, place.tile)
                compute(chosen, mesh, arrays, x1, x2, place, progress)
            return jax.tree.unflatten(jax.tree.structure(results), place.result())

    return blocked
