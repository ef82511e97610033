"""Table 5.1 of Du (2019), 36 cells of random initializations, beside NumPy: runs per second.

A run is five numbers, and ends as soon as its fate is certain: after nine steps on average. NumPy
gets the same rule, on all runs at once, of which it keeps the open ones, or in a loop over runs;
and what one would do without the rule, 6000 steps of all runs. Then the bare steps, without any
decision. All in float64, starts included. Meant for two cores: JAX gets two CPU devices, or one
with two threads.
"""

import functools
import math
import os

import jax
import numpy as np
import timing

from ntkflow.systems import weight_normalized_filter as system

PATCHES, RATIOS, NORM, P = (25, 36, 49, 64, 81, 100), (0, 1, 4, 9, 16, 25), 0.5, 6
RUNS, LOOP_RUNS, PLAIN_RUNS, PLAIN_STEPS = 5000, 25, 25, 6000  # of each cell
BARE_RUNS, BARE_STEPS = 500, 200
BETWEEN = 8  # steps between two looks, as in ntkflow


def main() -> None:
    options = timing.arguments(__doc__)
    load = os.getloadavg()[0]
    common = {"JAX_PLATFORMS": "cpu", "JAX_ENABLE_X64": "1", "OPENBLAS_NUM_THREADS": "1"}
    workers = {
        "one": timing.Worker(JAX_NUM_CPU_DEVICES="1", **common),
        "two": timing.Worker(JAX_NUM_CPU_DEVICES="2", **common),
    }
    tables = [table(workers, options.rounds), bare(workers, options.rounds)]
    for worker in workers.values():
        worker.close()
    timing.report(__file__, tables, load, options.markdown)


# Table 5.1.


def table(workers, rounds):
    contenders = {
        "ntkflow, 2 devices": ("two", "ntkflow", RUNS),
        "ntkflow, 1 device": ("one", "ntkflow", RUNS),
        "NumPy, all runs at once, open ones kept": ("one", "open", RUNS),
        "NumPy, a loop over runs": ("one", "loop", LOOP_RUNS),
        "NumPy, all runs at once, 6000 steps": ("one", "plain", PLAIN_RUNS),
    }
    clocks = {
        name: functools.partial(workers[place], clock, kind, runs)
        for name, (place, kind, runs) in contenders.items()
    }
    times = timing.race(clocks, rounds)
    found = {
        name: workers[place](probabilities, kind, runs)
        for name, (place, kind, runs) in contenders.items()
    }
    reference, apart = found["ntkflow, 2 devices"], 0.0
    for name, (_, _, runs) in contenders.items():
        spread = np.sqrt(reference * (1 - reference) * (1 / RUNS + 1 / runs)) + 1 / runs
        apart = max(apart, np.max(np.abs(found[name] - reference) / spread))
    if not apart < 5:
        raise SystemExit(f"The contenders' tables differ by {apart:.1f} standard errors.")
    rates = {name: 36 * contenders[name][2] / time.run for name, time in times.items()}
    base = rates["ntkflow, 2 devices"]
    rows = [
        [
            name,
            f"{36 * contenders[name][2]}",
            f"{time.run:.3f}",
            f"{rates[name]:.3g}",
            timing.ratio(base, rates[name]),
            f"{36 * RUNS / rates[name]:.2f}",
            f"{time.start:.1f}" if "ntkflow" in name else "-",
        ]
        for name, time in times.items()
    ]
    remark = (
        "The ratio is of runs per second, the first row's to each. ntkflow draws five numbers in "
        "place of vectors. All tables agree within "
        f"{apart:.1f} standard errors. Start is tracing and compilation."
    )
    columns = ["Table 5.1", "runs", "run, s", "runs/s", "ratio", "table, s", "start, s"]
    return timing.Table("36 cells of random initializations", columns, rows, remark)


def clock(kind, runs):
    return timing.seconds(lambda: shares(kind, runs))


def probabilities(kind, runs):
    return np.asarray(shares(kind, runs))


def shares(kind, runs):
    """The share of runs that reach the global minimum, shape (6, 6)."""
    if kind == "ntkflow":
        found = system.success_probability(jax.random.key(0), problem(), P, runs)
        return found.probability
    decide = {"open": decide_open, "loop": decide_loop, "plain": decide_plain}[kind]
    return decide(*start(runs)).reshape(len(PATCHES), len(RATIOS), runs).mean(axis=-1)


def problem():
    k, ratio = np.array(PATCHES, float)[:, None], np.array(RATIOS, float)[None]
    return system.Problem(k, np.sqrt(ratio) * NORM, NORM)


