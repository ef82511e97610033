import gzip

import numpy as np
import pytest

from ntkflow.data import load


@pytest.fixture
def table(tmp_path):
    """Writes a table and returns its path."""

    def write(text, name="table.csv"):
        path = tmp_path / name
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    return write


@pytest.mark.quick
@pytest.mark.parametrize("header", ["", "a,b,target\n", '"a","b","target"\r\n'])
def test_with_and_without_header(table, header):
    path = table(header + "1,2.5,0\n3,-4e1,1\n\n 5 ,6,2\n")
    x, y = load(path)
    assert x.tolist() == [[1, 2.5], [3, -40], [5, 6]]
    assert y.tolist() == np.eye(3).tolist()


def test_label_column(table):
    path = table("a,b,c\n1,2,0\n3,4,1\n")
    for column in ("a", 0, -3):
        x, y = load(path, label_column=column)
        assert x.tolist() == [[2, 0], [4, 1]]
        assert y.tolist() == [-1, 1]
    x, y = load(path, label_column="b", labels="raw")
    assert (x.tolist(), y.tolist()) == ([[1, 0], [3, 1]], [2, 4])
    with pytest.raises(ValueError, match=r"no column 'aa'.*\['a', 'b', 'c'\]\. Did you mean 'a'"):
        load(path, label_column="aa")
    with pytest.raises(ValueError, match=r"label_column is 3, but .* has 3 columns"):
        load(path, label_column=3)


@pytest.mark.parametrize("delimiter", [",", ";", "\t", " ", "   "])
def test_delimiters(table, delimiter):
    path = table("1,2,0\n3,4,1\n".replace(",", delimiter), "table.txt")
    assert load(path).x.tolist() == [[1, 2], [3, 4]]


def test_names_as_labels(table):
    lines = "5.1,3.5,setosa\n7,3.2,versicolor\n6.3,3.3,setosa\n6,3,Iris #3\n"
    for text in (lines, "length,width,species\n" + lines, lines.replace("setosa", '"setosa"')):
        assert load(table(text), labels="raw").y.tolist() == [1, 2, 1, 0]  # alphabetical
        assert load(table(text), classes=("versicolor", "setosa")).y.tolist() == [1, -1, 1]
    with pytest.raises(ValueError, match=r"mixes names and numbers as labels.*'setosa' and '3'"):
        load(table("1,2,setosa\n1,3,3\n"))
    with pytest.raises(ValueError, match="or leaves some empty"):
        load(table("1,2,setosa\n1,3,\n"))


def test_what_pandas_writes(table):
    # A row index without a name, and numbers for the columns' names.
    assert load(table(",a,b,y\n0,1,2,0\n1,3,4,1\n")).x.tolist() == [[1, 2], [3, 4]]
    header, rows = "0,1,2,3,4\n", "1,2,3,4,0\n5,6,7,8,1\n"
    for text in (header + rows, ",0,1,2,3,4\n10,1,2,3,4,0\n11,5,6,7,8,1\n"):
        assert load(table(text)).x.tolist() == [[1, 2, 3, 4], [5, 6, 7, 8]]
    # Short lines of small numbers are data.
    assert load(table("0,1,1\n1,1,0\n")).x.tolist() == [[0, 1], [1, 1]]


def test_many_whole_labels_are_real_numbers(table):
    path = table("".join(f"{i},1,{i}\n" for i in range(21)))
    y = load(path).y
    np.testing.assert_allclose(y, (np.arange(21) - 10) / (440 / 12) ** 0.5, rtol=1e-12)
    assert load(path, labels="one_hot").y.shape == (21, 21)
    assert load(path, classes=(3, 8)).x.tolist() == [[3, 1], [8, 1]]
    assert load(table("".join(f"{i},1,{i}\n" for i in range(20)))).y.shape == (20, 20)


def test_bytes_in_front_and_compression(table):
    assert load(table(b"\xef\xbb\xbf1,2,0\n3,4,1\n")).x.tolist() == [[1, 2], [3, 4]]
    path = table(gzip.compress(b"1,2,0\n3,4,1\n"), "table.csv.gz")
    assert load(path).x.tolist() == [[1, 2], [3, 4]]
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(ValueError, match="gzip compression fails"):
        load(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the file is empty"),
        ("\n \n", "the file is empty"),
        ("a,b,c\n", "below its header line there are no data"),
        ("1\n2\n", "has one column"),
        ("1,2,3\n\n4,5\n6,7,8\n", "line 3: 2 columns, where the first line has 3"),
        ("1,2,3\n4,5,6,7\n", "line 2: 4 columns, where the first line has 3"),
        ("a,b,c\n1,2,3\n4,5", "line 3: 2 columns, where the first line has 3"),
        ("a,b,c\n1,2\n3,4\n", "line 2: 2 columns, where the first line has 3"),
        ("a,b,c\n1,2,3\n4,x,6\n", r"line 3, column 2 \('b'\): 'x' is no finite number"),
        ("1,?,3\n4,5,6\n", r"line 1, column 2: '\?' is no finite number"),
        ("1,,3\n4,5,6\n", "line 1, column 2: '' is no finite number"),
        ("1,2,3\n4,nan,6\n", "line 2, column 2: 'nan' is no finite number"),
        ("1,2,3\n4,5,inf\n", "line 2, column 3: 'inf' is no finite number"),
        ("1,2,3\n4,5,six\n", "line 2, column 3: 'six' is no finite number"),
        ("1,2,one\n4,x,two\n", "line 2, column 2: 'x' is no finite number"),
        ("1,2,3\n4,1_000,6\n", "NumPy cannot read it"),
        (b"1,2,3\n\xff\xfe,5,6\n", "no text in UTF-8"),
        ("x,y,label\n1,2,3\n1,2,3,4\n", "line 3: 4 columns"),
    ],
)
def test_broken_tables(table, text, message):
    path = table(text)
    with pytest.raises(ValueError, match=message) as info:
        load(path)
    assert str(path) in str(info.value)
