"""Set the empirical NTKs of Flax networks of growing width beside the limit of each network.

Four architectures (fully connected, residual, convolutional, and a transformer block that attends
without softmax) are written once, as Flax modules in the NTK parameterization of Jacot, Gabriel and
Hongler (2018); `ntkflow.infinite_width` follows each to its kernel at infinite width. The table and
the figure show how far the NTK of a freshly initialized network of width m is from it, over seeds:
‖Θ − Θ^∞‖ / ‖Θ^∞‖ in the Frobenius norm. It falls as 1/√m.
"""

import argparse
import os
import sys
import time
from pathlib import Path

# One JAX device per CPU core, and one thread of LAPACK on each. Both are read when JAX starts.
os.environ.setdefault("JAX_NUM_CPU_DEVICES", str(min(os.cpu_count() or 1, 16)))
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import flax.linen as nn
import jax
import jax.numpy as jnp
import matplotlib.figure
import rich.console
import rich.table
import xarray

from ntkflow import data, empirical_ntk, infinite_width, studies
from ntkflow.layers import Conv, Dense

SCALES = {
    "small": {"widths": [16, 64, 256], "seeds": 16, "samples": 8},
    "paper": {"widths": [16, 32, 64, 128, 256, 512], "seeds": 32, "samples": 16},
}


class FullyConnected(nn.Module):
    """Three hidden layers."""

    width: int

    @nn.compact
    def __call__(self, images):
        h = images.reshape(len(images), -1)
        for _ in range(3):
            h = nn.relu(Dense(self.width, w_std=2**0.5, b_std=0.1)(h))
        return Dense(1)(h)


class Residual(nn.Module):
    """Activations added to the stream, as in the ResNet of Du (2019), chapter 3."""

    width: int

    @nn.compact
    def __call__(self, images):
        h = nn.softplus(Dense(self.width)(images.reshape(len(images), -1)))
        for _ in range(3):
            h = h + 0.3 * nn.softplus(Dense(self.width)(h))
        return Dense(1)(h)


class Convolutional(nn.Module):
    """Two convolutions with a pooling between them, and an average over all positions."""

    width: int

    @nn.compact
    def __call__(self, images):
        h = nn.gelu(Conv(self.width, (3, 3), w_std=2**0.5)(images))
        h = nn.avg_pool(h, (2, 2), strides=(2, 2))
        h = nn.relu(Conv(self.width, (3, 3), w_std=2**0.5)(h))
        return Dense(1)(h.mean(axis=(1, 2)))


