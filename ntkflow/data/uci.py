"""Four regression sets of the UCI repository, from CSV files that the user has."""

import os
import re
from pathlib import Path
from typing import NamedTuple

from ntkflow.data import table
from ntkflow.data.dataset import Dataset
from ntkflow.data.files import open_bytes
from ntkflow.data.loading import load


class _Table(NamedTuple):
    """Features first, then the target; `unused` is a second target behind it."""

    features: int
    target: str  # pattern of the target's name, of letters and digits in lower case
    unused: str | None = None
    link: str = ""


_ANY = "target|label|y"
_TABLES = {
    "concrete": _Table(8, f".*strength.*|.*mpa.*|{_ANY}", link="165/concrete"),
    "energy": _Table(8, f"y1|.*heating.*|{_ANY}", "y2|.*cooling.*", link="242/energy"),
    "airfoil": _Table(5, f".*sound.*|.*pressure.*|sspl|spl|{_ANY}", link="291/airfoil"),
    "plant": _Table(4, f"pe|ep|.*energy.*|.*power.*|.*output.*|{_ANY}", link="294/plant"),
}
_EXCEL = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")  # .xlsx and .xls


def load_uci(path: str | os.PathLike, name: str, *, dtype=None) -> Dataset:
    """Load one of four regression sets of the UCI repository from a table of numbers as text.

    - "concrete": compressive strength of concrete, n = 1030, d = 8;
    - "energy": heating load of buildings, n = 768, d = 8; the cooling load, the second target of
      the file, is left out, and may be missing there;
    - "airfoil": sound pressure level of airfoils, n = 1503, d = 5;
    - "plant": energy output of a power plant, n = 9568, d = 4.

    (The paper's d of 9 for concrete and 6 for airfoil count the target.) The repository has
    airfoil as text, with tabs, and the others as workbooks: save them as CSV. Nothing is
    downloaded.

    With a header line the target is the column called like it: "Y1", "Heating Load"; "strength",
    "Concrete compressive strength(MPa, megapascals)", "csMPa"; "PE"; "Scaled sound pressure
    level", "SSPL"; "target"; capitals, blanks and marks do not matter. Under other names, and
    without a header, it is where the repository has it: behind the features.

    Args:
      path: a text file, as `load` takes it.
      name: which of the four.
      dtype: floating-point type; by default JAX's own.

    Returns:
      `Dataset` with x of shape (n, d) and y of shape (n,), as they are in the file: see `split`
      and `standardize`.

    Raises:
      ValueError: an unknown name, another number of columns, two columns that could be the
        target, a workbook in place of text, values that are missing or no numbers.
      FileNotFoundError: no such file.

    Example:
      >>> import tempfile
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     path = Path(folder) / "plant.csv"
      ...     _ = path.write_text("PE,AT,V,AP,RH\\n463.26,14.96,41.76,1024.07,73.17\\n"
      ...                         "444.37,25.18,62.96,1020.04,59.08\\n")
      ...     x, y = load_uci(path, "plant")
      >>> x.shape, y.tolist()
      ((2, 4), [463.26, 444.37])

    Reference: Caron et al. (2023), appendix J; the sets: I.-C. Yeh (1998), A. Tsanas and A. Xifara
    (2012), T. Brooks, D. Pope and M. Marcolini (1989), P. Tüfekci (2014).
    """
    if name not in _TABLES:
        raise ValueError(f"name is {name!r}; expected one of {', '.join(map(repr, _TABLES))}.")
    known = _TABLES[name]
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is no file; expected the table of {name!r} as text, which is found at "
            f"https://archive.ics.uci.edu/dataset/{known.link}."
        )
    with open_bytes(path) as file:
        if file.read(4) in _EXCEL:
            raise ValueError(
                f"{path} is a workbook or an archive; expected text: unpack it, and save the "
                "workbook's first sheet as CSV, e.g. by pandas.read_excel(workbook).to_csv(path, "
                "index=False)."
            )
    columns, names = table.header(path)
    index = 1 if names and not names[0] else 0  # what pandas writes in front
    sizes = [known.features + 1] + [known.features + 2] * (known.unused is not None)
    if columns - index not in sizes:
        raise ValueError(
            f"{path} has {columns - index} columns{f', {names}' if names else ''}; expected "
            f"{' or '.join(map(str, sizes))} for {name!r}: {known.features} features and the "
            f"target{', and the second target' if known.unused else ''}. Drop what was added: "
            "numbers of rows, empty columns, parts of a split."
        )
    target, unused = _places(path, name, known, names, columns, index)
    x, y = load(path, label_column=target, labels="raw", dtype=dtype)
    if unused is not None:
        others = [j for j in range(index, columns) if j != target]
        keep = [k for k, j in enumerate(others) if j != unused]
        x = x[:, keep]
    return Dataset(x, y.astype(x.dtype))


def _places(
    path: Path, name: str, known: _Table, names: list[str] | None, columns: int, index: int
) -> tuple[int, int | None]:
    """The columns of the target, and of the second target, if there is one."""
    behind = index + known.features
    second = columns - 1 if columns - index > known.features + 1 else None
    plain = [re.sub("[^a-z0-9]", "", entry.lower()) for entry in names or []]
    targets = [j for j, entry in enumerate(plain) if re.fullmatch(known.target, entry)]
    unused = [j for j, entry in enumerate(plain) if re.fullmatch(known.unused or "(?!)", entry)]
    if names is None or not targets + unused:
        return behind, second
    if len(targets) != 1 or len(unused) != (second is not None):
        raise ValueError(
            f"{path} has the columns {names}, in which the target of {name!r} is not one alone; "
            f"expected it under a name such as {_SPELLINGS[name]}, or no header at all."
        )
    return targets[0], unused[0] if unused else None


_SPELLINGS = {
    "concrete": "'strength'",
    "energy": "'Y1' or 'Heating Load' (and the second target as 'Y2' or 'Cooling Load')",
    "airfoil": "'SSPL' or 'sound pressure level'",
    "plant": "'PE' or 'energy output'",
}
