"""Compute the kernels of neural_tangents.npz with neural-tangents, in float64.

neural-tangents needs an old JAX, hence an environment of its own, with Python 3.11 or older:

    pip install neural-tangents==0.6.5 'jax==0.4.23' 'jaxlib==0.4.23' 'numpy<2' 'scipy<1.13'
    JAX_PLATFORMS=cpu JAX_ENABLE_X64=1 python make_neural_tangents.py

The file holds `inputs/{inputs}/x1` and `/x2`; for each case an array (2, n1, n1 + n2), the NNGP and
the NTK of x1 with x1 and, beside it, of x1 with x2; and `names` and `rounding`: by how much of its
largest entry each case's kernels move when a rotation of the channels of the inputs, which
changes nothing in exact arithmetic, changes the roundings.
"""

import functools
import sys
import warnings
from pathlib import Path

import numpy as np

FILE = Path(__file__).with_name("neural_tangents.npz")
ROTATIONS = 6
SHAPES = {
    "vectors": (5,),
    "unit": (5,),
    "series": (9, 2),
    "images": (9, 7, 2),
    "volumes": (4, 3, 5, 2),
    "squares": (8, 8, 3),
}
ALL, STDS = (1, 2, 3, 6), (1.3, 0.4)
DEGREE = 200  # of Gauss–Hermite quadrature


