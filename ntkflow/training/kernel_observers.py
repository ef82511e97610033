"""What a run records of its kernel: numbers of one kernel matrix, evaluated along the way."""

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from ntkflow import checks
from ntkflow.kernels.spectrum import rounding_of_eigenvalues
from ntkflow.training.observe import Snapshot

Quantity = Literal[
    "trace",
    "smallest_eigenvalue",
    "largest_eigenvalue",
    "condition_number",
    "effective_rank",
    "eigenvalues",
    "alignment",
    "centered_alignment",
    "distance",
    "change",
    "kernel",
]
Observer = Callable[[Snapshot], dict[str, jax.Array]]


def kernel_observer(
    kernel: Callable[..., Any],
    quantities: Quantity | Sequence[Quantity],
    *,
    samples: int | ArrayLike | None = None,
    reference: ArrayLike | None = None,
) -> Observer:
    """Build an observer of a kernel along a run: one kernel per record, shared by its quantities.

    With Θ the kernel at the parameters of the moment, on the x of the run's data (x, y), λ its
    eigenvalues, Θ_ref the reference, H = 1 − 11ᵀ/n and ⟨A, B⟩ = tr(AᵀB):

    - "trace": tr Θ.
    - "smallest_eigenvalue", "largest_eigenvalue", "eigenvalues" (all, increasing): 0 where an
      eigenvalue is not resolved, as in `extreme_eigenvalues`. One decomposition serves them all.
    - "condition_number": λ_max / λ_min, at most 1/4ε of the kernel's dtype (2.1e6 in float32): a
      kernel that reaches it has a λ_min that is not resolved, and the truth lies above.
    - "effective_rank": exp(−Σ p log p) with p = λ / Σ λ.
    - "alignment": ⟨Θ, yyᵀ⟩ / (‖Θ‖_F ‖yyᵀ‖_F) = yᵀΘy / (‖Θ‖_F ‖y‖²), 1 where Θ ∝ yyᵀ.
    - "centered_alignment": the same of HΘH and HyyᵀH.
    - "distance": ‖Θ − Θ_ref‖_F / ‖Θ_ref‖_F.
    - "change": ‖Θ − Θ_ref‖₂, the spectral norm, max |λ| of the symmetric difference: absolute, in
      units of the kernel. All its eigenvalues are computed, since power iteration is not exact.
    - "kernel": Θ itself.

    The eigenvalues cost O(m³) for a matrix of m rows, "change" as much again (asked together,
    they are two decompositions, of Θ and of Θ − Θ_ref), and everything else O(m²), beside the
    kernel: a subsample is the way to record often. Without a reference, "distance" and "change"
    need the kernel at the initial parameters. It does not depend on the step, and XLA takes it out
    of the loop: on a CPU a run with "distance" takes as long as with `reference=kernel(params, x)`
    (`benchmarks/observers.py`).

    Args:
      kernel: `kernel(params, x)`, of shape (n, n); (n, n, o, o), which is one matrix of n·o rows;
        or (n, n, o), a kernel per output, whose values get an axis of outputs. For the trace alone
        also of shape (n,), the diagonal: `ntk_diagonal(apply, outputs="trace")`.
      quantities: one name or several.
      samples: None takes all samples; a number m takes m that are spaced evenly over the data,
        the same at all times; whole numbers of shape (m,) are positions in the data.
      reference: the kernel that "distance" and "change" start from, on all samples or on those
        chosen; the limit of infinite width, say. None takes the kernel at the initial parameters.

    Returns:
      `observer(snapshot) -> dict` from each name to its value: scalars, but for "eigenvalues" and
      "kernel", in the kernel's dtype, float32 for lower ones. In `observe={"ntk": observer}` a
      run's history holds `history["ntk"]["trace"]`, and a study's dataset `ntk_trace`.

      Labels y are floating point of shape (n,) or (n, o); with a kernel (n, n) of several
      outputs, yyᵀ is the sum over outputs. Values are NaN where the run has diverged, and
      alignments and distances where a kernel or its reference is 0.

      On other data: `lambda snapshot: observer(snapshot._replace(data=(x_test, y_test)))`.

    Raises:
      ValueError: an unknown quantity, positions that repeat; and from the observer: data that are
        no pair (x, y), more samples than there are, class numbers as labels, a kernel, a reference
        or labels of another shape.

    Example:
      >>> from ntkflow.kernels.empirical import empirical_ntk
      >>> kernel = empirical_ntk(lambda w, x: jnp.exp(x @ w))  # Θ = f(x1) f(x2) x1·x2
      >>> observer = kernel_observer(kernel, ("trace", "alignment", "distance"))
      >>> x, y = jnp.eye(2), jnp.array([3.0, 0.0])
      >>> now = Snapshot(7, jnp.log(jnp.array([2.0, 1.0])), jnp.zeros(2), (x, y))  # Θ is diagonal
      >>> {name: round(float(value), 3) for name, value in observer(now).items()}  # 4, 1; was 1, 1
      {'trace': 5.0, 'alignment': 0.97, 'distance': 2.121}

    References:
      Cristianini, Shawe-Taylor, Elisseeff and Kandola (2002), "On kernel-target alignment".
      Cortes, Mohri and Rostamizadeh (2012), "Algorithms for learning kernels based on centered
      alignment". Roy and Vetterli (2007), "The effective rank". All three along the training of
      networks: Baratin et al. (2021), "Implicit regularization via neural feature alignment".
    """
    if not callable(kernel):
        raise ValueError(
            f"kernel is of type {type(kernel).__name__}; expected a function kernel(params, x), "
            'e.g. ntkflow.empirical_ntk(apply, outputs="trace").'
        )
    names = (quantities,) if isinstance(quantities, str) else tuple(quantities)
    if not names or set(names) - set(get_args(Quantity)):
        raise ValueError(
            f"quantities is {quantities!r}; expected some of {list(get_args(Quantity))}."
        )
    if reference is not None and not _OF_REFERENCE & set(names):
        raise ValueError(
            f'A reference is given, and quantities are {list(names)}; expected "distance" or '
            '"change" among them, which alone use it.'
        )
    choose = _chooser(samples)

    def observer(snapshot: Snapshot) -> dict[str, jax.Array]:
        x, y = _pair(snapshot.data)
        n = checks.same_length(x=x)
        rows = choose(n)
        x = jnp.asarray(x)[rows]
        theta = kernel(snapshot.params, x)
        _check_kernel(theta, len(x), names)
        if theta.shape == (len(x),) * 3:  # as many outputs as samples: (n, n, o) or (n, o, o)?
            _check_kernel(jax.eval_shape(kernel, snapshot.params, x[:1]), 1, names)
        start = None
        if _OF_REFERENCE & set(names):
            start = kernel(snapshot.initial_params, x) if reference is None else reference
            start = _matching(jnp.asarray(start), theta, n, rows)
        targets = _targets(y, n, theta)[rows] if _OF_LABELS & set(names) else None

        if theta.ndim == 1:
            return {"trace": jnp.sum(_at_least_float32(theta))}
        of_one = lambda *arrays: _quantities(names, *arrays)  # noqa: E731
        if theta.ndim == 3:
            axes = tuple(None if array is None else -1 for array in (theta, start, targets))
            values = jax.vmap(of_one, in_axes=axes)(theta, start, targets)
        else:
            values = of_one(theta, start, targets)
        values["kernel"] = theta
        return {name: values[name] for name in names}

    return observer


