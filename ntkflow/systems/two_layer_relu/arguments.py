"""The numbers that the quantities of Du (2019), chapter 2, share."""

import functools
import math
from typing import Literal, get_args

from ntkflow.systems.arguments import (
    check as check,
    library as library,
    real as real,
    source as _source,
)

Dynamics = Literal["flow", "descent"]

# 2 / √(2π): P(|z| < R) ≤ 2R / √(2π) for z ~ N(0, 1).
ANTI_CONCENTRATION = 2 / math.sqrt(2 * math.pi)

# c in R = c δ λ_0 / n². Flow: 4n²R / (√(2π) δ) = λ_0/4 in Lemma 2.2. Descent: half of λ_0/2 for
# H^⊥ and I_2 in the contraction, 4 C n² R / δ = λ_0/4 with C = 2/√(2π).
RADIUS_CONSTANT = {"flow": math.sqrt(2 * math.pi) / 16, "descent": math.sqrt(2 * math.pi) / 32}

# The factor of √n ‖y − u(0)‖ / (√m λ_0) in R': ∫ exp(−λ_0 s/2) ds, and η Σ_k (1 − ηλ_0/2)^(k/2).
DISTANCE_FACTOR = {"flow": 2.0, "descent": 4.0}

source = functools.partial(_source, "Du (2019)")


def check_dynamics(dynamics: str) -> None:
    if dynamics not in get_args(Dynamics):
        raise ValueError(f"dynamics is {dynamics!r}; expected one of {list(get_args(Dynamics))}.")