class Transformer(nn.Module):
    """Rows of the image as tokens; scores q·k/√d without softmax, over width/4 heads of d = 4.

    The limit is that of many heads (Hron et al. 2020): a fixed number would stay random.
    """

    width: int

    @nn.compact
    def __call__(self, images):
        tokens = images.reshape(*images.shape[:2], -1)
        stream = Dense(self.width)(tokens)
        h = nn.LayerNorm(param_dtype=float)(stream)
        split = (*h.shape[:-1], self.width // 4, 4)
        query, key, value = (Dense(self.width)(h).reshape(split) for _ in range(3))
        scores = jnp.einsum("nshd,nthd->nhst", query, key) / split[-1] ** 0.5
        mixed = jnp.einsum("nhst,nthd->nshd", scores, value) / split[1]
        stream = stream + Dense(self.width)(mixed.reshape(stream.shape))
        h = nn.gelu(Dense(self.width)(nn.LayerNorm(param_dtype=float)(stream)))
        return Dense(1)(h.mean(axis=1))


NETWORKS = {
    "fully connected": FullyConnected,
    "residual": Residual,
    "convolutional": Convolutional,
    "transformer": Transformer,
}


def build_experiment(network, limit):
    """One seed at one width: the distance of its NTK at initialization from the limit."""

    def experiment(key, x, width):
        module = network(width)
        theta = empirical_ntk(module.apply, outputs="trace")(module.init(key, x), x)
        return {"distance": jnp.linalg.norm(theta - limit) / jnp.linalg.norm(limit)}

    return experiment


def show(study, times, console):
    """The table: root mean square over seeds, and the exponent between the ends."""
    table = rich.table.Table(title="‖Θ − Θ^∞‖ / ‖Θ^∞‖ at initialization")
    table.add_column("network")
    for width in study.width.values:
        table.add_column(f"m = {width}", justify="right")
    table.add_column("exponent", justify="right")
    table.add_column("limit in, s", justify="right")
    size = (study["distance"] ** 2).mean("seed") ** 0.5
    for name in study.network.values:
        row = size.sel(network=name)
        ends = row.isel(width=-1) / row.isel(width=0), study.width[-1] / study.width[0]
        exponent = float(jnp.log(ends[0].item()) / jnp.log(ends[1].item()))
        cells = [f"{value:.4f}" for value in row.values]
        table.add_row(str(name), *cells, f"{exponent:.2f}", f"{times[str(name)]:.1f}")
    console.print(table)


def draw(study, path):
    figure = matplotlib.figure.Figure(figsize=(8, 4.2), layout="constrained")
    axes = figure.subplots()
    for name in study.network.values:
        distance = study["distance"].sel(network=name)
        low, high = distance.quantile([0.1, 0.9], "seed")
        axes.plot(study.width, distance.median("seed"), marker="o", label=str(name))
        axes.fill_between(study.width, low, high, alpha=0.2)
    start = float(study["distance"].isel(width=0).median())
    guide = start * (study.width[0] / study.width) ** 0.5
    axes.plot(study.width, guide, color="black", linestyle="--", label="1/√m")
    axes.set(xscale="log", yscale="log", xlabel="width m", ylabel="‖Θ − Θ^∞‖ / ‖Θ^∞‖")
    axes.set_title("empirical NTK against infinite_width of the same module")
    axes.set_xticks(study.width.values, [str(width) for width in study.width.values], minor=False)
    axes.minorticks_off()
    figure.legend(loc="outside right upper")
    figure.savefig(path, dpi=150)


def main(arguments=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scale", choices=sorted(SCALES), default="small")
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--widths", type=int, nargs="+", help="multiples of 4")
    parser.add_argument("--seeds", type=int)
    parser.add_argument("--samples", type=int)
    parser.add_argument("--output", type=Path, default=Path("results"))
    options = parser.parse_args(arguments)
    chosen = dict(SCALES[options.scale])
    chosen.update({k: v for k, v in vars(options).items() if k in chosen and v is not None})
    options.output.mkdir(parents=True, exist_ok=True)
    console = rich.console.Console(width=None if sys.stdout.isatty() else 110)
    start = time.perf_counter()

    pixels = data.load("digits", unit_norm=True, limit=chosen["samples"]).x
    x = 8 * jnp.asarray(pixels, "float32").reshape(-1, 8, 8, 1)
    studied, times = [], {}
    for name in options.networks:
        network = NETWORKS[name]
        begun = time.perf_counter()
        limit = jax.block_until_ready(infinite_width(network(4))(x).ntk)
        times[name] = time.perf_counter() - begun
        study = studies.run(
            build_experiment(network, limit),
            seeds=chosen["seeds"],
            grid={"width": chosen["widths"]},
            args=(x,),
            progress=sys.stdout.isatty(),
        )
        studied.append(study.expand_dims(network=[name]))
    study = xarray.concat(studied, "network")

    show(study, times, console)
    draw(study, options.output / "infinite_width.png")
    studies.save(study, options.output / "infinite_width.nc")
    console.print(
        f"{chosen['seeds']} seeds, {chosen['samples']} digits. Figure "
        f"{options.output}/infinite_width.png, dataset {options.output}/infinite_width.nc: "
        f"`ntkflow.studies.load` reads it. {time.perf_counter() - start:.0f} s in all."
    )
    return study


if __name__ == "__main__":
    main()
