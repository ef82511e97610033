"""One configuration for every test: float64 on, four emulated CPU devices."""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["JAX_NUM_CPU_DEVICES"] = "4"  # read when JAX starts: before the first import of it
os.environ["OPENBLAS_NUM_THREADS"] = "1"  # devices and test workers share the cores already

import jax
import pytest
import threadpoolctl

threadpoolctl.threadpool_limits(1)  # a plugin has imported NumPy before, with threads for all cores

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture(scope="session", autouse=True)
def four_devices():
    assert len(jax.local_devices()) == 4


_SHOWN = pytest.StashKey[bool]()  # of the test before, in this process


@pytest.fixture(autouse=True)
def quick_programs(request):
    """What a reader is shown runs once, and holds of programs that XLA did not optimize too.

    All but the tests: README.md, the docstrings' examples, and the scripts of `examples/`.
    """
    place = request.path.relative_to(request.config.rootpath).parts
    shown = place[0] != "tests" or place[1] == "examples"
    before = request.config.stash.get(_SHOWN, False)
    if shown != before:
        jax.config.update("jax_disable_most_optimizations", shown)
        request.config.stash[_SHOWN] = shown
    if before and not shown:
        jax.clear_caches()  # a test gets no program from there


@pytest.fixture(params=["float32", "float64"])
def dtype(request):
    return request.param
