"""Opening the user's files, compressed or not, and saying what is wrong with a broken one."""

import contextlib
import gzip
import io
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, TextIO


def open_bytes(path: Path) -> BinaryIO:
    """Open `path` for reading, through gzip if its content (not its name) is compressed."""
    with path.open("rb") as file:
        compressed = file.read(2) == b"\x1f\x8b"
    return gzip.open(path) if compressed else path.open("rb")  # type: ignore[return-value]


def open_text(path: Path) -> TextIO:
    """Open `path` as text; the mark that Excel puts in front of UTF-8 is skipped."""
    return io.TextIOWrapper(open_bytes(path), encoding="utf-8-sig", newline="")


def broken(path: Path, what: str) -> ValueError:
    """The error for a file whose content is not what its form asks."""
    return ValueError(f"{path} is corrupt or truncated: {what}. Fetch or write the file again.")


@contextlib.contextmanager
def intact_gzip(path: Path) -> Iterator[None]:
    """Turn what gzip raises on a damaged file into a ValueError that names the file."""
    try:
        yield
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise broken(path, f"its gzip compression fails ({error})") from error


def only_set(path: Path | str, split: str, *, holds_test: bool = False) -> None:
    """Refuse to hand out as test set what holds one set alone.

    Whoever names one file gets that file: the default split "train" is taken as "no choice".
    """
    if split == "test" and not holds_test:
        raise ValueError(
            f"{path} holds one set, with no test set apart; expected split='train' (the "
            "default). Load it whole and split the rows yourself, or name the test set's file."
        )
