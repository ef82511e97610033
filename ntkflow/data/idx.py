"""The IDX files of MNIST and its relatives: images in one file, labels in another."""

import math
import re
from pathlib import Path

import numpy as np

from ntkflow.data.dataset import Samples
from ntkflow.data.files import broken, intact_gzip, only_set, open_bytes

_TYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_TEST = ("t10k", "test")
_IMAGES = re.compile(r"(train|t10k|test)-images[-.]idx\d[-.]ubyte(\.gz)?$")


def is_name(name: str) -> bool:
    """Whether a file is called as IDX files are."""
    return re.search(r"(idx\d[-.]ubyte|\.idx\d?)(\.gz)?$", name) is not None


def image_files(folder: Path) -> list[Path]:
    """The files of images in `folder` with the usual names; of a plain and a .gz one, the plain."""
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):  # "name" comes before "name.gz"
        if _IMAGES.search(path.name):
            found.setdefault(path.name.removesuffix(".gz").replace(".", "-"), path)
    return list(found.values())


def read_folder(folder: Path, split: str) -> Samples:
    """The training or the test set in a folder with the usual four files."""

    def of_split(which: str) -> list[Path]:
        starts = _TEST if which == "test" else ("train",)
        matches = ((path, _IMAGES.search(path.name)) for path in image_files(folder))
        return [path for path, match in matches if match and match[1] in starts]

    chosen = of_split(split)
    if len(chosen) != 1:
        start = "t10k" if split == "test" else "train"
        listed = ", ".join(path.name for path in chosen) or "none"
        raise ValueError(
            f"{folder} should hold one file of {split} images, called "
            f"{start}-images-idx3-ubyte or ...ubyte.gz; found: {listed}. "
            "Name the file of images instead of the folder."
        )
    samples = read_pair(chosen[0])
    beside = of_split("train")
    if split == "test" and len(beside) == 1:
        samples = samples._replace(train_labels=_labels_of(beside[0]))
    return samples


def read_file(path: Path, split: str) -> Samples:
    """A file of images, with the labels that lie beside it."""
    only_set(path, split, holds_test=any(name in path.name for name in _TEST))
    return read_pair(path)


def read_pair(path: Path) -> Samples:
    """Images and labels; images of one channel get an axis for it."""
    x = read_array(path)
    if x.ndim < 2:
        raise ValueError(
            f"{path} holds one axis of length {len(x)}, so labels and not images; "
            "name the file of images, and the labels are found beside it."
        )
    return Samples(x[..., None] if x.ndim == 3 else x, _labels_of(path))


def _labels_of(images: Path) -> np.ndarray:
    stem = images.name.removesuffix(".gz").replace("images", "labels")
    stem = re.sub(r"[-.]idx\d", "-idx1", stem)
    spellings = [stem, stem.replace("-idx1", ".idx1"), stem.replace("-ubyte", ".ubyte")]
    spellings += [spelling + ".gz" for spelling in spellings]
    for name in spellings:
        if name != images.name and images.with_name(name).exists():
            labels = read_array(images.with_name(name))
            return labels if labels.dtype.kind == "f" else labels.astype(int)
    raise FileNotFoundError(
        f"No labels beside {images}: looked for {', '.join(spellings)}. "
        "Put the file of labels that belongs to the images into the same folder."
    )


def read_array(path: Path) -> np.ndarray:
    """The array in an IDX file: 0, 0, type, rank; the lengths as big-endian 32 bit; the data."""
    with intact_gzip(path), open_bytes(path) as file:
        content = file.read()
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] not in _TYPES or not content[3]:
        raise broken(path, f"it starts with {content[:4]!r}, no IDX magic number")
    dtype, rank = np.dtype(_TYPES[content[2]]), content[3]
    start = 4 + 4 * rank
    if len(content) < start:
        raise broken(path, f"it ends inside its header, after {len(content)} of {start} bytes")
    shape = tuple(int(length) for length in np.frombuffer(content, ">u4", rank, offset=4))
    expected = start + math.prod(shape) * dtype.itemsize
    if len(content) != expected:
        raise broken(
            path, f"its header promises shape {shape}, {expected} bytes; it has {len(content)}"
        )
    return np.frombuffer(content, dtype, offset=start).reshape(shape)
