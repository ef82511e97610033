"""The numbers that the bounds of flow and descent share, and the norms along a run."""

from typing import Literal, NamedTuple, get_args

from jax.typing import ArrayLike

Dynamics = Literal["flow", "descent"]

# The factor f of R', in units of d/λ_0: ∫ exp(−λ_0 s/(2d)) ds, and η Σ_k (1 − ηλ_0/(2d))^{k/2}.
DISTANCE_FACTOR = {"flow": 2.0, "descent": 4.0}


class WeightNorms(NamedTuple):
    """Spectral norms in one step of joint training; upper bounds of them will do.

    Attributes:
      encoder: ‖W‖, the larger one of before and after the step.
      decoder: ‖A‖ before the step.
      features: ‖φ(XᵀW)‖, the larger one of before and after the step.
    """

    encoder: ArrayLike
    decoder: ArrayLike
    features: ArrayLike


def check_dynamics(dynamics: str) -> None:
    """Refuse what is neither flow nor descent.

    >>> check_dynamics("momentum")
    Traceback (most recent call last):
    ...
    ValueError: dynamics is 'momentum'; expected one of ['flow', 'descent'].
    """
    if dynamics not in get_args(Dynamics):
        raise ValueError(f"dynamics is {dynamics!r}; expected one of {list(get_args(Dynamics))}.")
