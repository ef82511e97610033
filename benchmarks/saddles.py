"""Escape times on the octopus of Du (2019), chapter 7: runs per second beside NumPy.

Perturbed descent until all of d = 10 saddle points are left, and 2000 steps of gradient descent in
arithmetic that does not underflow, from many starts: beside NumPy, all runs at once, and beside
NumPy, one run after another. And gradient descent until the end, by the closed form that replaces
its 10⁷ steps. In float64, for two cores.
"""

import functools
import math
import os

import jax
import jax.numpy as jnp
import numpy as np
import timing

from ntkflow import over_devices, over_seeds
from ntkflow.systems import saddles as system

D, L, GAMMA, TAU = 10, math.e, 1.0, math.e
ETA, RADIUS, THRESHOLD, WAITING = 0.25 / L, TAU / 100, GAMMA * TAU / 100, 1
CONSTANTS = system.Constants(L, GAMMA, TAU)
RUNS, LOOP_RUNS, STEPS, LIMIT = 2000, 10, 2000, 2000
# How many runs at once: under vmap each step of perturbed descent draws noise, wanted or not.
WAYS = {"perturbed": 1, "descent": RUNS}


def main() -> None:
    options = timing.arguments(__doc__)
    load = os.getloadavg()[0]
    common = {"JAX_PLATFORMS": "cpu", "JAX_ENABLE_X64": "1", "OPENBLAS_NUM_THREADS": "1"}
    workers = {
        "1": timing.Worker(JAX_NUM_CPU_DEVICES="1", **common),
        "2": timing.Worker(JAX_NUM_CPU_DEVICES="2", **common),
    }
    tables = [
        race(workers, options.rounds, "perturbed", "Perturbed descent, until it has escaped"),
        race(workers, options.rounds, "descent", f"Descent, {STEPS} steps in scaled arithmetic"),
    ]
    for worker in workers.values():
        worker.close()
    timing.report(__file__, tables, load, options.markdown)


def race(workers, rounds, what, title):
    places = {  # contender → worker, function, runs
        "ntkflow, 2 devices": ("2", ours, RUNS),
        "ntkflow, 1 device": ("1", ours, RUNS),
        "ntkflow, 1 device, the other way": ("1", other_way, RUNS),
        "NumPy, all runs at once": ("1", numpys, RUNS),
        "NumPy, one after another": ("1", numpys, LOOP_RUNS),
    }
    if what == "descent":
        places["ntkflow, 1 device, to the end"] = ("1", closed_form, RUNS)

    def ask(function, place):
        worker, contender, runs = place
        return workers[worker](function, contender, what, runs)

    clocks = {name: functools.partial(ask, clock, place) for name, place in places.items()}
    times = timing.race(clocks, rounds)
    found = {name: ask(result, place) for name, place in places.items()}
    base = RUNS / times["ntkflow, 2 devices"].run
    rows = []
    for name, time in times.items():
        speed = places[name][2] / time.run
        start = "-" if "NumPy" in name else f"{time.start:.1f}"
        rows.append([name, f"{speed:,.0f}", f"{base / speed:.3g}", f"{time.run:.3f}", start])
    remark = check_perturbed(found) if what == "perturbed" else check_descent(found)
    ways = ("over_seeds(batch=1), a loop", "vmap")
    ours_, other = ways if WAYS[what] == 1 else ways[::-1]
    remark = (
        f"d = {D}, L = e, γ = 1, τ = e, η = 1/(4L); {RUNS} runs, {LOOP_RUNS} of NumPy's one after "
        "another. Ratio: how many times faster ntkflow on 2 devices is. Runs are mapped by "
        f"{ours_}; the other way: {other}. {remark}"
    )
    return timing.Table(title, ["", "runs/s", "ratio", "run, s", "start, s"], rows, remark)


def check_perturbed(found):
    """The contenders' noise differs: T_d agrees in the mean."""
    last = {name: times[:, -1] for name, times in found.items()}
    ours_ = last["ntkflow, 2 devices"]
    for name, times in last.items():
        error = math.hypot(*(np.std(x) / math.sqrt(len(x)) for x in (times, ours_)))
        if not abs(times.mean() - ours_.mean()) < 4 * error:
            raise SystemExit(
                f"{name} escapes at {times.mean():.1f}, ntkflow at {ours_.mean():.1f}."
            )
    mean = ", ".join(f"{times.mean():.1f}" for times in last.values())
    return f"Mean T_{D}: {mean}, in the order of the rows."


def check_descent(found):
    """The starts are equal: so are all times within the steps."""
    reference = found["ntkflow, 2 devices"]
    for name, times in found.items():
        times = np.where(times > STEPS, np.inf, times)
        if not np.array_equal(times, reference[: len(times)]):
            raise SystemExit(f"{name} and ntkflow give other escape times.")
    (closed,) = (times for name, times in found.items() if "end" in name)
    count = np.isfinite(reference).sum()
    return (
        f"All contenders give the same escape times, {count} within the steps. Descent has left "
        f"all saddle points after {np.median(closed[:, -1]):.1e} steps in the median; the closed "
        "form of the last row knows when."
    )


