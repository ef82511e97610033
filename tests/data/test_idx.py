import gzip
import struct

import numpy as np
import pytest

from ntkflow.data import load

X = np.random.default_rng(1).integers(1, 255, (6, 5, 4), dtype=np.uint8)
Y = np.array([0, 1, 2, 2, 1, 0], dtype=np.uint8)
CODES = {"u1": 0x08, "i1": 0x09, "i2": 0x0B, "i4": 0x0C, "f4": 0x0D, "f8": 0x0E}


def idx(array):
    code = CODES[array.dtype.str[1:]]
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, code, array.ndim, *array.shape)
    return header + array.astype(array.dtype.newbyteorder(">")).tobytes()


def write_folder(folder, dash="-", suffix="", pack=bytes):
    for start, x, y in (("train", X, Y), ("t10k", X[:2], Y[1:3])):
        (folder / f"{start}-images{dash}idx3-ubyte{suffix}").write_bytes(pack(idx(x)))
        (folder / f"{start}-labels{dash}idx1-ubyte{suffix}").write_bytes(pack(idx(y)))


@pytest.mark.quick
@pytest.mark.parametrize("dash", ["-", "."])
@pytest.mark.parametrize(("suffix", "pack"), [("", bytes), (".gz", gzip.compress)])
def test_folder_with_the_four_files(tmp_path, dash, suffix, pack):
    write_folder(tmp_path, dash, suffix, pack)
    x, y = load(tmp_path, flatten=False)
    np.testing.assert_allclose(x, X[..., None] / 255, rtol=1e-15)
    np.testing.assert_array_equal(y.argmax(axis=1), Y)
    x, y = load(str(tmp_path), split="test")
    np.testing.assert_allclose(x, X[:2].reshape(2, 20) / 255, rtol=1e-15)
    assert y.tolist() == [[0, 1, 0], [0, 0, 1]]  # class 0 is known from the training set


def test_one_file_of_images(tmp_path):
    write_folder(tmp_path)
    assert load(tmp_path / "train-images-idx3-ubyte", labels="raw").y.tolist() == Y.tolist()
    for split in ("train", "test"):
        assert len(load(tmp_path / "t10k-images-idx3-ubyte", split=split).x) == 2
    with pytest.raises(ValueError, match="holds one set"):
        load(tmp_path / "train-images-idx3-ubyte", split="test")
    with pytest.raises(ValueError, match="labels and not images"):
        load(tmp_path / "train-labels-idx1-ubyte")
    (tmp_path / "train-labels-idx1-ubyte").rename(tmp_path / "train-labels.idx1-ubyte")
    assert len(load(tmp_path / "train-images-idx3-ubyte").y) == 6
    (tmp_path / "train-labels.idx1-ubyte").unlink()
    with pytest.raises(FileNotFoundError, match=r"No labels beside .*train-labels-idx1-ubyte"):
        load(tmp_path / "train-images-idx3-ubyte")


def test_plain_and_compressed_side_by_side(tmp_path):
    write_folder(tmp_path)
    write_folder(tmp_path, suffix=".gz", pack=gzip.compress)
    assert len(load(tmp_path).x) == 6


def test_folder_without_the_split_or_with_two(tmp_path):
    write_folder(tmp_path)
    (tmp_path / "t10k-images-idx3-ubyte").unlink()
    with pytest.raises(ValueError, match=r"one file of test images.*found: none"):
        load(tmp_path, split="test")
    (tmp_path / "emnist-train-images-idx3-ubyte").write_bytes(idx(X))
    with pytest.raises(ValueError, match=r"found: emnist-train-images.*, train-images"):
        load(tmp_path)


@pytest.mark.parametrize("kind", CODES)
def test_types_and_byte_order(tmp_path, kind):
    x = np.arange(1, 13).reshape(3, 4).astype(kind)
    (tmp_path / "images.idx").write_bytes(idx(x))
    (tmp_path / "labels.idx").write_bytes(idx(np.array([1.5, 2, 3], "f4")))
    loaded = load(tmp_path / "images.idx", labels="raw")
    np.testing.assert_allclose(loaded.x, x / (255 if kind == "u1" else 1), rtol=1e-15)
    assert loaded.y.tolist() == [1.5, 2, 3]


def test_every_truncation_is_refused(tmp_path):
    write_folder(tmp_path)
    path = tmp_path / "train-images-idx3-ubyte"
    for content in (idx(X), gzip.compress(idx(X))):
        for length in [*range(24), len(content) // 2, len(content) - 9, len(content) - 1]:
            path.write_bytes(content[:length])
            with pytest.raises(ValueError, match="train-images-idx3-ubyte is corrupt or trunc"):
                load(path)


def test_corrupt_content_is_refused(tmp_path):
    write_folder(tmp_path)
    path = tmp_path / "train-images-idx3-ubyte"
    content = idx(X)
    for damaged, message in (
        (b"\1" + content[1:], "no IDX magic number"),
        (content[:2] + b"\7" + content[3:], "no IDX magic number"),
        (content[:3] + b"\0" + content[4:], "no IDX magic number"),
        (content[:4] + b"\xff" * 12 + content[16:], r"promises shape \(4294967295, "),
        (content + b"\0", "136 bytes; it has 137"),
        (gzip.compress(content)[:-8] + b"\0" * 8, "gzip compression fails"),
    ):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=message):
            load(path)
    path.write_bytes(idx(X[:4]))
    with pytest.raises(ValueError, match="4 inputs and 6 labels"):
        load(path)
