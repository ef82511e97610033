"""How theory is represented: a theorem's quantity (`Bound`), and a run held against a theorem
(`Certificate`)."""

import functools
from typing import Any, NamedTuple

import numpy as np
from jax.typing import ArrayLike


class Bound(NamedTuple):
    """A quantity that a theorem states.

    Attributes:
      value: the number, an array where the arguments were arrays.
      formula: how it is computed, as the paper writes it.
      constant: the factor that the paper leaves open in O(·) or Ω(·), 1 unless it was given; a
        constant that a proof determines stands in its place, and `source` says so.
      source: author, year, theorem and equation; and the correction, where one is made.
    """

    value: ArrayLike
    formula: str
    constant: ArrayLike
    source: str


class Inequality(NamedTuple):
    """One claimed inequality `smaller <= larger`, with both sides along a run.

    Attributes:
      statement: the inequality, as the paper writes it.
      source: theorem or lemma, and equation.
      smaller, larger: the two sides, shape (..., records); leading axes, if any, are seeds.
    """

    statement: str
    source: str
    smaller: np.ndarray
    larger: np.ndarray

    @property
    def slack(self) -> np.ndarray:
        """`larger - smaller` at each record: negative where the inequality fails."""
        with np.errstate(invalid="ignore"):  # inf − inf, of a run that diverged, is NaN
            return self.larger - self.smaller

    @property
    def margin(self) -> np.ndarray:
        """The smallest slack along the run, of each seed."""
        return self.slack.min(axis=-1)

    @property
    def ratio(self) -> np.ndarray:
        """The largest `smaller / larger` along the run: how much of the bound is used; 0/0 is 0."""
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = np.where(self.smaller == 0, 0.0, self.smaller / self.larger)
        return ratio.max(axis=-1)

    @property
    def holds(self) -> np.ndarray:
        """Whether the inequality holds at every record, up to rounding; NaN never holds."""
        scale = np.maximum(np.abs(self.smaller), np.abs(self.larger))
        scale = np.where(np.isfinite(scale), scale, 0.0)  # inf is no number that was rounded
        rounding = 16 * np.finfo(self.slack.dtype).eps * scale
        return (self.slack >= -rounding).all(axis=-1)


def inequality(
    statement: str, source: str, smaller: ArrayLike, larger: ArrayLike, dtype: Any = None
) -> Inequality:
    """`smaller <= larger` at each record; the sides are broadcast against each other.

    `dtype` is the precision of the record, which decides what rounding is; None is that of the
    sides.
    """
    if dtype is not None:
        smaller, larger = np.asarray(smaller, dtype), np.asarray(larger, dtype)
    sides = np.broadcast_arrays(np.atleast_1d(smaller), np.atleast_1d(larger))
    dtype = np.result_type(np.float32, *sides)
    return Inequality(statement, source, sides[0].astype(dtype), sides[1].astype(dtype))


class Certificate(NamedTuple):
    """A run held against a theorem: its hypotheses, and what it claims.

    Attributes:
      theorem: author, year, theorem.
      hypotheses: what the theorem asks (a width, a step size). A run that misses them, as nearly
        every practical run does, may satisfy the claims all the same.
      claims: what the theorem promises along the run.

    Example:
      >>> loss, rate = np.array([1.0, 0.4, 0.1]), 0.5 ** np.arange(3)
      >>> claim = inequality("L(k) ≤ 2⁻ᵏ L(0)", "example", loss, rate * loss[0])
      >>> certificate = Certificate("an example", hypotheses=(), claims=(claim,))
      >>> bool(certificate.holds), certificate.claims[0].slack.round(2).tolist()
      (True, [0.0, 0.1, 0.15])
    """

    theorem: str
    hypotheses: tuple[Inequality, ...]
    claims: tuple[Inequality, ...]

    @property
    def applies(self) -> np.ndarray:
        """Whether every hypothesis holds: only then does the theorem speak of this run."""
        return _all_hold(self.hypotheses)

    @property
    def holds(self) -> np.ndarray:
        """Whether every claim holds along the run."""
        return _all_hold(self.claims)

    def rows(self) -> list[dict[str, Any]]:
        """One row per inequality, for a table: kind, statement, source, margin, ratio, holds.

        With several seeds, `margin` is the smallest and `ratio` the largest over seeds, and
        `holds` is the share of seeds.
        """
        return [
            {
                "kind": kind,
                "statement": entry.statement,
                "source": entry.source,
                "margin": float(entry.margin.min()),
                "ratio": float(entry.ratio.max()),
                "holds": float(np.mean(entry.holds)),
            }
            for kind, entries in (("hypothesis", self.hypotheses), ("claim", self.claims))
            for entry in entries
        ]


def _all_hold(entries: tuple[Inequality, ...]) -> np.ndarray:
    # Entries with and without an axis of seeds stand side by side: they are broadcast.
    return functools.reduce(np.logical_and, [entry.holds for entry in entries], np.array(True))