def clock(contender, what, runs):
    return timing.seconds(functools.partial(contender, what, runs))


def result(contender, what, runs):
    return np.asarray(contender(what, runs))


@functools.cache
def keys(runs):
    return jax.vmap(jax.random.key)(jnp.arange(runs))


def start_of(key):
    return jax.random.uniform(key, (D,), minval=-1, maxval=1)


@functools.cache
def starts(runs):
    return np.asarray(jax.vmap(start_of)(keys(runs)))


# ntkflow.


def ours(what, runs):
    return program(what, WAYS[what])(keys(runs))


def other_way(what, runs):
    return program(what, {1: RUNS, RUNS: 1}[WAYS[what]])(keys(runs))


def closed_form(what, runs):
    del what
    return program("closed form", runs)(keys(runs))


@functools.cache
def program(what, batch):
    """A function of keys, that gives the escape times T_k, shape (runs, d)."""

    def experiment(key):
        x = start_of(key)
        if what == "closed form":
            return system.escape_times(x, CONSTANTS, step_size=ETA).stage
        if what == "descent":
            run = system.simulate(x, CONSTANTS, step_size=ETA, steps=STEPS, every=STEPS)
            return run.times.stage
        noise = {"radius": RADIUS, "gradient_threshold": THRESHOLD, "waiting_time": WAITING}
        key = jax.random.fold_in(key, 1)
        return system.perturbed_escape_times(
            key, x, CONSTANTS, step_size=ETA, limit=LIMIT, **noise
        ).stage

    study = over_seeds(experiment, batch=batch)
    return over_devices(study) if jax.local_device_count() > 1 else jax.jit(study)


# NumPy, as a careful user writes it: for one run or for all of them.


def numpys(what, runs):
    x, generator = starts(runs), np.random.default_rng(0)
    run = {"perturbed": numpy_perturbed, "descent": numpy_descent}[what]
    if runs == LOOP_RUNS:
        return np.concatenate([run(row[None], generator) for row in x])
    return run(x, generator)


def numpy_multipliers(z):
    """c of ∂f/∂x_j = c_j x_j where |x_j| ≤ τ."""
    before = np.concatenate([np.full_like(z[:, :1], 2 * TAU), z[:, :-1]], axis=1)
    t = np.clip(before / TAU - 1, 0, 1)
    return 2 * (L - (L + GAMMA) * t**3 * (10 - 15 * t + 6 * t**2))


def numpy_gradient(x, c=None):
    z = np.abs(x)
    c = numpy_multipliers(z) if c is None else c
    t = np.clip(z / TAU - 1, 0, 1)
    spline = -2 * GAMMA * (1 + t) - (14 * L - 10 * GAMMA) * t**2 + (10 * L - 6 * GAMMA) * t**3
    far = np.where(z < 2 * TAU, TAU * spline, 2 * L * (z - 4 * TAU))
    slope = np.where(z <= TAU, c * z, far)
    slope[:, :-1] -= 30 * (L + GAMMA) / TAU * (t * (1 - t))[:, :-1] ** 2 * z[:, 1:] ** 2
    return np.where(x < 0, -slope, slope)


def note(times, t, x):
    behind = np.logical_and.accumulate(np.abs(x) >= 2 * TAU, axis=1)
    times[behind & (times > t)] = t


def numpy_perturbed(x, generator):
    x, times = x.copy(), np.full(x.shape, np.inf)
    last = np.full(len(x), -WAITING - 1)
    note(times, 0, x)
    for t in range(LIMIT):
        slope = numpy_gradient(x)
        noisy = (np.linalg.norm(slope, axis=1) <= THRESHOLD) & (t - last > WAITING)
        if noisy.any():
            noise = generator.normal(size=(noisy.sum(), D))
            length = RADIUS * generator.uniform(size=(len(noise), 1)) ** (1 / D)
            x[noisy] += length * noise / np.linalg.norm(noise, axis=1, keepdims=True)
            slope[noisy], last[noisy] = numpy_gradient(x[noisy]), t
        x -= ETA * slope
        note(times, t + 1, x)
        if np.isfinite(times[:, -1]).all():
            break
    return times


def numpy_descent(x, generator):
    del generator
    mantissa, exponent = np.frexp(x)
    times = np.full(x.shape, np.inf)
    note(times, 0, x)
    for t in range(STEPS):
        x = np.ldexp(mantissa, exponent)
        c = numpy_multipliers(np.abs(x))
        small, shift = np.frexp(mantissa * (1 - ETA * c))
        large, other = np.frexp(x - ETA * numpy_gradient(x, c))
        near = np.abs(x) <= TAU
        mantissa = np.where(near, small, large)
        exponent = np.where(near, exponent + shift, other)
        note(times, t + 1, np.ldexp(mantissa, exponent))
    return times


if __name__ == "__main__":
    main()
