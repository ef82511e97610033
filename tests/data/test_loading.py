import tracemalloc

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import datasets

from ntkflow.data import Dataset, load


@pytest.fixture
def npz(tmp_path):
    """Writes arrays to a file and returns its path."""

    def write(name="set.npz", **arrays):
        np.savez(tmp_path / name, **arrays)
        return tmp_path / name

    return write


# Installed sets ---------------------------------------------------------------------------------


@pytest.mark.quick
def test_digits_two_classes(dtype):
    x, y = load("digits", classes=(3, 8), unit_norm=True, dtype=dtype)
    raw, target = datasets.load_digits(return_X_y=True)
    keep = np.isin(target, (3, 8))
    expected = raw[keep] / np.linalg.norm(raw[keep], axis=1, keepdims=True)
    assert x.dtype == y.dtype == dtype
    np.testing.assert_allclose(x, expected, rtol=0, atol=float(jnp.finfo(dtype).eps))
    np.testing.assert_array_equal(y, np.where(target[keep] == 8, 1, -1))
    # The order of the classes is the order of the signs.
    swapped = load("digits", classes=(8, 3), dtype=dtype)
    np.testing.assert_array_equal(swapped.y, -y)


def test_digits_whole():
    x, y = load("digits", flatten=False)
    assert x.shape == (1797, 8, 8, 1)
    assert (float(x.min()), float(x.max())) == (0, 1)
    np.testing.assert_array_equal(y.argmax(axis=1), datasets.load_digits().target)
    np.testing.assert_array_equal(y.sum(axis=1), 1)
    np.testing.assert_array_equal(load("digits").x, x.reshape(1797, 64))


def test_diabetes_is_standardized():
    x, y = load("diabetes")
    assert x.shape == (442, 10)
    target = datasets.load_diabetes().target
    np.testing.assert_allclose(y * target.std() + target.mean(), target, rtol=1e-12)
    np.testing.assert_allclose([y.mean(), y.std()], [0, 1], atol=1e-12)
    np.testing.assert_array_equal(load("diabetes", labels="raw").y, target)
    # A subset is scaled as the whole is, so that subsets and test sets are comparable.
    assert set(load("diabetes", limit=20).y.tolist()) <= set(y.tolist())


def test_breast_cancer_has_names():
    x, y = load("breast_cancer")
    target = datasets.load_breast_cancer().target
    assert x.shape == (569, 30)
    np.testing.assert_array_equal(y, 2 * target - 1)
    swapped = load("breast_cancer", classes=("benign", "malignant"))
    np.testing.assert_array_equal(swapped.y, -y)
    with pytest.raises(ValueError, match=r"0 \(malignant\), 1 \(benign\).*Did you mean 'benign'"):
        load("breast_cancer", classes=("malignant", "bening"))


def test_missing_extra_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "sklearn", None)
    with pytest.raises(ImportError, match=r"pip install 'ntkflow\[data\]'"):
        load("digits")


def test_unknown_names_are_answered():
    with pytest.raises(ValueError, match=r"'breast_cancer', 'diabetes', 'digits'.*mean 'digits'"):
        load("digit")
    with pytest.raises(ValueError, match=r"known names.*MNIST: train-images"):
        load("mnist")


def test_missing_file_says_where_to_get_it(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"mnist\.npz.*Nothing is downloaded.*CIFAR"):
        load(tmp_path / "mnist.npz")
    with pytest.raises(FileNotFoundError, match="No file or folder"):
        load("no/such/folder")


# Labels -----------------------------------------------------------------------------------------


def test_encodings_of_classes(npz):
    path = npz(x=np.eye(5), y=np.array([7, 2, 5, 2, 7]))
    one_hot = [[0, 0, 1], [1, 0, 0], [0, 1, 0], [1, 0, 0], [0, 0, 1]]
    assert load(path).y.tolist() == one_hot
    assert load(path, classes=(7, 2), labels="one_hot").y.tolist() == [
        [1, 0],
        [0, 1],
        [0, 1],
        [1, 0],
    ]
    raw = load(path, labels="raw").y
    assert raw.tolist() == [7, 2, 5, 2, 7]
    assert jnp.issubdtype(raw.dtype, jnp.integer)
    y = load(path, labels="standardized").y
    np.testing.assert_allclose(y, (np.array([7, 2, 5, 2, 7]) - 4.6) / 5.04**0.5, rtol=1e-12)
    with pytest.raises(ValueError, match=r"needs two classes, not the 3.*classes=\(2, 5\)"):
        load(path, labels="signs")
    with pytest.raises(ValueError, match=r"labels is 'onehot'.*Did you mean 'one_hot'"):
        load(path, labels="onehot")


