"""Runs of the shared-weight autoencoder held against Theorems 3 and 4, from `observables(model)`.

Columns are compared one by one, W_i with A_i: align the start of a run first where it is not near.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np
from jax.typing import ArrayLike

from ntkflow.data.dictionaries import incoherence
from ntkflow.data.generative import BilinearModel, Moments
from ntkflow.systems.records import check_history, steps_of, tightest
from ntkflow.systems.sparse_autoencoder import (
    bounds_codes as codes,
    bounds_gradient as gradient,
    bounds_step as step,
)
from ntkflow.systems.sparse_autoencoder.arguments import check, source
from ntkflow.theory import Certificate, Inequality, inequality

_DIVERGENCE_IS_DATA = np.errstate(over="ignore", invalid="ignore", divide="ignore")
_COLUMNS = ("distances", "inner_products", "column_norms", "bias")
_GRADIENT = ("gradient_alignment", "gradient_squared_norm", "spectral_distance")


@_DIVERGENCE_IS_DATA
def certificate_code_consistency(
    history: Mapping[str, ArrayLike],
    steps: ArrayLike,
    model: BilinearModel,
    *,
    level: float | None = None,
    constant: float = 1.0,
) -> Certificate:
    """Hold the codes along a run against Theorem 3 and Claim 1.

    The hypotheses on the bias are those of the margins of appendix A.2 with their constants, which
    suffice up to `codes.noise_failure`; the theorem's own interval leaves no room for μ and σ.

    Args:
      history: what `observables(model, samples, activation)` recorded, with or without a leading
        axis of seeds. Read: distances, inner_products, column_norms, bias, shape (..., records, m),
        and code_consistency, shape (..., records).
      steps: of the records, from 0 on; `trajectory.steps`.
      model: the generative model of the run.
      level: of the hard threshold; None for ReLU, of which the theorem speaks for non-negative
        codes alone.
      constant: C of δ ≤ C/ln n, σ ≤ C/√n and k ≤ C/δ².

    Returns:
      The certificate: with seeds, `margin` and `holds` have their axis.

    Raises:
      ValueError: a record is missing, the first is not at 0; sparse coding without a threshold.

    Example:
      >>> from ntkflow.data.generative import mixture_of_gaussians
      >>> model = mixture_of_gaussians(np.eye(2))
      >>> aligned = np.array([[0.98, 0.98], [1.0, 1.0]])  # λ_i, as `observables` records it
      >>> history = {"distances": np.sqrt(2 - 2 * aligned), "inner_products": aligned,
      ...            "column_norms": np.ones((2, 2)), "bias": np.full((2, 2), -0.3),
      ...            "code_consistency": np.ones(2)}
      >>> certificate = certificate_code_consistency(history, np.arange(2), model)
      >>> bool(certificate.holds), bool(certificate.applies)
      (True, True)

    Reference: Nguyen, Wong and Hegde (2019b), Theorem 3 and Claim 1.
    """
    check(model=model)
    if level is None and model.kind == "sparse_coding":
        raise ValueError(
            "level is None, which is ReLU; Theorem 3 has a hard threshold for sparse coding: give "
            "its level, a_1/2."
        )
    run = _read(history, steps, model, (*_COLUMNS, "code_consistency"))
    delta, bias = run.closeness, run.record["bias"]
    kind, noise, mu = model.kind, float(model.noise), float(incoherence(model.dictionary))
    setting = run.n, run.k, mu, delta
    smallest, largest = float(model.smallest), float(model.largest)
    largest_delta = codes.largest_closeness(run.n, constant=constant)
    largest_noise = codes.largest_noise_level(run.n, constant=constant)
    largest_mu = codes.largest_incoherence(run.n, run.k, delta, kind)
    largest_k = codes.largest_sparsity(run.n, delta, kind, constant=constant)
    hypotheses = [
        *_unit_columns(run),
        inequality(
            f"δ ≤ {largest_delta.formula}", largest_delta.source, delta, largest_delta.value
        ),
        inequality(
            f"σ ≤ {largest_noise.formula}", largest_noise.source, noise, largest_noise.value
        ),
        inequality(f"μ ≤ {largest_mu.formula}", largest_mu.source, mu, largest_mu.value),
        inequality(f"k ≤ {largest_k.formula}", largest_k.source, run.k, largest_k.value),
    ]
    if level is None:
        lower, upper = codes.bias_interval(*setting, smallest, largest, noise=noise)
        hypotheses += [
            inequality(f"{lower.formula} ≤ b_i", lower.source, lower.value, bias.min(axis=-1)),
            inequality(f"b_i ≤ {upper.formula}", upper.source, bias.max(axis=-1), upper.value),
        ]
    else:
        place = source("Theorem 3 (i), (iii)")
        hypotheses.append(inequality("|b_i| ≤ 0", place, np.abs(bias).max(axis=-1), 0.0))
        if kind == "sparse_coding":
            half = codes.threshold_level(smallest).value
            hypotheses += [
                run.claim("level ≤ a_1/2", source("Theorem 3 (i)"), level, half),
                run.claim("a_1/2 ≤ level", source("Theorem 3 (i)"), half, level),
            ]
        else:
            on = codes.smallest_on_support(*setting, smallest, largest, noise=noise)
            off = codes.largest_off_support(*setting, largest, noise=noise)
            hypotheses += [
                inequality(f"level ≤ {on.formula}", on.source, level, on.value),
                inequality(f"{off.formula} ≤ level", off.source, off.value, level),
            ]
    least = codes.smallest_alignment(delta)
    what = "signs" if kind == "sparse_coding" else "support"
    return Certificate(
        theorem=source("Theorem 3: code consistency"),
        hypotheses=tuple(hypotheses),
        claims=(
            run.claim(
                f"{least.formula} ≤ ⟨W_i, A_i⟩, to rounding",
                source("Claim 1 (i)"),
                np.asarray(least.value) - run.n * run.eps,
                run.record["inner_products"].min(axis=-1),
            ),
            run.claim(
                f"1 ≤ share of codes with the true {what}",
                source("Theorem 3"),
                1.0,
                run.record["code_consistency"],
            ),
        ),
    )


@_DIVERGENCE_IS_DATA
def certificate_descent(
    history: Mapping[str, ArrayLike],
    steps: ArrayLike,
    model: BilinearModel,
    step_size: ArrayLike,
    *,
    relu: bool = False,
    constant: float = 1.0,
    exponent: float = 2.0,
) -> Certificate:
    """Hold a run of normalized gradient descent against Theorem 4 and Lemmas 1, 2, 4.

    The claims of a step are those of the population gradient, which `observables` records for any
    source of gradients; the decay is that of the run itself. τ is that of the proof, at each
    record: min_i ζ κ_2 p_i (λ_i − 2δ²/λ_i). For non-negative codes the remainder is the text's,
    without the ‖e_i‖ of `nonnegative_remainder`: there the lemma may fail.

    Args:
      history: what `observables(model)` recorded, with or without a leading axis of seeds. Read:
        distances, inner_products, column_norms, bias, gradient_alignment and
        gradient_squared_norm, shape (..., records, m); spectral_distance, shape (..., records).
      steps: of the records, from 0 on; `trajectory.steps`.
      model: the generative model of the run.
      step_size: ζ, of the run, or of each record.
      relu: whether the encoder is ReLU, for which the proof asks b_i ≤ −‖W_i − A_i‖; it asks b = 0
        of a hard threshold.
      constant: C of δ ≤ C/ln n, of the remainders of the lemmas, and of the floor.
      exponent: c of the mixture's floor m n^(−c); the text has some c > 1.

    Returns:
      The certificate: with seeds, `margin` and `holds` have their axis.

    Raises:
      ValueError: a record is missing, the first is not at 0; sparse coding with ReLU.

    Example:
      >>> from ntkflow.data.generative import mixture_of_gaussians
      >>> model = mixture_of_gaussians(np.eye(2))
      >>> aligned = np.array([[0.98, 0.98], [1.0, 1.0]])  # λ_i; b = 0, as `observables` records it
      >>> history = {"distances": np.sqrt(2 - 2 * aligned), "inner_products": aligned,
      ...            "column_norms": np.ones((2, 2)), "bias": np.zeros((2, 2)),
      ...            "spectral_distance": np.array([0.2, 0.0]),
      ...            "gradient_alignment": aligned * (1 - aligned**2),
      ...            "gradient_squared_norm": aligned**2 * (1 - aligned**2) / 4}
      >>> certificate = certificate_descent(history, np.arange(2), model, 2.0)
      >>> bool(certificate.holds), bool(certificate.applies)
      (True, True)

    Reference: Nguyen, Wong and Hegde (2019b), Theorem 4 and appendix B.
    """
    check(model=model, step_size=step_size)
    if relu and model.kind == "sparse_coding":
        raise ValueError(
            "relu is True; Theorem 4 has a hard threshold for sparse coding: expected relu=False."
        )
    run = _read(history, steps, model, (*_COLUMNS, *_GRADIENT))
    moments, delta, distance = run.moments, run.closeness, run.record["distances"]
    zeta, alignment = np.asarray(step_size, float), run.record["inner_products"]
    bias, norm = run.record["bias"], float(np.linalg.norm(np.asarray(model.dictionary), 2))
    slope = moments.kappa_2 * moments.single
    rounding = 64 * run.eps  # of one entry: what is compared falls below it as W reaches A

    largest_delta = codes.largest_closeness(run.n, constant=constant)
    largest_zeta = step.lemma_step_size(alignment, moments)
    tau_i = step.contraction(zeta[..., None], alignment, delta[..., None], moments)
    tau = np.asarray(tau_i.value).min(axis=-1)
    condition = gradient.bias_condition(bias, alignment, moments)
    correlation, remainder = _lemma(run, constant)
    nearness = step.largest_spectral_distance(norm)
    floor = step.floor(run.n, run.m, run.k, model.kind, constant=constant, exponent=exponent)

    squared = np.square(distance).sum(axis=-1)
    between = np.diff(run.steps, axis=-1)
    decay = step.error_decay(
        between, np.clip(tau[..., :-1], run.eps, 1.0), squared[..., :-1], floor.value
    )
    after = (
        distance**2
        - zeta[..., None] * run.record["gradient_alignment"]
        + zeta[..., None] ** 2 * run.record["gradient_squared_norm"]
    )
    added = zeta[..., None] * 2 * remainder**2 / (slope * alignment)
    allowed = (1 - np.asarray(tau_i.value)) * distance**2 + added
    slack = rounding * (distance + rounding)
    hypotheses = [
        *_unit_columns(run),
        inequality(
            f"δ ≤ {largest_delta.formula}", largest_delta.source, delta, largest_delta.value
        ),
        run.claim(
            f"ζ ≤ {largest_zeta.formula}",
            source("proof of Theorem 4, min for max"),
            zeta,
            largest_zeta.value,
        ),
        run.claim("½ ≤ τ", source("Theorem 4"), 0.5, tau),
        run.claim(
            "|κ_2 λ_i² + 2κ_1 b_i λ_i + b_i² − κ_2 λ_i| ≤ 2κ_2 (1 − λ_i), to rounding",
            source("Lemmas 1 and 4"),
            *tightest(
                np.asarray(condition.smaller),
                np.asarray(condition.larger) + moments.kappa_2 * rounding,
            ),
        ),
    ]
    if relu:
        sides = tightest(bias, -distance)
        hypotheses.append(run.claim("b_i ≤ −‖W_i − A_i‖", source("proof of Theorem 4 (i)"), *sides))
    else:
        hypotheses.append(
            run.claim("|b_i| ≤ 0", source("Theorem 4"), np.abs(bias).max(axis=-1), 0.0)
        )
    return Certificate(
        theorem=source("Theorem 4: normalized gradient descent"),
        hypotheses=tuple(hypotheses),
        claims=(
            inequality(
                f"{correlation.formula} ≤ 2⟨g_i, W_i − A_i⟩",
                correlation.source,
                *tightest(
                    np.asarray(correlation.value),
                    run.record["gradient_alignment"] + slope * slack,
                ),
            ),
            run.claim(
                "‖W_i − ζg_i − A_i‖² ≤ (1 − τ_i) ‖W_i − A_i‖² + 2ζ R²/(κ_2 p_i λ_i)",
                source("proof of Theorem 4"),
                *tightest(after, allowed + slack),
            ),
            run.claim(
                f"‖W' − A‖_F² ≤ (1 − τ)ˢ ‖W − A‖_F² + F (1 − (1 − τ)ˢ)/τ, F = {floor.formula}",
                floor.source,
                squared[..., 1:],
                np.asarray(decay.value) + run.m * rounding**2,
            ),
            run.claim(
                f"‖W − A‖ ≤ {nearness.formula}",
                source("Lemma 3"),
                run.record["spectral_distance"],
                nearness.value,
            ),
        ),
    )


class _Run(NamedTuple):
    """A run and the numbers that the theorems speak of."""

    record: dict[str, np.ndarray]
    steps: np.ndarray
    moments: Moments
    kind: str
    n: int
    m: int
    k: int

    @property
    def closeness(self) -> np.ndarray:
        """δ = max_i ‖W_i − A_i‖ at each record."""
        return self.record["distances"].max(axis=-1)

    @property
    def eps(self) -> float:
        return float(np.finfo(self.record["distances"].dtype).eps)

    def claim(
        self, statement: str, origin: str, smaller: ArrayLike, larger: ArrayLike
    ) -> Inequality:
        """An inequality in the precision of the record, which decides what rounding is."""
        return inequality(statement, origin, smaller, larger, self.record["distances"].dtype)


def _read(
    history: Mapping[str, ArrayLike],
    steps: ArrayLike,
    model: BilinearModel,
    needed: Iterable[str],
) -> _Run:
    samples = ", samples, activation" if "code_consistency" in needed else ""
    check_history(history, needed, f"observables(model{samples})")
    record = {name: np.asarray(history[name]) for name in needed}
    n, m = model.dictionary.shape
    if record["distances"].shape[-1:] != (m,):
        raise ValueError(
            f"The record of distances has shape {record['distances'].shape}; expected (..., {m}), "
            f"one per column of the model's dictionary, ({n}, {m})."
        )
    steps = steps_of(steps, record["distances"][..., 0])
    moments = Moments(*(np.float64(value) for value in model.moments))
    return _Run(record, steps, moments, model.kind, n, m, model.sparsity)


def _unit_columns(run: _Run) -> tuple[Inequality, ...]:
    deviation = np.abs(run.record["column_norms"] - 1).max(axis=-1)
    return (run.claim("‖W_i‖ = 1, to 10⁻⁵", source("Theorems 3 and 4"), deviation, 1e-5),)


def _lemma(run: _Run, constant: float):
    """The bound of the lemma for the kind of model, and R, what its gradient has besides."""
    arguments = (
        run.record["distances"],
        run.record["inner_products"],
        run.record["gradient_squared_norm"],
        run.closeness[..., None],
        run.moments,
    )
    if run.kind == "sparse_coding":
        rest = gradient.sparse_remainder(run.n, run.k, run.moments, constant=constant).value
        return gradient.sparse_gradient_correlation(*arguments, rest), rest
    rest = 0.0
    if run.kind == "nonnegative_sparse_coding":
        rest = gradient.nonnegative_remainder(run.m, run.k, run.moments, constant=constant).value
    return gradient.gradient_correlation(*arguments, rest), rest
