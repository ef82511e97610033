"""How far a study has come: a bar on a terminal, one line per cell elsewhere."""

import contextlib
import time
from collections.abc import Callable, Iterator

from ntkflow.studies.files import require

Report = Callable[[str], None]


@contextlib.contextmanager
def reporter(cells: int, show: bool) -> Iterator[tuple[Report, Report]]:
    """Give `(done, say)`: `done(text)` counts a cell, `say(text)` writes a line.

    The time left is the mean time of a cell so far times the cells to come: settings of very
    different sizes make it an order of magnitude.
    """
    if not show:
        yield (lambda text: None), (lambda text: None)
        return
    require("rich")
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    console = Console(stderr=True)
    start, finished = time.perf_counter(), 0

    def left():
        spent = time.perf_counter() - start
        seconds = round(spent / max(finished, 1) * (cells - finished))
        hours, minutes = divmod(seconds // 60, 60)
        clock = f"{hours}:{minutes:02}:{seconds % 60:02}"
        return f"{clock} left" if finished and finished < cells else ""

    def say(text):
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    if not console.is_terminal:

        def line(text):
            nonlocal finished
            finished += 1
            say(f"[{finished}/{cells}] {text} {left()}".rstrip())

        yield line, say
        return

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TextColumn("{task.fields[left]}"), console=console) as bar:
        task = bar.add_task("study", total=cells, left="")

        def advance(text):
            nonlocal finished
            finished += 1
            bar.update(task, completed=finished, description=text, left=left())

        yield advance, say