class _Moment(NamedTuple):
    """What quantities are made of: a kernel (n, n) or (n, n, o, o), labels (n,) or (n, o).

    None stands for what none of the quantities asked for needs.
    """

    kernel: jax.Array
    reference: Any = None
    labels: Any = None
    eigenvalues: Any = None


def _condition_number(moment: _Moment) -> jax.Array:
    largest = moment.eigenvalues[-1]
    resolution = rounding_of_eigenvalues(largest, moment.kernel.dtype)
    # By infinity a study would take the run for a diverged one.
    return largest / jnp.maximum(moment.eigenvalues[0], resolution)


def _effective_rank(moment: _Moment) -> jax.Array:
    positive = jnp.maximum(moment.eigenvalues, 0)
    return jnp.exp(jnp.sum(jax.scipy.special.entr(positive / jnp.sum(positive))))


def _alignment(moment: _Moment) -> jax.Array:
    theta, labels = _matrix(moment.kernel), moment.labels
    if moment.kernel.ndim == 4 or labels.ndim == 1:
        labels = labels.reshape(-1, 1)
    moved = jnp.matmul(theta, labels, precision=jax.lax.Precision.HIGHEST)
    gram = jnp.matmul(labels.T, labels, precision=jax.lax.Precision.HIGHEST)
    return jnp.sum(labels * moved) / (jnp.linalg.norm(theta) * jnp.linalg.norm(gram))


