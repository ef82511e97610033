import numpy as np
import pytest

from ntkflow.data import load

X = np.random.default_rng(2).integers(1, 255, (5, 4, 3), dtype=np.uint8)
Y = np.array([0, 1, 2, 1, 0], dtype=np.uint8)


@pytest.mark.quick
def test_names_that_keras_gives(tmp_path):
    path = tmp_path / "mnist.npz"
    np.savez_compressed(path, x_train=X, y_train=Y, x_test=X[:2], y_test=Y[:2, None])
    x, y = load(path, flatten=False)
    np.testing.assert_allclose(x, X[..., None] / 255, rtol=1e-15)
    np.testing.assert_array_equal(y.argmax(axis=1), Y)
    x, y = load(path, split="test")
    assert x.shape == (2, 12)
    assert y.tolist() == [[1, 0, 0], [0, 1, 0]]


def test_plain_and_capital_names(tmp_path):
    path = tmp_path / "own.npz"
    np.savez(path, X=X / 7, Y=Y / 7)
    x, y = load(path, labels="raw", flatten=False)
    np.testing.assert_array_equal(x, X / 7)
    np.testing.assert_array_equal(y, Y / 7)
    with pytest.raises(ValueError, match="holds one set"):
        load(path, split="test")


def test_missing_arrays_are_listed(tmp_path):
    path = tmp_path / "own.npz"
    np.savez(path, images=X, y=Y)
    with pytest.raises(ValueError, match=r"\['images', 'y'\]; expected x_train and y_train"):
        load(path)


def test_pickled_arrays_are_refused(tmp_path):
    path = tmp_path / "own.npz"
    np.savez(path, x=np.array([{}, {}], dtype=object), y=Y[:2])
    with pytest.raises(ValueError, match="Object arrays cannot be loaded"):
        load(path)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_truncated_and_corrupt(tmp_path, save):
    path = tmp_path / "own.npz"
    save(path, x=X, y=Y)
    content = path.read_bytes()
    for length in [0, 1, 10, 100, len(content) // 2, len(content) - 30, len(content) - 1]:
        path.write_bytes(content[:length])
        with pytest.raises(ValueError, match="is corrupt or truncated"):
            load(path)
    damaged = bytearray(content)
    damaged[content.index(b"NUMPY") if save is np.savez else 60] ^= 0xFF
    path.write_bytes(damaged)
    with pytest.raises(ValueError, match="corrupt or truncated: NumPy cannot read it"):
        load(path)
    np.save(tmp_path / "array.npy", X)
    (tmp_path / "array.npy").rename(path)
    with pytest.raises(ValueError, match="zip archive, and this is none"):
        load(path)
