"""Table 1 of Song et al. (2021): the scaling with the number of samples, beside other papers."""

from typing import Any, Literal, NamedTuple

from jax.typing import ArrayLike

from ntkflow.systems.shallow_smooth.arguments import check, real, source
from ntkflow.theory import Bound


class Row(NamedTuple):
    """One entry of Table 1.

    Attributes:
      depth: "2" or "L".
      algorithm: what trains.
      setting: QL a quadratic loss, CLL a convex and Lipschitz one, SD separable data.
      activation: "ReLU" or "smooth".
      reference: whose bound it is.
      scaling: the bound's order in n and L, logarithms left out.
    """

    depth: Literal["2", "L"]
    algorithm: str
    setting: str
    activation: Literal["ReLU", "smooth"]
    reference: str
    scaling: Bound


_ENTRIES: tuple[tuple[Any, ...], ...] = (
    ("2", "GD on layer 1", "QL", "ReLU", "Oymak and Soltanolkotabi (2020)", 2.0, 0, "Ω̃(n²)"),
    ("L", "GD on layer L", "CLL", "ReLU", "Kawaguchi and Huang (2019)", 1.0, 0, "Ω̃(n)"),
    ("2", "GD", "SD", "ReLU", "Song and Yang (2019)", 2.0, 0, "Ω̃(n²)"),
    ("2", "GD", "SD and QL", "ReLU", "Du et al. (2019)", 6.0, 0, "Ω̃(n⁶)"),
    ("L", "GD", "SD and QL", "ReLU", "Zou and Gu (2019)", 8.0, 12, "Ω(n⁸L¹²)"),
    ("2", "GD", "QL", "smooth", "this paper", 1.5, 0, "Ω̃(n^{3/2})"),
)  # fmt: skip


def table_1(n: ArrayLike, depth: ArrayLike = 2, *, constant: ArrayLike = 1.0) -> list[Row]:
    """Compute the scalings of Table 1, in its order.

    A constant stands in every entry, and is not the same one: the table compares orders. What
    scales is the number of parameters in the last row, which is of section 5.3, n^{3/2} = d_0 d_1,
    and a width in others, whose theorems hold d_0 fixed.

    Args:
      n: number of samples; an array makes curves.
      depth: L, in the row that depends on it.
      constant: C.

    Returns:
      Six rows.

    Example:
      >>> for row in table_1(100):
      ...     print(f"{row.reference:31} {row.activation:6} {row.scaling.value:.1e}")
      Oymak and Soltanolkotabi (2020) ReLU   1.0e+04
      Kawaguchi and Huang (2019)      ReLU   1.0e+02
      Song and Yang (2019)            ReLU   1.0e+04
      Du et al. (2019)                ReLU   1.0e+12
      Zou and Gu (2019)               ReLU   4.1e+19
      this paper                      smooth 1.0e+03

    Reference: Song et al. (2021), Table 1.
    """
    check(n=n, depth=depth, constant=constant)
    rows = []
    for *what, power, layers, formula in _ENTRIES:
        value = constant * real(n) ** power * real(depth) ** layers
        rows.append(Row._make((*what, Bound(value, formula, constant, source("Table 1")))))
    return rows