def _centered_alignment(moment: _Moment) -> jax.Array:
    def center(array, axis):
        return array - jnp.mean(array, axis=axis, keepdims=True)

    theta = center(center(_at_least_float32(moment.kernel), 0), 1)
    return _alignment(moment._replace(kernel=theta, labels=center(moment.labels, 0)))


def _distance(moment: _Moment) -> jax.Array:
    start = _at_least_float32(moment.reference).ravel()
    return jnp.linalg.norm(_at_least_float32(moment.kernel).ravel() - start) / jnp.linalg.norm(
        start
    )


def _change(moment: _Moment) -> jax.Array:
    # Each widened before the subtraction: what is left of it keeps all its digits.
    wide = jnp.promote_types(jnp.float32, jax.dtypes.canonicalize_dtype(float))
    start, theta = (_matrix(a).astype(wide) for a in (moment.reference, moment.kernel))
    return jnp.max(jnp.abs(jnp.linalg.eigvalsh(theta - start)))


_QUANTITIES: dict[str, Callable[[_Moment], jax.Array]] = {
    "trace": lambda moment: jnp.trace(_matrix(moment.kernel)),
    "smallest_eigenvalue": lambda moment: moment.eigenvalues[0],
    "largest_eigenvalue": lambda moment: moment.eigenvalues[-1],
    "condition_number": _condition_number,
    "effective_rank": _effective_rank,
    "eigenvalues": lambda moment: moment.eigenvalues,
    "alignment": _alignment,
    "centered_alignment": _centered_alignment,
    "distance": _distance,
    "change": _change,
}
_OF_REFERENCE = {"distance", "change"}
_OF_LABELS = {"alignment", "centered_alignment"}
_OF_EIGENVALUES = {
    "smallest_eigenvalue",
    "largest_eigenvalue",
    "condition_number",
    "effective_rank",
    "eigenvalues",
}


def _quantities(names, theta, reference, labels):
    eigenvalues = _eigenvalues(theta) if _OF_EIGENVALUES & set(names) else None
    moment = _Moment(theta, reference, labels, eigenvalues)
    dtype = jnp.promote_types(theta.dtype, jnp.float32)
    return {name: _QUANTITIES[name](moment).astype(dtype) for name in names if name != "kernel"}


def _eigenvalues(theta: jax.Array) -> jax.Array:
    """All of them, increasing and in float64 where JAX has it; those not resolved are 0.

    As in `extreme_eigenvalues`, except that NaN passes: a run that diverges is data.
    """
    wide = jnp.promote_types(jnp.float32, jax.dtypes.canonicalize_dtype(float))
    values = jnp.linalg.eigvalsh(_matrix(theta).astype(wide))
    magnitude = jnp.maximum(jnp.abs(values[0]), jnp.abs(values[-1]))
    unresolved = jnp.abs(values) < rounding_of_eigenvalues(magnitude, theta.dtype)
    return jnp.where(unresolved, 0.0, values)


def _matrix(theta: jax.Array) -> jax.Array:
    """(n, n) as it is, (n, n, o, o) as (n·o, n·o)."""
    if theta.ndim == 4:
        n, _, o, _ = theta.shape
        theta = theta.transpose(0, 2, 1, 3).reshape(n * o, n * o)
    return _at_least_float32(theta)


def _at_least_float32(array: jax.Array) -> jax.Array:
    return array.astype(jnp.promote_types(array.dtype, jnp.float32))


# The doors: which samples, and shapes that fit each other.