def start(runs):
    """v and a as vectors, reduced: x, y, S, Q; and k, s and η of each, runs last."""
    random, parts = np.random.default_rng(0), []
    for k in PATCHES:
        for ratio in RATIOS:
            s = math.sqrt(ratio) * NORM
            v = random.normal(size=(runs, P))
            v /= np.linalg.norm(v, axis=1)[:, None]
            a = random.normal(size=(runs, k))
            length = s / math.sqrt(k) * random.uniform(size=runs) ** (1 / k)
            a *= (length / np.linalg.norm(a, axis=1))[:, None]
            across = math.sqrt(max(NORM**2 - s**2 / k, 0.0) / 2)
            total = a.sum(axis=1)
            overlap = s / k * total + across * (a[:, 0] - a[:, 1])
            eta = 0.9 * 2 * np.pi / (k + np.pi - 1)
            constants = (np.full(runs, value) for value in (k, s, eta))
            parts.append((v[:, 0], np.linalg.norm(v[:, 1:], axis=1), total, overlap, *constants))
    return tuple(np.concatenate(column) for column in zip(*parts, strict=True))


def step(x, y, total, overlap, k, s, eta, lib=np):
    r = lib.sqrt(x * x + y * y)
    c, d, rest = x / r, y / r, lib.arctan2(y, -x)
    level = rest * c + d - 1
    h = eta / (2 * np.pi)
    turn = h * overlap * rest / r
    return (
        x + turn * d * d,
        abs(y - turn * d * c),
        total - h * ((k + np.pi - 1) * total - (k + level) * s),
        overlap - h * (s * (total - s) + (np.pi - 1) * overlap - level * NORM**2),
    )


def fate(x, y, total, overlap, k, s, lib=np):
    """Whether aᵀa* will stay positive, or negative; ‖a*‖ is small enough for the rest."""
    r = lib.sqrt(x * x + y * y)
    g = lib.arctan2(y, -x) * x / r + y / r
    u, ahead = s * (s - total), (np.pi - g) * s * s / (k + np.pi - 1)
    force = (g - 1) * NORM**2
    won = (overlap > 0) & (force + lib.minimum(u, ahead) > 0)
    return won, (overlap < 0) & (force + lib.maximum(u, ahead) < 0)


def decide_open(x, y, total, overlap, k, s, eta):
    result, left = np.zeros(x.size, bool), np.arange(x.size)
    state, setting = (x, y, total, overlap), (k, s, eta)
    while left.size:
        won, lost = fate(*state, *setting[:2])
        result[left[won]] = True
        stays = ~(won | lost)
        left, *rest = (part[stays] for part in (left, *state, *setting))
        state, setting = tuple(rest[:4]), tuple(rest[4:])
        for _ in range(BETWEEN):
            state = step(*state, *setting)
    return result


class Scalars:
    """NumPy's names for functions of single numbers, from the standard library."""

    sqrt, arctan2, minimum, maximum = math.sqrt, math.atan2, min, max


def decide_loop(*columns):
    result = []
    for run in zip(*(column.tolist() for column in columns), strict=True):
        state, (k, s, eta) = run[:4], run[4:]
        won, lost = fate(*state, k, s, Scalars)
        while not (won or lost):
            for _ in range(BETWEEN):
                state = step(*state, k, s, eta, Scalars)
            won, lost = fate(*state, k, s, Scalars)
        result.append(won)
    return np.array(result)


def decide_plain(x, y, total, overlap, k, s, eta):
    state = (x, y, total, overlap)
    for _ in range(PLAIN_STEPS):
        state = step(*state, k, s, eta)
    return state[3] > 0  # a few are on their way still: the sign says where they turn


# Bare steps.


def bare(workers, rounds):
    clocks = {
        "ntkflow, 2 devices": functools.partial(workers["two"], clock_bare, "ntkflow"),
        "ntkflow, 1 device": functools.partial(workers["one"], clock_bare, "ntkflow"),
        "NumPy": functools.partial(workers["one"], clock_bare, "NumPy"),
    }
    times = timing.race(clocks, rounds)
    base, count = times["ntkflow, 2 devices"].run, 36 * BARE_RUNS * BARE_STEPS
    rows = [
        [name, f"{time.run:.3f}", timing.ratio(time.run, base), f"{1e9 * time.run / count:.1f}"]
        for name, time in times.items()
    ]
    remark = f"{36 * BARE_RUNS} runs × {BARE_STEPS} steps, the last state alone is kept."
    columns = ["bare steps", "run, s", "ratio", "ns a step"]
    return timing.Table("Steps without decisions", columns, rows, remark)


def clock_bare(kind):
    return timing.seconds(bare_runner(kind))


@functools.cache
def bare_runner(kind):
    columns = start(BARE_RUNS)
    if kind == "NumPy":

        def numpy_runs():
            state = columns[:4]
            for _ in range(BARE_STEPS):
                state = step(*state, *columns[4:])
            return state

        return numpy_runs

    devices = jax.local_device_count()
    x, y, total, overlap, k, s, eta = (part.reshape(devices, -1) for part in columns)

    mapped = jax.pmap(lambda *run: system.simulate(*run, BARE_STEPS, every=BARE_STEPS)[1])
    state = system.Reduced(x, y, total, overlap, 0 * x)
    problem = system.Problem(k, s, NORM + 0 * k, 1 + 0 * k)
    return lambda: mapped(state, problem, eta)


if __name__ == "__main__":
    main()
