"""A kernel on disk: stopped anywhere it goes on, equal to the last bit; no folder is another's."""

import errno
import functools
import json
import os
import signal
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import MLP, compiled, samples

from ntkflow.fingerprint import contents
from ntkflow.kernels.blocks import folder as folders, in_blocks, plan
from ntkflow.kernels.empirical import empirical_ntk
from ntkflow.kernels.recursion import fully_connected_relu


def gram(x1, x2=None):
    return x1 @ (x1 if x2 is None else x2).T


INFINITE = functools.partial(fully_connected_relu, depth=1)
X = np.random.default_rng(0).normal(size=(19, 4))


@functools.cache
def weights(seed):
    return compiled(MLP(3).init)(jax.random.key(seed), samples(0, 1, 4))


def empirical(seed=1):
    return functools.partial(empirical_ntk(MLP(3).apply, method="jacobian"), weights(seed))


class Programs:
    """The compiled programs; `stop` is called before each tile with the number of those so far."""

    def __init__(self, monkeypatch):
        self.compiled = self.calls = 0
        self.stop = lambda calls: None
        compile_program = plan._compile

        def spied(*arguments):
            program = compile_program(*arguments)
            self.compiled += 1

            def call(*arguments):
                self.stop(self.calls)
                self.calls += 1
                return program(*arguments)

            call.memory_analysis = program.memory_analysis
            return call

        monkeypatch.setattr(plan, "_compile", spied)


@pytest.fixture
def programs(monkeypatch):
    return Programs(monkeypatch)


def raise_at(number, error):
    def stop(calls):
        if calls == number:
            raise error

    return stop


def assert_equal(actual, expected):
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for a, e in zip(*map(jax.tree.leaves, (actual, expected)), strict=True):
        assert a.dtype == e.dtype
        np.testing.assert_array_equal(np.asarray(a), np.asarray(e))


KERNELS = {"infinite": lambda: INFINITE, "empirical": empirical, "Gram": lambda: gram}
FILES = {"infinite": {"nngp.npy", "ntk.npy"}}


@pytest.mark.parametrize(
    ("name", "x2"),
    [
        ("infinite", None),
        ("empirical", None),
        pytest.param("Gram", X[:17], marks=pytest.mark.quick),
    ],
)
def test_a_stopped_computation_goes_on(tmp_path, programs, name, x2):
    folder, kernel = tmp_path / "new" / "folder", KERNELS[name]()
    whole = in_blocks(kernel)(X, x2)
    rounds, programs.calls = programs.calls, 0
    assert rounds >= 4
    blocked = in_blocks(kernel, to=folder)
    for number, error in ((2, KeyboardInterrupt), (3, RuntimeError)):
        programs.stop = raise_at(number, error)
        with pytest.raises(error):
            blocked(X, x2)
        assert not list(folder.glob("*.npy"))
    programs.stop = lambda calls: None
    result = blocked(X, x2)
    assert_equal(result, whole)
    assert programs.calls == rounds + 2  # at each stop there was one round under way
    files = FILES.get(name, {"kernel.npy"})
    assert {path.name for path in folder.iterdir()} == {"manifest.json", "progress.json", *files}
    for leaf, file in zip(jax.tree.leaves(result), sorted(files), strict=True):
        assert isinstance(leaf, np.memmap)
        with pytest.raises(ValueError, match="read-only"):
            leaf[0, 0] = 1.0
        np.testing.assert_array_equal(np.load(folder / file), leaf)


KILLED = """
import sys, time
sys.path[:0] = {path}
import jax
jax.config.update("jax_enable_x64", True)
import test_blocks_folder as tests
from ntkflow.kernels.blocks import folder, in_blocks, plan

def wait(calls):
    if calls == 4:
        print("waits to be killed", flush=True)
        time.sleep(60)

print(tests.fingerprints(), flush=True)
folder._SECONDS = 0.0
tests.Programs(tests.pytest.MonkeyPatch()).stop = wait
in_blocks(tests.gram, to=folder.Path({killed!r}), devices=3)(tests.X)
"""


def fingerprints():
    return [contents(KERNELS[name]()) for name in KERNELS]