def test_absent_and_odd_classes(npz):
    path = npz(x=np.eye(3), y=np.array([7, 2, 5]))
    with pytest.raises(ValueError, match="no class 3; those present are 2, 5, 7"):
        load(path, classes=(2, 3))
    for classes in [(2,), (2, 2), (), 2]:
        with pytest.raises(ValueError, match="at least two different"):
            load(path, classes=classes)
    with pytest.raises(ValueError, match=r"All labels in .* are 4"):
        load(npz(x=np.eye(3), y=np.full(3, 4)))


def test_real_labels_are_no_classes(npz):
    path = npz(x=np.eye(3), y=np.array([0.5, 1.0, 3.0]))
    for options in ({"classes": (1, 3)}, {"labels": "one_hot"}):
        with pytest.raises(ValueError, match=r"needs classes, but the labels .* are real numbers"):
            load(path, **options)
    # Whole numbers that a file keeps as floats are classes when they are asked for as such.
    path = npz(x=np.eye(3), y=np.array([0.0, 1.0, 3.0]))
    assert load(path, classes=(1, 3)).y.tolist() == [-1, 1]


def test_several_real_outputs(npz):
    y = np.array([[1.0, 10.0], [2.0, 30.0], [6.0, 20.0]])
    loaded = load(npz(x=np.eye(3), y=y)).y
    np.testing.assert_allclose(loaded, (y - y.mean(axis=0)) / y.std(axis=0), rtol=1e-12)
    with pytest.raises(ValueError, match="all labels are equal"):
        load(npz(x=np.eye(2), y=np.ones(2)))


def test_test_set_is_encoded_as_its_training_set(npz):
    path = npz(x_train=np.eye(4), y_train=np.arange(4), x_test=np.eye(2), y_test=np.array([2, 0]))
    assert load(path, split="test").y.tolist() == [[0, 0, 1, 0], [1, 0, 0, 0]]
    train, test = np.array([1.0, 2.0, 6.5]), np.array([4.0])
    path = npz(x_train=np.eye(3), y_train=train, x_test=np.ones((1, 3)), y_test=test)
    y = load(path, split="test").y
    np.testing.assert_allclose(y, (test - train.mean()) / train.std(), rtol=1e-12)


# Subsets ----------------------------------------------------------------------------------------


def test_limit_balances_nests_and_keeps_the_order(npz):
    labels = np.array([0] * 50 + [1] * 30 + [2] * 3)
    path = npz(x=np.arange(1.0, 84.0)[:, None], y=labels)

    def rows(limit, seed=0):
        return (load(path, limit=limit, seed=seed, labels="raw").x[:, 0] - 1).astype(int).tolist()

    subset = rows(20)
    assert subset == sorted(set(subset))
    assert np.bincount(labels[subset]).tolist() in ([9, 8, 3], [8, 9, 3])
    assert set(rows(10)) <= set(subset)
    assert rows(20) == subset
    assert rows(20, seed=1) != subset
    assert rows(83) == list(range(83))


def test_limits_are_checked():
    for limit in (0, -3):
        with pytest.raises(ValueError, match=r"limit is .*greater than 0"):
            load("digits", limit=limit)
    with pytest.raises(ValueError, match="limit is 1798, but digits holds 1797 samples;"):
        load("digits", limit=1798)
    with pytest.raises(ValueError, match="357 samples of these classes"):
        load("digits", limit=358, classes=(3, 8))


# Inputs -----------------------------------------------------------------------------------------


def test_unit_norm_in_blocks(npz, monkeypatch, dtype):
    monkeypatch.setattr("ntkflow.data.loading._BLOCK", 18)  # three rows
    x = np.random.default_rng(1).normal(size=(8, 2, 3))
    x[2] *= 1e-200  # squares underflow
    x[5] *= 1e200
    loaded = load(npz(x=x, y=np.arange(8.0)), unit_norm=True, flatten=False, dtype=dtype).x
    flat = (x / np.abs(x).max(axis=(1, 2), keepdims=True)).reshape(8, 6)
    expected = flat / np.linalg.norm(flat, axis=1, keepdims=True)
    assert loaded.shape == (8, 2, 3)
    eps = float(jnp.finfo(dtype).eps)
    np.testing.assert_allclose(loaded.reshape(8, 6), expected, rtol=0, atol=eps)


