"""Steps with records in between: the loop of every run."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

Carry = Any
Entry = dict[str, Any]


def scan_recorded(
    step: Callable[[Carry, jax.Array], tuple[Carry, Entry]],
    observe: Callable[[jax.Array, Carry], Entry],
    carry: Carry,
    steps: int,
    every: int,
    *,
    start: jax.Array,
    last: Callable[[jax.Array, Carry], Entry] | None = None,
) -> tuple[Carry, jax.Array, Entry]:
    """Take `steps` steps; record before the first, after each `every` of them, and at the end.

    Nothing else is kept, so that memory does not grow with the number of steps.

    Args:
      step: `step(carry, k) -> (carry, entry)`; the entry is what the step knows anyway of the state
        before it (its loss), and enters the record that is due there.
      observe: `observe(k, carry) -> entry`, the rest of a record.
      carry: the state before the first step.
      steps, every: numbers of steps, static.
      start: number k of the first step, an int32.
      last: the whole record after the last step, which no step follows; None is `observe`.

    Returns:
      `(carry, recorded, history)`: the last state, the numbers of steps at the records, shape
      (records,), and the entries with a leading axis of records.

    Example:
      >>> count = lambda carry, k: (carry + 1, {"before": carry})
      >>> square = lambda k, carry: {"square": carry**2}
      >>> final = lambda k, carry: {"before": carry, "square": carry**2}
      >>> carry, recorded, history = scan_recorded(
      ...     count, square, jnp.int32(0), 5, 2, start=jnp.int32(0), last=final)
      >>> int(carry), recorded.tolist(), history["square"].tolist()
      (5, [0, 2, 4, 5], [0, 4, 16, 25])
    """

    def block(carry, first, length):
        entry = observe(first, carry)
        carry, own = step(carry, first)
        if length > 1:
            following = first + jnp.arange(1, length, dtype=jnp.int32)
            carry, _ = jax.lax.scan(lambda c, k: (step(c, k)[0], None), carry, following)
        return carry, entry | own

    blocks, rest = divmod(steps, every)
    starts = start + every * jnp.arange(blocks, dtype=jnp.int32)
    carry, history = jax.lax.scan(lambda c, first: block(c, first, every), carry, starts)
    if rest:
        carry, entry = block(carry, start + jnp.int32(blocks * every), rest)
        history = _append(history, entry)
    end = (observe if last is None else last)(start + jnp.int32(steps), carry)
    recorded = start + jnp.array([*range(0, steps, every), steps], jnp.int32)
    return carry, recorded, _append(history, end)


def _append(history: Entry, entry: Entry) -> Entry:
    return jax.tree.map(
        lambda rows, row: jnp.concatenate([rows, jnp.asarray(row)[None]]), history, entry
    )
