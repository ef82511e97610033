"""Tables of numbers as text: CSV and its relatives, with or without a header line."""

import csv
import difflib
import itertools
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import numpy as np

from ntkflow.data.dataset import Samples
from ntkflow.data.files import broken, intact_gzip, open_text

# Whole numbers with at most so many different values are taken for classes.
MOST_CLASSES = 20


class _Layout(NamedTuple):
    delimiter: str | None  # None: white space
    header: list[str] | None
    columns: int
    label: int
    named: bool  # labels are names, not numbers

    def column(self, j: int) -> str:
        return f"column {j + 1}" + (f" ({self.header[j]!r})" if self.header else "")


def read(path: Path, label_column: int | str) -> Samples:
    """A table of numbers, one sample per line; one column holds the labels."""
    try:
        with intact_gzip(path), open_text(path) as file:
            return _read(path, file, label_column)
    except UnicodeDecodeError as error:
        raise _no_text(path, error) from error


def header(path: Path) -> tuple[int, list[str] | None]:
    """How many columns a table has, and their names if its first line holds them.

    An empty name in front is the row index that pandas writes.
    """
    try:
        with intact_gzip(path), open_text(path) as file:
            first = next((line for line in file if line.strip()), None)
    except UnicodeDecodeError as error:
        raise _no_text(path, error) from error
    if first is None:
        raise broken(path, "the file is empty")
    layout = _layout(path, first, None, -1)
    return layout.columns, layout.header


def _no_text(path: Path, error: UnicodeDecodeError) -> ValueError:
    return ValueError(
        f"{path} is no text in UTF-8 ({error}); expected a table of numbers, e.g. CSV."
    )


def _read(path: Path, file: TextIO, label_column: int | str) -> Samples:
    # Two lines tell the layout: a header is what differs from the line below.
    lines = (line for line in file if line.strip())
    first, second = next(lines, None), next(lines, None)
    if first is None:
        raise broken(path, "the file is empty")
    layout = _layout(path, first, second, label_column)
    body = [line for line in (first, second) if line][1 if layout.header else 0 :]
    if not body:
        raise broken(path, "below its header line there are no data")

    names: dict[str, int] = {}
    convert: Any = {layout.label: lambda cell: names.setdefault(cell.strip(), len(names))}
    try:
        table = np.loadtxt(
            itertools.chain(body, lines),
            delimiter=layout.delimiter,
            comments=None,  # a # may stand in a name
            quotechar='"',
            converters=convert if layout.named else None,
            ndmin=2,
        )
    except UnicodeDecodeError:
        raise
    except ValueError as error:
        _locate(path, layout)
        raise broken(path, f"NumPy cannot read it ({error})") from error
    if table.shape[1] != layout.columns or not np.isfinite(table).all():
        _locate(path, layout)

    y = table[:, layout.label]
    if layout.named:
        codes, ordered = _alphabetical(path, names)
        y = codes[y.astype(int)]
    else:
        ordered = ()
        if (y == np.rint(y)).all() and len(np.unique(y)) <= MOST_CLASSES:
            y = y.astype(int)
    return Samples(table[:, _features(layout)], np.array(y), ordered)


def _layout(path: Path, first: str, second: str | None, label_column: int | str) -> _Layout:
    counts = {mark: first.count(mark) for mark in (",", ";", "\t")}
    mark = max(counts, key=lambda mark: counts[mark])
    delimiter = mark if counts[mark] else None
    cells = _cells(first, delimiter)
    if len(cells) < 2:
        raise ValueError(
            f"{path} has one column; expected at least one input and a column of labels, "
            "parted by commas, semicolons, tabs or spaces."
        )
    if isinstance(label_column, str):
        if label_column not in cells:
            close = difflib.get_close_matches(label_column, cells, n=3)
            hint = f" Did you mean {' or '.join(map(repr, close))}?" if close else ""
            raise ValueError(
                f"{path} has no column {label_column!r} in its first line, "
                f"{cells[:20]}{' ...' * (len(cells) > 20)}.{hint}"
            )
        label = cells.index(label_column)
    else:
        if not -len(cells) <= label_column < len(cells):
            raise ValueError(
                f"label_column is {label_column}, but {path} has {len(cells)} columns; "
                "expected a column's name or its number, counted from 0, or from -1 at the end."
            )
        label = label_column % len(cells)
    header = cells if isinstance(label_column, str) or _is_header(cells, label) else None
    below = _cells(second, delimiter) if header and second else cells
    named = label < len(below) and not _is_number(below[label])
    return _Layout(delimiter, header, len(cells), label, named)


def _is_header(cells: list[str], label: int) -> bool:
    """Whether no input is a number, or each is its column's number, as pandas writes it."""
    inputs = [(j, cell) for j, cell in enumerate(cells) if j != label and cell]
    if not any(_is_number(cell) for _, cell in inputs):
        return bool(inputs)
    shift = 1 if not cells[0] else 0
    # Three or fewer could be a sample of data.
    return len(inputs) > 3 and all(cell == str(j - shift) for j, cell in inputs)


def _features(layout: _Layout) -> slice | list[int]:
    """All columns but the labels', and the row index that pandas writes without a name."""
    index = layout.header is not None and not layout.header[0] and layout.label != 0
    start = 1 if index else 0
    keep = [j for j in range(start, layout.columns) if j != layout.label]
    if keep and keep[-1] - keep[0] == len(keep) - 1:
        return slice(keep[0], keep[-1] + 1)  # a view: no second copy of a large table
    return keep


def _alphabetical(path: Path, names: dict[str, int]) -> tuple[np.ndarray, tuple[str, ...]]:
    """Numbers of the classes in alphabetical order, for numbers in order of appearance."""
    numeric = [name for name in names if _is_number(name)]
    if numeric or "" in names:
        other = next(name for name in names if not _is_number(name))
        raise ValueError(
            f"{path} mixes names and numbers as labels, or leaves some empty: {other!r} and "
            f"{(numeric or [''])[0]!r}; expected numbers throughout, or a name for each class."
        )
    ordered = sorted(names)
    codes = np.empty(len(names), dtype=int)
    codes[[names[name] for name in ordered]] = np.arange(len(names))
    return codes, tuple(ordered)


def _locate(path: Path, layout: _Layout) -> None:
    """Raise the ValueError that names the line, and the column, where a table goes wrong."""
    with open_text(path) as file:
        for number, cells in _numbered(file, layout):
            if len(cells) != layout.columns:
                raise ValueError(
                    f"{path}, line {number}: {len(cells)} columns, where the first line has "
                    f"{layout.columns}; the line is ragged, or the file is truncated."
                )
            for j, cell in enumerate(cells):
                if layout.named and j == layout.label:
                    continue
                if not _is_number(cell) or not math.isfinite(float(cell)):
                    raise ValueError(
                        f"{path}, line {number}, {layout.column(j)}: {cell!r} is no finite "
                        "number; fill in or drop missing values, and encode names as numbers."
                    )


def _numbered(file: TextIO, layout: _Layout) -> Iterator[tuple[int, list[str]]]:
    filled = ((i, line) for i, line in enumerate(file, start=1) if line.strip())
    for i, line in itertools.islice(filled, 1 if layout.header else 0, None):
        yield i, _cells(line, layout.delimiter)


def _cells(line: str, delimiter: str | None) -> list[str]:
    if delimiter is None:
        return line.split()
    return [cell.strip() for cell in next(csv.reader([line.strip("\r\n")], delimiter=delimiter))]


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
