import numpy as np
import pytest

from ntkflow.data import load_uci

FEATURES = {"concrete": 8, "energy": 8, "airfoil": 5, "plant": 4}
# As the repository's files have them, and as people have renamed them.
HEADERS = {
    "concrete": [
        '"Cement (component 1)(kg in a m^3 mixture)","Blast Furnace Slag (component 2)(kg in a m^3'
        ' mixture)","Fly Ash (component 3)(kg in a m^3 mixture)","Water  (component 4)(kg in a m^3 '
        'mixture)","Superplasticizer (component 5)(kg in a m^3 mixture)","Coarse Aggregate  '
        '(component 6)(kg in a m^3 mixture)","Fine Aggregate (component 7)(kg in a m^3 mixture)",'
        '"Age (day)","Concrete compressive strength(MPa, megapascals) "',
        "cement,slag,ash,water,superplastic,coarseagg,fineagg,age,strength",
        "Cement,Slag,Fly Ash,Water,SP,Coarse Aggr.,Fine Aggr.,Age,csMPa",
    ],
    "energy": [
        "X1,X2,X3,X4,X5,X6,X7,X8,Y1,Y2",
        "Relative_Compactness,Surface_Area,Wall_Area,Roof_Area,Overall_Height,Orientation,"
        "Glazing_Area,Glazing_Area_Distribution,Heating_Load,Cooling_Load",
    ],
    "airfoil": [
        "frequency,attack-angle,chord-length,free-stream-velocity,"
        "suction-side-displacement-thickness,scaled-sound-pressure",
        "f,alpha,c,U_infinity,delta,SSPL",
    ],
    "plant": [
        "AT,V,AP,RH,PE",
        "Temperature,Exhaust Vacuum,Ambient Pressure,Humidity,energy output",
    ],
}


def numbers(name, rows=3):
    """Column j of row i is 100 i + j + 0.5."""
    columns = FEATURES[name] + 1 + (name == "energy")
    return 100.0 * np.arange(rows)[:, None] + np.arange(columns)[None, :] + 0.5


def lines(values, delimiter=","):
    return "".join(delimiter.join(map(str, row)) + "\n" for row in values)


@pytest.fixture
def write(tmp_path):
    def write(text, name="table.csv"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


@pytest.mark.quick
@pytest.mark.parametrize("name", FEATURES)
def test_with_every_header_and_without(write, name):
    values, d = numbers(name), FEATURES[name]
    texts = [lines(values), lines(values, "\t"), lines(values, "  ")]
    texts += [header + "\n" + lines(values) for header in HEADERS[name]]
    texts.append(",".join(f"c{j}" for j in range(values.shape[1])) + "\n" + lines(values))
    for text in texts:
        x, y = load_uci(write(text, "table.dat"), name)
        assert x.tolist() == values[:, :d].tolist()
        assert y.tolist() == values[:, d].tolist()


@pytest.mark.parametrize("name", FEATURES)
def test_the_target_is_found_by_its_name(write, name):
    values, d = numbers(name), FEATURES[name]
    header = np.array(HEADERS[name][-1].split(","))
    order = np.roll(np.arange(values.shape[1]), 3)
    path = write(",".join(header[order]) + "\n" + lines(values[:, order]))
    x, y = load_uci(path, name)
    assert y.tolist() == values[:, d].tolist()
    assert x.tolist() == values[:, [j for j in order if j < d]].tolist()


def test_what_pandas_writes(write):
    values = numbers("energy")
    text = "," + HEADERS["energy"][0] + "\n"
    text += "".join(f"{i}," + lines([row]) for i, row in enumerate(values))
    x, y = load_uci(write(text), "energy")
    assert x.tolist() == values[:, :8].tolist()
    assert y.tolist() == values[:, 8].tolist()


def test_the_second_target_may_be_missing(write):
    values = numbers("energy")
    for head in ("", "X1,X2,X3,X4,X5,X6,X7,X8,Y1\n"):
        x, y = load_uci(write(head + lines(values[:, :9])), "energy")
        assert (x.shape, y.tolist()) == ((3, 8), values[:, 8].tolist())
    head = "X1,X2,X3,X4,X5,X6,X7,X8,Y2\n"
    with pytest.raises(ValueError, match=r"the target of 'energy' is not one alone; .*'Y1'"):
        load_uci(write(head + lines(values[:, :9])), "energy")


def test_whole_numbers_are_real_numbers_and_dtypes(write):
    x, y = load_uci(write("1,2,3,4,5\n6,7,8,9,10\n"), "plant", dtype="float32")
    assert (x.dtype.name, y.dtype.name, y.tolist()) == ("float32", "float32", [5.0, 10.0])
    assert load_uci(write("1,2,3,4,5\n6,7,8,9,10\n"), "plant").y.dtype == "float64"


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("housing", "", "name is 'housing'; expected one of 'concrete', 'energy'"),
        ("plant", lines(numbers("airfoil")), r"6 columns; expected 5 for 'plant': 4 features"),
        ("energy", lines(numbers("airfoil")), "6 columns; expected 9 or 10 for 'energy'"),
        ("plant", "No,AT,V,AP,RH,PE\n" + lines(numbers("airfoil")), r"\['No', 'AT'.*Drop what"),
        ("plant", "AT,V,PE,EP,RH\n" + lines(numbers("plant")), "is not one alone; .*'PE'"),
        ("plant", "AT,V,AP,RH,PE\n1,2,3,4,?\n2,3,4,5,6\n", "'[?]'"),
        ("plant", b"PK\x03\x04rest", "workbook or an archive; .*pandas.read_excel"),
        ("concrete", b"\xd0\xcf\x11\xe0\xa1rest", "is a workbook"),
        ("plant", b"1,2,3,4,\xff\n", "no text in UTF-8"),
        ("plant", "", "the file is empty"),
    ],
)
def test_bad_files(write, name, text, message):
    with pytest.raises(ValueError, match=message):
        load_uci(write(text), name)


def test_no_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no file; .*dataset/294"):
        load_uci(tmp_path / "nowhere.csv", "plant")