def make_inputs() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Three and two samples of each shape; those of `unit` have length √5."""
    inputs = {}
    for seed, (name, shape) in enumerate(SHAPES.items()):
        x = np.random.default_rng(seed).normal(size=(5, *shape))
        if name == "unit":
            x *= np.sqrt(5) / np.linalg.norm(x, axis=1, keepdims=True)
        inputs[name] = x[:3], x[3:]
    return inputs


def expectation(phi, cut=0.0):
    """E[φ(u) φ(v)] by nested Gauss–Legendre quadrature, for φ with a kink at `cut`."""
    import jax
    import jax.numpy as jnp

    nodes, weights = np.polynomial.legendre.leggauss(60)

    def panels(*cuts):
        edges = jnp.sort(jnp.clip(jnp.stack([-12.0, *cuts, 12.0]), -12, 12))
        halves = jnp.diff(edges)[:, None] / 2
        z = halves * nodes + edges[:-1, None] + halves
        return z.ravel(), (halves * weights * jnp.exp(-(z**2) / 2)).ravel() / np.sqrt(2 * np.pi)

    def integral(cov12, var1, var2):
        a, b = jnp.sqrt(var1), jnp.sqrt(var2)
        rho = cov12 / (a * b)
        spread = jnp.sqrt(jnp.maximum(1 - rho**2, 1e-24))

        def given(z):
            w, density = panels((cut / b - rho * z) / spread)
            return density @ phi(b * (rho * z + spread * w))

        z, density = panels(cut / a, cut / (b * rho))
        return density @ (phi(a * z) * jax.vmap(given)(z))

    return integral


def activations(stax) -> dict:
    """φ as a layer, inputs, standard deviations of weights and biases, depths."""
    import jax
    import jax.numpy as jnp

    def smooth(fn, degree=DEGREE):
        return lambda: stax.ElementwiseNumerical(fn, degree)

    def kinked(fn, slope):
        return lambda: stax.Elementwise(fn, expectation(fn), expectation(slope))

    def selu_slope(x):
        return 1.0507009873554805 * jnp.where(x > 0, 1.0, 1.6732632423543772 * jnp.exp(x))

    def step(x):
        return jnp.where(x >= 0, 1.0, 0.0)

    def step_kernel(cov12, var1, var2):
        sine = jnp.sqrt(jnp.maximum(var1 * var2 - cov12**2, 0.0))
        return 0.5 - jnp.arctan2(sine, cov12) / (2 * jnp.pi)

    def of(make, inputs="vectors", stds=STDS, depths=ALL):
        return make, inputs, stds, depths

    return {
        "linear": of(stax.Identity, depths=(1, 3)),
        "relu": of(stax.Relu, stds=(2**0.5, 0.3)),
        "leaky_relu": of(lambda: stax.LeakyRelu(0.2)),
        "two_slopes": of(lambda: stax.ABRelu(-0.3, 1.7), stds=(0.8, 0.4)),
        "abs": of(stax.Abs, stds=(1.0, 0.4)),
        "erf": of(stax.Erf),
        "erf_affine": of(lambda: stax.Erf(0.7, 1.5, 0.2)),
        "sigmoid_like": of(stax.Sigmoid_like),
        "gelu": of(stax.Gelu),
        "sin": of(stax.Sin),
        "cos": of(stax.Cos),
        "sin_affine": of(lambda: stax.Sin(1.2, 0.8, 0.3)),
        "rbf": of(lambda: stax.Rbf(0.7), stds=(1.0, 0.4)),
        "gabor": of(stax.Gabor),
        "exp": of(stax.Exp, stds=(0.4, 0.1)),
        "exp_affine": of(lambda: stax.Exp(1.1, -0.6), stds=(0.5, 0.1)),
        "gaussian": of(stax.Gaussian),
        "gaussian_affine": of(lambda: stax.Gaussian(1.4, -0.3)),
        "sign": of(stax.Sign),
        "square": of(lambda: stax.Monomial(2), "unit", (3**-0.5, 0.1), (1, 2, 3)),
        "cube": of(lambda: stax.Monomial(3), "unit", (0.5, 0.1), (1, 2, 3)),
        "power_4": of(lambda: stax.Monomial(4), "unit", (0.5, 0.1), (1, 2)),
        "power_5": of(lambda: stax.Monomial(5), "unit", (0.5, 0.1), (1, 2)),
        "polynomial": of(lambda: stax.Polynomial((0.3, 0.5, 0.2, -0.05)), stds=(1.0, 0.2)),
        "hermite_2": of(lambda: stax.Hermite(2), "unit", (1.0, 0.0)),
        "hermite_3": of(lambda: stax.Hermite(3), "unit", (1.0, 0.0)),
        # RectifiedMonomial is NaN on the diagonal.
        "step": of(lambda: stax.Elementwise(step, step_kernel, lambda *covariances: 0.0)),
        "relu_squared": of(
            kinked(lambda x: jax.nn.relu(x) ** 2, lambda x: 2 * jax.nn.relu(x)),
            *("unit", (0.8, 0.2), (1, 2, 3)),
        ),
        "tanh": of(smooth(jnp.tanh)),
        "sigmoid": of(smooth(jax.nn.sigmoid)),
        "softplus": of(smooth(jax.nn.softplus)),
        "silu": of(smooth(jax.nn.silu)),
        "mish": of(smooth(lambda x: x * jnp.tanh(jax.nn.softplus(x)))),
        "gelu_tanh": of(smooth(jax.nn.gelu)),
        "elu": of(kinked(jax.nn.elu, lambda x: jnp.where(x > 0, 1.0, jnp.exp(x)))),
        "selu": of(kinked(jax.nn.selu, selu_slope), stds=(1.0, 0.4)),
    }


def fully_connected(stax, width) -> dict:
    cases = {}
    for name, (phi, inputs, stds, depths) in activations(stax).items():
        for depth in depths:
            for suffix, b_std in {"": None, "/bias": stds[1]}.items():
                if suffix and not b_std:
                    continue
                hidden = [
                    layer
                    for _ in range(depth)
                    for layer in (stax.Dense(width, stds[0], b_std), phi())
                ]
                network = stax.serial(*hidden, stax.Dense(1, stds[0], b_std))
                cases[f"dense/{name}/{depth}{suffix}"] = network, inputs
    return cases


def readouts(stax) -> dict:
    return {"flatten": stax.Flatten, "average": stax.GlobalAvgPool}


def convolutional(stax, width) -> dict:
    import jax.numpy as jnp

    cases = {}
    serial, Dense, Relu = stax.serial, stax.Dense, stax.Relu
    Flatten, GlobalAvgPool = stax.Flatten, stax.GlobalAvgPool

    def grid(inputs, kernels, padding, strides, layer=stax.Conv, first="convolution"):
        for readout, reduce in readouts(stax).items():
            network = serial(
                layer(width, kernels[0], strides, padding, 1.4, 0.2),
                Relu(),
                stax.Conv(width, kernels[1], None, padding, 1.3, 0.1),
                Relu(),
                reduce(),
                Dense(1, 1.1, 0.3),
            )
            steps = "x".join(map(str, strides))
            cases[f"{first}/{inputs}/{padding}/{steps}/{readout}"] = network, inputs

    for padding in ("SAME", "VALID", "CIRCULAR"):
        for strides in ((1,), (2,)):
            grid("series", ((3,), (2,)), padding, strides)
            grid("series", ((3,), (2,)), padding, strides, stax.ConvTranspose, "transposed")
        for strides in ((1, 1), (2, 2), (2, 1)):
            grid("images", ((3, 3), (2, 3)), padding, strides)
        grid("images", ((3, 2), (2, 3)), padding, (2, 1), stax.ConvTranspose, "transposed")
        grid("volumes", ((2, 3, 3), (3, 1, 2)), padding, (1, 1, 1))
    grid("volumes", ((2, 3, 3), (3, 1, 2)), "SAME", (2, 1, 2))

    def c(kernel, w_std=1.0, b_std=None, padding="SAME", features=width):
        return stax.Conv(features, kernel, None, padding, w_std, b_std)

    start = serial(c((3, 3), 1.4, 0.2), Relu())
    rows = jnp.linspace(-1.0, 2.0, 9)
    between = {
        "average": stax.AvgPool((2, 2), (2, 2)),
        "average_same": stax.AvgPool((3, 3), (2, 2), "SAME"),
        "average_edges": stax.AvgPool((3, 3), (2, 2), "SAME", normalize_edges=True),
        "average_circular": stax.AvgPool((2, 3), None, "CIRCULAR"),
        "average_overlapping": stax.AvgPool((2, 3), (1, 2)),
        "sum": stax.SumPool((2, 2), (2, 2)),
        "sum_same": stax.SumPool((3, 2), (2, 1), "SAME"),
        "every_second": stax.Index(stax.Slice[:, ::2, 1::2]),
        "crop": stax.Index(stax.Slice[:, 2:6, :4]),
        "reverse": stax.Index(stax.Slice[:, ::-1]),
    }
    # After an odd number of convolutions ImageResize takes rows for columns.
    for method, shape in {"linear": (12, 10), "nearest": (5, 10)}.items():
        resize = stax.ImageResize((-1, *shape, -1), method)
        between[f"resized_{method}"] = serial(c((2, 2)), Relu(), resize)
    for name, pool in between.items():
        for readout, reduce in readouts(stax).items():
            network = serial(start, pool, c((2, 2), b_std=0.1), Relu(), reduce(), Dense(1))
            cases[f"pooling/{name}/{readout}"] = network, "images"
        if name.startswith("average"):
            network = serial(c((3, 3)), pool, Relu(), Flatten(), Dense(1))
            cases[f"pooling/{name}/before_activation"] = network, "images"
            cases[f"pooling/{name}/last"] = serial(start, pool, Flatten(), Dense(1)), "images"
    row = stax.DotGeneral(rhs=rows, dimension_numbers=(((1,), (0,)), ((), ())))
    last = {
        "weighted_rows": (row, c((2,), b_std=0.1), Relu(), Flatten(), Dense(1)),
        "sum": (stax.GlobalSumPool(), Dense(1)),
        "one_position": (stax.Index(stax.Slice[:, 3, 2]), Dense(1)),
        "one_row": (stax.Index(stax.Slice[:, 3]), GlobalAvgPool(), Dense(1)),
        "no_dense": (c((3, 3), features=1), GlobalAvgPool()),
        "perceptron_flatten": (Flatten(), Dense(width, 1.3, 0.1), Relu(), Dense(1)),
        "perceptron_average": (GlobalAvgPool(), Dense(width, 1.3, 0.1), stax.Erf(), Dense(1)),
        "per_position": (Dense(width, 1.3, 0.1), Relu(), GlobalAvgPool(), Dense(1)),
        "scalar": (GlobalAvgPool(), Dense(1)),
    }
    for name, layers in last.items():
        cases[f"readout/{name}"] = serial(start, *layers), "images"
    for name in ("Erf", "Gelu", "Abs", "Sin"):
        phi = getattr(stax, name)
        for readout, reduce in readouts(stax).items():
            layers = c((3, 3)), phi(), c((3, 3), padding="CIRCULAR"), phi(), reduce(), Dense(1)
            cases[f"convolution/{name.lower()}/{readout}"] = serial(*layers), "images"
    tanh, softplus = (activations(stax)[name][0] for name in ("tanh", "softplus"))
    he = {"W_std": 2**0.5, "b_std": 0.2, "parameterization": "standard"}
    for readout, reduce in readouts(stax).items():
        layers = c((3,)), tanh(), c((3,)), softplus(), reduce(), Dense(1)
        cases[f"convolution/tanh_softplus/{readout}"] = serial(*layers), "series"
        cases[f"standard/convolution/{readout}"] = (
            serial(
                stax.Conv(6, (3, 3), None, "SAME", **he),
                Relu(),
                stax.Conv(10, (3, 2), (2, 1), "SAME", **he),
                Relu(),
                reduce(),
                Dense(1, **he),
            ),
            "images",
        )
    layers = Flatten(), Dense(width, 1.2, 0.2), Relu(), Dense(1)
    cases["dense/images"] = serial(*layers), "images"
    return cases


def branching(stax, width) -> dict:
    serial, Dense, Relu, Erf, Gelu = stax.serial, stax.Dense, stax.Relu, stax.Erf, stax.Gelu
    Identity, Norm = stax.Identity, stax.LayerNorm
    d = functools.partial(Dense, width)
    stem, head = d(1.2, 0.2), serial(Relu(), Dense(1, 1.1, 0.1))

    def join(fan_in, *branches):
        return serial(stax.FanOut(len(branches)), stax.parallel(*branches), fan_in)

    def add(*branches):
        return join(stax.FanInSum(), *branches)

    def concatenate(*branches, axis=-1):
        return join(stax.FanInConcat(axis), *branches)

    def multiply(*branches):
        return join(stax.FanInProd(), *branches)

    def skip(*branch):
        return add(serial(*branch), Identity())

    def c(kernel, w_std=1.0, b_std=None, strides=None, padding="SAME", features=width):
        return stax.Conv(features, kernel, strides, padding, w_std, b_std)

    vectors = {
        "residual/1": (stem, skip(Relu(), d(1.3, 0.1)), head),
        "residual/5": (stem, *[skip(Relu(), d(1.3, 0.1)) for _ in range(5)], head),
        "residual/erf": (stem, *[skip(Erf(), d(1.3, 0.1)) for _ in range(3)], Erf(), Dense(1)),
        "residual/two_layers": (stem, skip(Relu(), d(1.3), Gelu(), d(0.7, 0.1)), head),
        "residual/scaled": (stem, *[skip(Relu(), d(0.7)) for _ in range(3)], head),
        "residual/linear_head": (stem, skip(Relu(), d(1.3, 0.1)), Dense(1)),
        "residual/from_inputs": (add(serial(d(), Erf(), d(1.3)), d(0.6, 0.1)), head),
        "residual/nested": (
            stem,
            skip(Relu(), d(1.3), skip(Relu(), d(0.8)), Relu(), d(0.9)),
            head,
        ),
        "residual/three": (
            stem,
            add(
                serial(Relu(), d(1.3)),
                serial(Erf(), d(1.1), Relu(), d(0.8, 0.2)),
                serial(stax.Abs(), d(0.9)),
            ),
            head,
        ),
        "residual/outputs": (stem, add(serial(Relu(), Dense(1)), serial(Erf(), Dense(1)))),
        "concatenation/equal": (
            stem,
            concatenate(serial(Relu(), d(1.3), Relu()), serial(Erf(), d(), Erf())),
            *(d(1.2, 0.1), head),
        ),
        "concatenation/uneven": (
            concatenate(serial(d(1.3, 0.2), Relu()), serial(Dense(3 * width), stax.Sin())),
            *(d(1.2, 0.1), head),
        ),
        "concatenation/output": (concatenate(d(1.3, 0.2), serial(d(), Relu())), Dense(1)),
        "product/bilinear": (multiply(d(1.3, 0.2), d()), Dense(1, 1.2, 0.1)),
        "product/gate": (
            stem,
            Gelu(),
            multiply(serial(d(1.4), stax.Sigmoid_like()), d(1.1)),
            *(d(1.2, 0.1), head),
        ),
        "product/activations": (
            stem,
            multiply(serial(Relu(), d(), Erf()), serial(Erf(), d(1.3, 0.2), Relu())),
            *(d(1.2, 0.1), head),
        ),
        "product/three": (
            stem,
            Relu(),
            multiply(d(1.2), serial(d(1.1, 0.1), Relu()), serial(d(), Erf())),
            *(d(1.2, 0.1), head),
        ),
        "product/in_residual": (
            stem,
            skip(Relu(), multiply(d(1.3), serial(d(), Erf())), d(1.2, 0.1)),
            head,
        ),
        "norm/1": (stem, Norm(eps=1e-6), head),
        "norm/epsilon": (stem, Norm(eps=0.3), Relu(), d(1.3, 0.1), Norm(eps=0.1), head),
        "norm/by_hand": (stem, Norm(eps=0.1), Gelu(), Dense(1)),
        "norm/residual": (
            stem,
            *[skip(Norm(eps=1e-6), Relu(), d(1.3, 0.1)) for _ in range(3)],
            Norm(eps=1e-6),
            head,
        ),
        "norm/head": (stem, Relu(), d(1.2), Norm(eps=1e-5), Dense(1)),
        # The rate of neural-tangents is the rate of what stays.
        "dropout/1": (stem, Relu(), stax.Dropout(0.8), Dense(1)),
        "dropout/2": (
            *(stem, Erf(), stax.Dropout(0.7), d(1.3, 0.1), Relu(), stax.Dropout(0.5)),
            Dense(1),
        ),
        "dropout/before_dense": (stem, stax.Dropout(0.8), d(1.3, 0.1), head),
        "dropout/residual": (stem, skip(Relu(), stax.Dropout(0.7), d(1.3, 0.1)), head),
    }

    def attention(qk_std=1.0, ov_std=1.0, b_std=None, mechanism="SOFTMAX", **options):
        return stax.GlobalSelfAttention(
            *(width, width, width, max(2, width // 4)),
            W_key_std=qk_std,
            W_out_std=ov_std,
            b_std=b_std,
            attention_mechanism=mechanism,
            **options,
        )

    untied = {"mechanism": "IDENTITY", "linear_scaling": False}
    finish = serial(Relu(), stax.GlobalAvgPool(), Dense(1))
    series = {
        "concatenation/positions": (
            concatenate(c((3,), b_std=0.1), c((2,), 1.2, padding="VALID"), axis=1),
            *(Relu(), stax.Flatten(), Dense(1)),
        ),
        "attention/identity/inputs": (attention(b_std=0.3, **untied), finish),
        "attention/identity/two": (
            d(1.2, 0.2),
            *[attention(ov_std=0.6, **untied) for _ in range(2)],
            finish,
        ),
        "attention/softmax/inputs": (attention(1.7, b_std=0.3), finish),
        "attention/softmax/two": (d(1.2, 0.2), attention(), Erf(), attention(1.5), finish),
        "attention/softmax/relu": (d(1.2), Relu(), attention(mechanism="RELU"), finish),
        "attention/softmax/abs": (d(1.2), Relu(), attention(mechanism="ABS"), finish),
        "attention/softmax/linear": (d(1.2), Erf(), attention(mechanism="IDENTITY"), finish),
    }
    for name in ("sum", "concat"):
        for suffix, values_too in {"": False, "_values": True}.items():
            layer = attention(
                1.3, pos_emb_type=name.upper(), W_pos_emb_std=0.7, val_pos_emb=values_too
            )
            series[f"attention/positions/{name}{suffix}"] = d(1.2), Relu(), layer, finish
    images = {"attention/image": (c((3, 3)), Relu(), attention(), finish)}
    for readout, reduce in readouts(stax).items():
        end = serial(Relu(), reduce(), Dense(1))
        over_all = functools.partial(Norm, (1, 2, 3), eps=1e-6)
        series |= {
            f"attention/identity/{readout}": (
                *(d(1.2, 0.2), Relu(), attention(1.1, 0.8, **untied), end),
            ),
            f"attention/softmax/{readout}": (
                *(d(1.2, 0.2), Relu(), attention(1.1, 0.8, 0.3), end),
            ),
        }
        images |= {
            f"residual/convolution/{readout}": (
                c((3, 3)),
                *[skip(Relu(), c((3, 3), 1.3, 0.1)) for _ in range(2)],
                end,
            ),
            f"concatenation/convolution/{readout}": (
                concatenate(serial(c((3, 3)), Relu()), serial(c((1, 2)), Erf())),
                *(c((2, 2), b_std=0.1), end),
            ),
            f"product/convolution/{readout}": (
                multiply(serial(c((3, 3)), Relu()), serial(c((1, 2), b_std=0.2), Erf())),
                *(c((2, 2), b_std=0.1), end),
            ),
            f"norm/convolution/{readout}": (
                *(c((3, 3)), Norm(eps=1e-6), Relu(), c((3, 3), b_std=0.1), Norm(eps=0.1), end),
            ),
            f"norm/positions/{readout}": (
                *(c((3, 3)), over_all(), Relu(), c((3, 2), b_std=0.1, strides=(2, 1))),
                *(over_all(), end),
            ),
            f"dropout/convolution/{readout}": (
                *(c((3, 3)), Relu(), stax.Dropout(0.8), c((2, 2), b_std=0.1), Relu()),
                *(stax.Dropout(0.6), reduce(), Dense(1)),
            ),
        }

    def wide_resnet(blocks):
        layers = [c((3, 3), features=width // 2)]
        for group, channels in enumerate((width // 2, width, 2 * width)):
            for block in range(blocks):
                strides = (2, 2) if group > 0 and block == 0 else (1, 1)
                shortcut = Identity()
                if block == 0:
                    shortcut = c((3, 3), strides=strides, features=channels)
                main = serial(
                    Relu(),
                    c((3, 3), strides=strides, features=channels),
                    Relu(),
                    c((3, 3), features=channels),
                )
                layers.append(add(main, shortcut))
        return *layers, stax.AvgPool((2, 2)), stax.Flatten(), Dense(1)

    def transformer(blocks):
        layers = [d(1.0, 0.2)]
        for _ in range(blocks):
            layers.append(skip(Norm(eps=1e-6), attention(1.2)))
            layers.append(skip(Norm(eps=1e-6), Dense(2 * width, 1.0, 0.1), Gelu(), d(1.1)))
        return *layers, stax.GlobalAvgPool(), Dense(1)

    def standard(w_std=1.0, b_std=0.0, depth=2):
        dense = functools.partial(Dense, W_std=w_std, b_std=b_std, parameterization="standard")
        hidden = [layer for i in range(depth) for layer in (dense(12 + 4 * i), Relu())]
        return *hidden, dense(1)

    other = {
        "standard/1": standard(depth=1),
        "standard/3": standard(depth=3),
        "standard/no_bias": standard(2**0.5, None),
        "standard/random_bias": standard(2**0.5, 0.3),
        "standard/lecun_normal": standard(),
    }
    cases = {name: (serial(*layers), "vectors") for name, layers in (vectors | other).items()}
    cases |= {name: (serial(*layers), "series") for name, layers in series.items()}
    cases |= {name: (serial(*layers), "images") for name, layers in images.items()}
    cases |= {f"wide_resnet/{n}": (serial(*wide_resnet(n)), "squares") for n in (1, 2)}
    return cases | {f"transformer/{n}": (serial(*transformer(n)), "series") for n in (1, 2)}


def networks(stax, width=8) -> dict:
    """Name → (layer of neural-tangents, name of its inputs); architectures.py has the modules."""
    return {
        **fully_connected(stax, width),
        **convolutional(stax, width),
        **branching(stax, width),
    }


def kernels(kernel_fn, x1, x2) -> np.ndarray:
    """NNGP and NTK of x1 with x1 and with x2, side by side."""
    own, cross = (kernel_fn(x1, x, ("nngp", "ntk")) for x in (None, x2))
    return np.stack([np.concatenate(pair, axis=1) for pair in zip(own, cross, strict=True)])


def rotations(channels: int) -> list[np.ndarray]:
    draws = np.random.default_rng(11).normal(size=(ROTATIONS, channels, channels))
    return [np.linalg.qr(draw)[0] for draw in draws]


def main() -> None:
    import jax
    from neural_tangents import stax

    if not jax.config.jax_enable_x64:
        raise SystemExit("Set JAX_ENABLE_X64=1: the reference is float64.")
    warnings.simplefilter("ignore")
    inputs, arrays, rounding = make_inputs(), {}, {}
    for name, (x1, x2) in inputs.items():
        arrays[f"inputs/{name}/x1"], arrays[f"inputs/{name}/x2"] = x1, x2
    for name, ((_, _, kernel_fn), case_inputs) in networks(stax).items():
        x1, x2 = inputs[case_inputs]
        values = kernels(kernel_fn, x1, x2)
        rotated = [kernels(kernel_fn, x1 @ r, x2 @ r) for r in rotations(x1.shape[-1])]
        moved = np.abs(np.array(rotated) - values).max(axis=(0, 2, 3))
        rounding[name] = float((moved / np.abs(values).max(axis=(1, 2))).max())
        arrays[name] = values
        print(f"{name:50} {rounding[name]:.1e}", file=sys.stderr)
    arrays["names"] = np.array(list(rounding))
    arrays["rounding"] = np.array(list(rounding.values()))
    np.savez_compressed(FILE, **arrays)


if __name__ == "__main__":
    main()