def test_memory_on_the_way(tmp_path, monkeypatch):
    monkeypatch.setattr("ntkflow.data.loading._BLOCK", 2**16)
    np.savez(tmp_path / "big.npz", x=np.ones((4000, 500), "uint8"), y=np.arange(4000) % 10)
    tracemalloc.start()
    x = load(tmp_path / "big.npz", unit_norm=True).x
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # Beside the result: the bytes of the file, and blocks. A copy by JAX would not be seen here.
    assert peak < 1.6 * x.nbytes


def test_zero_row_is_named_by_its_place_in_the_file(npz):
    x = np.ones((6, 2))
    x[[2, 5]] = 0
    path = npz(x=x, y=np.array([0, 1, 2, 0, 1, 2]))
    with pytest.raises(ValueError, match=r"2 inputs .* are zero.*: rows 2, 5, counted from 0"):
        load(path, unit_norm=True)
    assert load(path).x.shape == (6, 2)
    assert load(path, classes=(0, 1), unit_norm=True).x.shape == (4, 2)  # without class 2


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("unit_norm", [True, False])
def test_not_finite(npz, bad, unit_norm):
    x = np.ones((4, 2))
    x[3, 1] = bad
    with pytest.raises(ValueError, match=r"1 inputs .* NaN, infinite.*: rows 3,"):
        load(npz(x=x, y=np.arange(4)), unit_norm=unit_norm)
    with pytest.raises(ValueError, match=r"labels .* NaN or infinite values: 1 of 4.* row 3"):
        load(npz(x=np.ones((4, 2)), y=x[:, 1]))


def test_too_large_for_the_type(npz):
    path = npz(x=np.array([[1.0], [1e39]]), y=np.arange(2))
    assert load(path, dtype="float64").x.max() == 1e39
    with pytest.raises(ValueError, match="too large for float32: rows 1,"):
        load(path, dtype="float32")


def test_lengths_shapes_and_types(npz):
    with pytest.raises(ValueError, match="3 inputs and 2 labels"):
        load(npz(x=np.eye(3), y=np.arange(2)))
    with pytest.raises(ValueError, match="0 inputs and 0 labels"):
        load(npz(x=np.zeros((0, 3)), y=np.zeros(0)))
    with pytest.raises(ValueError, match=r"inputs .* have shape \(3,\)"):
        load(npz(x=np.arange(3), y=np.arange(3)))
    with pytest.raises(ValueError, match=r"inputs .* type <U1"):
        load(npz(x=np.array([["a"], ["b"]]), y=np.arange(2)))
    with pytest.raises(ValueError, match=r"labels .* type <U1"):
        load(npz(x=np.eye(2), y=np.array(["a", "b"])))


def test_options_are_checked(tmp_path, npz):
    with pytest.raises(ValueError, match="split is 'validation'"):
        load("digits", split="validation")
    with pytest.raises(ValueError, match="digits holds one set"):
        load("digits", split="test")
    with pytest.raises(ValueError, match="label_column is 0, but digits is no table"):
        load("digits", label_column=0)
    with pytest.raises(ValueError, match="dtype is int32; expected a floating-point"):
        load("digits", dtype=int if jnp.dtype(int) == "int32" else "int32")
    with jax.enable_x64(False):
        assert load("digits", limit=3).x.dtype == "float32"
        assert load("digits", limit=3, labels="raw").y.dtype == "int32"
        with pytest.raises(ValueError, match="jax_enable_x64"):
            load("digits", dtype="float64")
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(b"")
    with pytest.raises(ValueError, match="archive; unpack"):
        load(tmp_path / "cifar-10-python.tar.gz")
    with pytest.raises(ValueError, match="neither MNIST's files nor CIFAR's"):
        load(tmp_path)


def test_dataset_passes_through_transforms():
    data = load("digits", classes=(0, 1), limit=4)
    same = jax.jit(lambda data: data)(data)
    assert isinstance(same, Dataset)
    x, y = same
    np.testing.assert_array_equal(x, data.x)
    np.testing.assert_array_equal(y, data.y)