def test_a_killed_process_is_continued_by_another(tmp_path, programs):
    killed = tmp_path / "killed"
    script = KILLED.format(path=sys.path, killed=str(killed))
    blocked = in_blocks(gram, to=killed, devices=3)
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            # Nothing of a process is in them: no address, no order of a set.
            assert process.stdout.readline() == f"{fingerprints()}\n"
            assert process.stdout.readline() == "waits to be killed\n"
            with pytest.raises(ValueError, match="is being written by another process"):
                blocked(X)
        finally:
            process.kill()
    assert process.returncode == -signal.SIGKILL
    record = json.loads((killed / folders.PROGRESS).read_text())
    assert record["finished"] == 3 * 3  # three rounds; the fourth was under way
    assert not np.load(killed / "kernel.npy.unfinished")[:4, :4].any()  # the diagonal comes last
    whole, programs.calls = in_blocks(gram, devices=3)(X), 0
    assert_equal(blocked(X), whole)
    assert programs.calls == -(-(10 - 9) // 3) + -(-5 // 3)


def test_a_complete_folder_is_opened_and_nothing_computed(tmp_path, programs):
    kernel = empirical()
    result = in_blocks(kernel, to=tmp_path, devices=1)(X)
    compiled, written = programs.compiled, os.stat(tmp_path / "kernel.npy").st_mtime_ns
    # Whatever the budget and the devices: this needs neither.
    again = in_blocks(kernel, to=tmp_path, max_bytes=1, devices=2)(X)
    assert programs.compiled == compiled
    assert os.stat(tmp_path / "kernel.npy").st_mtime_ns == written
    assert_equal(again, result)
    # Nor does it matter that it was killed before the file had its name.
    (tmp_path / "kernel.npy").rename(tmp_path / "kernel.npy.unfinished")
    assert_equal(in_blocks(kernel, to=tmp_path)(jnp.asarray(X)), result)
    assert programs.compiled == compiled


def test_it_goes_on_with_the_tiles_it_began_with(tmp_path, programs):
    whole = in_blocks(gram)(X)
    programs.calls, programs.stop = 0, raise_at(3, KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        in_blocks(gram, to=tmp_path)(X)
    programs.stop = lambda calls: None
    tile = json.loads((tmp_path / folders.PROGRESS).read_text())["tile"]
    with pytest.raises(ValueError, match=rf"folder was begun with, of {tile[0]} × {tile[1]} pairs"):
        in_blocks(gram, to=tmp_path, max_bytes=500)(X)
    assert_equal(in_blocks(gram, to=tmp_path, devices=1)(X), whole)
    assert json.loads((tmp_path / folders.PROGRESS).read_text())["tile"] == tile


def test_what_is_written_is_recorded_every_few_seconds(tmp_path, monkeypatch, programs):
    clock = iter(range(0, 1000, 2))  # each look at it is two seconds later
    monkeypatch.setattr(time, "monotonic", lambda: float(next(clock)))
    recorded = []
    written_aside = folders.written_aside

    def spied(path):
        recorded.append(programs.calls)
        return written_aside(path)

    monkeypatch.setattr(folders, "written_aside", spied)
    in_blocks(gram, to=tmp_path)(X)
    # At the start, after every third round while another one is under way, and at the end.
    assert recorded == [0, 4, 7, programs.calls]


def scaled(scale):
    def kernel(x1, x2=None):
        return scale * gram(x1, x2)

    return kernel


def test_another_computation_is_refused(tmp_path):
    def blocked(kernel):
        return in_blocks(kernel, to=tmp_path, devices=1)

    whole = np.array(blocked(empirical())(X[:4]))
    changed = X[:4].copy()
    changed[3, 3] = np.nextafter(changed[3, 3], 1)
    cases = [
        (empirical(), (changed,), "What differs: x1 "),
        (empirical(), (X[:5],), "What differs: x1 .*result .*float64 .4, 4, 3, 3"),
        (empirical(), (X[:4], X[:4]), "What differs: x2 "),
        (empirical(seed=2), (X[:4],), "What differs: other arguments "),
        (gram, (X[:4],), "What differs: kernel .*gram"),
    ]
    for kernel, args, message in cases:
        with pytest.raises(ValueError, match=f"belongs to another kernel. {message}"):
            blocked(kernel)(*args)
    assert_equal(blocked(empirical())(X[:4]), whole)


def test_what_a_kernel_closes_over_is_part_of_it(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    in_blocks(scaled(jnp.ones(())), to=first)(X)
    in_blocks(scaled(jnp.ones(())), to=first)(X)
    with pytest.raises(ValueError, match="What differs: what it closes over"):
        in_blocks(scaled(jnp.zeros(())), to=first)(X)
    in_blocks(fully_connected_relu, to=second)(X, None, 2)
    with pytest.raises(ValueError, match="What differs: other arguments"):
        in_blocks(fully_connected_relu, to=second)(X, None, 3)


def test_files_and_damage_are_refused(tmp_path, programs):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(ValueError, match="holds files but no kernel"):
        in_blocks(gram, to=tmp_path)(X)
    with pytest.raises(ValueError, match="a file; expected a folder"):
        in_blocks(gram, to=tmp_path / "thesis.tex")(X)
    folder = tmp_path / "folder"
    blocked = in_blocks(gram, to=folder)
    programs.calls, programs.stop = 0, raise_at(2, KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        blocked(X)
    programs.stop = lambda calls: None
    path = folder / "kernel.npy.unfinished"
    os.truncate(path, 500)
    with pytest.raises(ValueError, match=r"kernel.npy.unfinished is missing or damaged .*delete"):
        blocked(X)
    (folder / folders.PROGRESS).unlink()
    assert_equal(blocked(X), in_blocks(gram)(X))
    (folder / folders.PROGRESS).write_text("{}")
    with pytest.raises(ValueError, match=r"progress.json is damaged"):
        blocked(X)


def test_a_full_disk_is_said_before_the_first_tile(tmp_path, monkeypatch, programs):
    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match="No space") as error:
        in_blocks(gram, to=tmp_path)(X)
    assert error.value.__notes__ == [f"{tmp_path}/kernel.npy.unfinished takes {19 * 19 * 8} bytes."]
    assert programs.calls == 0
    assert [path.name for path in tmp_path.iterdir()] == ["manifest.json"]
    monkeypatch.undo()
    assert_equal(in_blocks(gram, to=tmp_path)(X), in_blocks(gram)(X))


def test_every_dtype_and_name(tmp_path):
    def kernel(x1, x2=None):
        product = gram(x1, x2)
        return {
            "a/b": product.astype(jnp.bfloat16),
            "A/B": product > 0,
            "c": (product.astype("int32"), product + 1j),
        }

    x = X[:5].astype("float32")
    result, again = (in_blocks(kernel, to=tmp_path)(x) for _ in range(2))
    assert_equal(result, in_blocks(kernel)(x))
    assert_equal(again, result)
    names = sorted(path.name for path in tmp_path.glob("*.npy"))
    assert names == ["0.A_B.npy", "1.a_b.npy", "2.c.0.npy", "3.c.1.npy"]
