import os
import pickle

import numpy as np
import pytest

from ntkflow.data import load

RANDOM = np.random.default_rng(3)
NAMES = [b"airplane", b"automobile", b"bird", b"cat", b"deer"] + [b"x%d" % i for i in range(5)]


def batch(labels, key=b"labels", text=False):
    data = RANDOM.integers(1, 255, (len(labels), 3072), dtype=np.uint8)
    content = {b"batch_label": b"a batch", key: list(labels), b"data": data}
    return {k.decode(): v for k, v in content.items()} if text else content


def write(path, content, protocol=2):
    path.write_bytes(pickle.dumps(content, protocol=protocol))


@pytest.fixture
def cifar10(tmp_path):
    batches = {f"data_batch_{i}": batch([i, 3]) for i in range(1, 6)} | {"test_batch": batch([9])}
    for name, content in batches.items():
        write(tmp_path / name, content)
    write(tmp_path / "batches.meta", {b"label_names": NAMES})
    return tmp_path, batches


@pytest.mark.quick
def test_folder(cifar10):
    folder, batches = cifar10
    x, y = load(folder, flatten=False, labels="raw")
    data = np.concatenate([batches[f"data_batch_{i}"][b"data"] for i in range(1, 6)])
    assert x.shape == (10, 32, 32, 3)
    assert y.tolist() == [1, 3, 2, 3, 3, 3, 4, 3, 5, 3]
    # In the file: 1024 red bytes row by row, then green, then blue.
    np.testing.assert_allclose(x[4, 2, 7, 1], data[4, 1024 + 2 * 32 + 7] / 255, rtol=1e-15)
    assert load(folder).x.shape == (10, 3072)
    assert load(folder).y.shape == (10, 10)  # ten classes, though some are absent here
    assert load(folder, split="test").y.argmax(axis=1).tolist() == [9]
    assert load(folder, classes=("cat", "bird")).y.tolist() == [-1, 1, -1, -1, -1, -1, -1]


def test_one_batch_and_every_protocol(tmp_path):
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        for text in (False, True):
            content = batch([0, 7, 2], text=text)
            write(tmp_path / "data_batch_1", content, protocol)
            x, y = load(tmp_path / "data_batch_1", flatten=False)
            data = content["data" if text else b"data"].reshape(3, 3, 32, 32)
            np.testing.assert_allclose(x, data.transpose(0, 2, 3, 1) / 255, rtol=1e-15)
            assert y.argmax(axis=1).tolist() == [0, 7, 2]


def test_cifar_100(tmp_path):
    for name, labels in (("train", [5, 99]), ("test", [42])):
        write(tmp_path / name, batch(labels, b"fine_labels") | {b"coarse_labels": [0, 0]})
    write(tmp_path / "meta", {b"fine_label_names": [b"n%d" % i for i in range(100)]})
    assert load(tmp_path).y.argmax(axis=1).tolist() == [5, 99]
    assert load(tmp_path, split="test").y.shape == (1, 100)
    assert load(tmp_path / "test", split="test").x.shape == (1, 3072)
    assert load(tmp_path, classes=("n99", "n5")).y.tolist() == [1, -1]


def test_missing_batch(cifar10):
    folder, _ = cifar10
    (folder / "data_batch_3").unlink()
    with pytest.raises(FileNotFoundError, match="lacks data_batch_3"):
        load(folder)


class Malicious:
    def __reduce__(self):
        return os.system, ("exit 1",)


@pytest.mark.parametrize("protocol", range(2, 6))
def test_pickles_run_no_code(tmp_path, monkeypatch, protocol):
    path = tmp_path / "data_batch_1"
    write(path, batch([1, 2]) | {b"more": Malicious()}, protocol)
    calls = []
    monkeypatch.setattr(os, "system", calls.append)
    with pytest.raises(ValueError, match=r"refused: loading it would call (posix|nt)\.system"):
        load(path)
    assert calls == []
    # A dotted name must not reach through an allowed module either.
    path.write_bytes(b"\x80\x04\x8c\x05numpy\x8c\x09os.getcwd\x93)R.")
    with pytest.raises(ValueError, match="refused"):
        load(path)


def test_truncated_pickles(tmp_path):
    path = tmp_path / "data_batch_1"
    write(path, batch([1, 2]))
    content = path.read_bytes()
    for length in [0, 1, 5, 40, 200, len(content) // 2, len(content) - 1]:
        path.write_bytes(content[:length])
        with pytest.raises(ValueError, match="data_batch_1 is corrupt or truncated"):
            load(path)


def test_wrong_content(tmp_path):
    path = tmp_path / "data_batch_1"
    good = batch([1, 2])
    for content, message in (
        ([1, 2], "holds a list instead of a dictionary"),
        ({b"data": good[b"data"]}, r"holds \['data'\]; a batch of CIFAR holds"),
        (good | {b"data": good[b"data"][:, 1:]}, r"no array of bytes of shape \(n, 3072\)"),
        (good | {b"labels": [1]}, r"2 images, but 'labels' has shape \(1,\)"),
        (good | {b"labels": [1, 10]}, "leaves the range 0 to 9"),
        (good | {b"labels": [1, "cat"]}, "no list of whole numbers"),
    ):
        write(path, content)
        with pytest.raises(ValueError, match=message):
            load(path)
