"""Writing that survives being stopped: whole files or none, in folders that know whose they are."""

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

MANIFEST = "manifest.json"


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


def claim(folder: Path, what: str, description: dict[str, Any]) -> None:
    """Make the folder of a computation, or make sure that an existing one belongs to it.

    Args:
      folder: where to; its parents are made, too.
      what: the kind of computation, for the errors: "study".
      description: names → values that make this computation what it is, as JSON knows them.

    Raises:
      ValueError: a file instead of a folder, a folder with other files, or one of another
        computation: with all that differs.
    """
    manifest = folder / MANIFEST
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"folder is {folder}, a file; expected a folder.")
    if not manifest.exists():
        if folder.exists() and any(folder.glob("[!.]*")):
            raise ValueError(
                f"{folder} holds files but no {what} ({MANIFEST}); expected an empty or new folder."
            )
        with written_aside(manifest) as temporary:
            temporary.write_text(json.dumps(description, indent=1))
        return
    try:
        known = json.loads(manifest.read_text())
    except ValueError as error:
        raise ValueError(f"{manifest} is damaged ({error}); choose another folder.") from error
    differs = [
        f"{name} (there: {known.get(name)}; here: {description.get(name)})"
        for name in known | description
        if known.get(name) != description.get(name)
    ]
    if differs:
        raise ValueError(
            f"{folder} belongs to another {what}. What differs: {'; '.join(differs)}. "
            "Choose another folder."
        )
