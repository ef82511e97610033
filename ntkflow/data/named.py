"""The data sets that scikit-learn brings along, by name."""

from ntkflow.data.dataset import Samples

NAMES = ("breast_cancer", "diabetes", "digits")


def read(name: str) -> Samples:
    """One of `NAMES`, from the installed scikit-learn; digits' pixels (0 to 16) over 16."""
    try:
        from sklearn import datasets
    except ImportError as error:
        raise ImportError(
            f"The data set {name!r} comes with scikit-learn, which is not installed: "
            "pip install 'ntkflow[data]'"
        ) from error
    loaded = getattr(datasets, f"load_{name}")()
    if name == "digits":
        return Samples(loaded.images[..., None] / 16, loaded.target)
    names = tuple(str(entry) for entry in loaded.get("target_names", ()))
    return Samples(loaded.data, loaded.target, names)
