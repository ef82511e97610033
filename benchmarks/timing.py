"""What all benchmarks share: fair clocks for several contenders, and tables of the result.

Seconds are the minimum over rounds in which every contender runs once, in an order that rotates,
so that a busy machine hits all alike. The first call, with tracing and compilation, is kept apart.
"""

import argparse
import importlib.metadata
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from datetime import date
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

Clock = Callable[[], float]


class Timing(NamedTuple):
    """Seconds of one contender: `start` is the first call less a usual one, `run` a usual one."""

    start: float
    run: float


def seconds(call: Callable[[], Any]) -> float:
    """Time one call, until its arrays are there."""
    import jax

    begin = time.perf_counter()
    jax.block_until_ready(call())
    return time.perf_counter() - begin


def race(clocks: Mapping[str, Clock], rounds: int, at_least: float = 0.0) -> dict[str, Timing]:
    """Run each contender once, to compile, and then once per round; keep the minima.

    Args:
      clocks: name → a function that runs the contender once and returns seconds.
      rounds: how often each one runs after its first call.
      at_least: seconds; rounds go on until they have taken that long, for very short runs.
    """
    names = list(clocks)
    first = {name: clocks[name]() for name in names}
    best = dict.fromkeys(names, float("inf"))
    spent, turn = 0.0, 0
    while turn < rounds or spent < at_least:
        shift = turn % len(names)
        for name in names[shift:] + names[:shift]:
            taken = clocks[name]()
            best[name] = min(best[name], taken)
            spent += taken
        turn += 1
    return {name: Timing(max(first[name] - best[name], 0.0), best[name]) for name in names}


class Worker:
    """A process of its own with its own environment, which runs one function at a time.

    The number of CPU devices and the default precision are fixed when JAX starts, and the threads
    of PyTorch and JAX stay out of each other's way: each such contender gets a worker. Only the
    worker whose turn it is computes.
    """

    def __init__(self, **environment: str):
        before = dict(os.environ)
        os.environ.update(environment)
        try:
            self._pool = ProcessPoolExecutor(max_workers=1, mp_context=get_context("spawn"))
            self(os.getpid)  # starts the process, which inherits the environment of this moment
        finally:
            os.environ.clear()
            os.environ.update(before)

    def __call__(self, function: Callable[..., Any], *args: Any) -> Any:
        return self._pool.submit(function, *args).result()

    def close(self) -> None:
        self._pool.shutdown()


class Table(NamedTuple):
    """A title, the names of columns, rows of text, and a remark below."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    remark: str = ""


def arguments(description: str) -> argparse.Namespace:
    """The command line that all benchmarks share."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        "--markdown", action="store_true", help="print the section for benchmarks/RESULTS.md"
    )
    parser.add_argument("--rounds", type=int, default=7, help="runs per contender (default: 7)")
    options = parser.parse_args()
    if options.rounds < 1:
        parser.error("--rounds must be 1 or more")
    return options


def report(script: str, tables: Sequence[Table], load_before: float, markdown: bool) -> None:
    """Print the machine, the versions and the tables, for a terminal or for RESULTS.md."""
    name = Path(script).name
    load = f"load average {load_before:.1f} before, {os.getloadavg()[0]:.1f} after"
    if markdown:
        print(f"## {name}\n")
        print(f"{date.today()}: `python benchmarks/{name}`\n\n{machine()}; {load}.\n{versions()}.")
        for table in tables:
            print(f"\n### {table.title}\n")
            print("| " + " | ".join(table.columns) + " |")
            print("|" + "---|" + "---:|" * (len(table.columns) - 1))
            for row in table.rows:
                print("| " + " | ".join(row) + " |")
            if table.remark:
                print(f"\n{table.remark}")
        return

    import rich.table

    rich.print(f"{machine()}; {load}\n{versions()}")
    for table in tables:
        drawn = rich.table.Table(title=table.title, title_justify="left")
        for i, column in enumerate(table.columns):
            drawn.add_column(column, justify="right" if i else "left", no_wrap=True)
        for row in table.rows:
            drawn.add_row(*row)
        rich.print(drawn)
        if table.remark:
            rich.print(table.remark)


def machine() -> str:
    """This machine in words: processor, cores, memory."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    facts = dict(line.replace("\t", "").split(":", 1) for line in lines if ":" in line)
    model = facts.get("model name", platform.processor() or platform.machine()).strip()
    wide = ", AVX-512" if "avx512f" in facts.get("flags", "") else ""
    return f"{model}{wide}, {os.cpu_count()} cores"


def versions() -> str:
    """Versions of what is measured, as far as it is installed."""
    found = [f"Python {platform.python_version()}"]
    for package in ("jax", "jaxlib", "flax", "optax", "numpy", "torch"):
        try:
            found.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            found.append(f"no {package}")
    return ", ".join(found)


def ratio(value: float, reference: float) -> str:
    """How many times `reference`."""
    return f"{value / reference:.2f}"
