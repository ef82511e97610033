"""A contender under another interpreter, whose packages cannot be installed beside JAX of today."""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

NAME = "neural-tangents"


class Peer:
    """Runs functions of a script, by name, in a process of another interpreter.

    The script calls `serve` where it finds --serve among its arguments.
    """

    def __init__(self, script: str, python: str, **environment: str):
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self._process = subprocess.Popen(
            [python, "-W", "ignore", script, "--serve"],
            env={**os.environ, "JAX_PLATFORMS": "cpu", "TF_CPP_MIN_LOG_LEVEL": "3", **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )

    def __call__(self, function: Callable[..., Any], *args: Any) -> Any:
        assert self._process.stdin, "a pipe"
        assert self._process.stdout, "a pipe"
        with contextlib.suppress(BrokenPipeError):  # the reason stands in its errors
            print(json.dumps([function.__name__, *args]), file=self._process.stdin, flush=True)
        reply = self._process.stdout.readline()
        if not reply:
            self._errors.seek(0)
            raise SystemExit(f"{NAME} stopped:\n{self._errors.read()[-2000:]}")
        return json.loads(reply)

    def close(self) -> None:
        assert self._process.stdin, "a pipe"
        self._process.stdin.close()
        self._process.wait()
        self._errors.close()


def serve(*functions: Callable[..., Any]) -> None:
    """Answer each line of [function, *arguments] with a line of JSON."""
    # neural_tangents.py of this folder hides the package of that name.
    sys.path.remove(str(Path(__file__).resolve().parent))
    known = {function.__name__: function for function in (*functions, versions)}
    for line in sys.stdin:
        name, *args = json.loads(line)
        print(json.dumps(known[name](*args)), flush=True)


def versions() -> str:
    import importlib.metadata as metadata

    packages = ("neural-tangents", "jax", "jaxlib", "numpy")
    return "It runs with " + ", ".join(f"{p} {metadata.version(p)}" for p in packages)


def take(option: str, default: str | None = None) -> str | None:
    """Take `option VALUE` out of the command line; what is left are the shared options."""
    if option not in sys.argv:
        return default
    at = sys.argv.index(option)
    if len(sys.argv) < at + 2:
        raise SystemExit(f"{option} needs a value.")
    value = sys.argv[at + 1]
    del sys.argv[at : at + 2]
    return value


def take_flag(option: str) -> bool:
    """Take `option` out of the command line, and say whether it was there."""
    found = option in sys.argv
    if found:
        sys.argv.remove(option)
    return found