def _chooser(samples: int | ArrayLike | None) -> Callable[[int], Any]:
    """`choose(n)`: what indexes the samples that are observed, of n."""
    if samples is None:
        return lambda n: slice(None)
    if np.ndim(samples) == 0:
        count = checks.positive_int("samples", samples)
        positions = None
    else:
        positions = np.asarray(samples)
        whole = np.issubdtype(positions.dtype, np.integer)
        if positions.ndim != 1 or not positions.size or not whole:
            raise ValueError(
                f"samples has shape {positions.shape} and dtype {positions.dtype}; expected a "
                "number, or positions in the data: whole numbers of shape (m,). A mask becomes "
                "positions by np.flatnonzero(mask)."
            )
        if (positions < 0).any() or len(set(positions.tolist())) < len(positions):
            raise ValueError("samples holds negative or repeated positions; expected each once.")
        count = int(positions.max()) + 1

    def choose(n: int) -> np.ndarray:
        if count > n:
            raise ValueError(f"samples asks for {count} or more samples, and the data hold {n}.")
        # The first ones could all be of one class.
        return np.arange(count) * n // count if positions is None else positions

    return choose


def _pair(data: Any) -> tuple[Any, Any]:
    if not isinstance(data, tuple | list) or len(data) != 2:
        raise ValueError(
            f"The run's data are of type {type(data).__name__}; expected a pair (x, y). Of other "
            "data: lambda snapshot: observer(snapshot._replace(data=(x, y)))."
        )
    x, y = data
    return x, y


def _check_kernel(theta: Any, n: int, names: tuple[str, ...]) -> None:
    found = f"shape {theta.shape}" if hasattr(theta, "shape") else f"a {type(theta).__name__}"
    shape: tuple[int, ...] = getattr(theta, "shape", ())
    if shape == (n,):
        if set(names) == {"trace"}:
            return
        raise ValueError(
            f"The kernel returned {found} for {n} samples, a diagonal, which gives "
            f'"trace" alone; {list(names)} need a kernel of shape ({n}, {n}).'
        )
    square = shape[:2] == (n, n) and len(shape) <= 4
    if not square or (len(shape) == 4 and shape[2] != shape[3]):
        raise ValueError(
            f"kernel(params, x) returned {found} for {n} samples; expected ({n}, {n}), "
            f"({n}, {n}, outputs) or ({n}, {n}, outputs, outputs), as from "
            "ntkflow.empirical_ntk(apply). A network itself is no kernel."
        )


def _matching(reference: jax.Array, theta: jax.Array, n: int, rows: Any) -> jax.Array:
    """The reference on the samples observed, in the kernel's dtype."""
    if reference.shape == (n, n, *theta.shape[2:]) != theta.shape:
        reference = reference[rows][:, rows]
    if reference.shape != theta.shape:
        raise ValueError(
            f"reference has shape {reference.shape} and the kernel {theta.shape} on the samples "
            f"observed; expected the same, or {(n, n, *theta.shape[2:])} on all samples. The "
            "infinite_width kernel is an array as kernel(x).ntk, and that of one output."
        )
    return reference.astype(theta.dtype)


def _targets(y: Any, n: int, theta: jax.Array) -> jax.Array:
    """The labels of all n samples, in the kernel's dtype, at least float32."""
    y = jnp.asarray(y)
    if not jnp.issubdtype(y.dtype, jnp.floating):
        raise ValueError(
            f"The labels y are of dtype {y.dtype}; alignments need floating-point numbers. Class "
            "numbers become jax.nn.one_hot(y, classes), which cross_entropy_loss takes as well; "
            "±1 becomes y.astype(float)."
        )
    outputs = theta.shape[2:3]
    fits = y.shape == (n, *outputs) if outputs else y.ndim in (1, 2) and y.shape[0] == n
    if not fits:
        wanted = f"{(n, *outputs)}" if outputs else f"({n},) or ({n}, outputs)"
        raise ValueError(
            f"The labels y have shape {y.shape}; expected {wanted}, for a kernel of shape "
            f"{theta.shape} on {theta.shape[0]} of {n} samples."
        )
    return y.astype(jnp.promote_types(theta.dtype, jnp.float32))
