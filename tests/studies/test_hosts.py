"""Two processes under `jax.distributed` share a study, and both get the whole of it."""

import os
import socket
import subprocess
import sys

SCRIPT = """
import sys
import jax
import numpy as np

process, address, folder = int(sys.argv[1]), sys.argv[2], sys.argv[3]
jax.distributed.initialize(address, 2, process)
from ntkflow import studies

def experiment(key, x, width):
    return x.sum() * jax.random.normal(key, (width,)).sum()

choices = dict(grid={"width": [2, 3]}, args=(np.ones(2),), folder=folder, progress=False)
study = studies.run(experiment, seeds=3, **choices)
for _ in range(2):  # stored cells are there for both processes
    study = studies.run(experiment, seeds=5, seeds_per_cell=3, **choices)
    for seed, width in ((4, 2), (0, 3)):
        alone = experiment(jax.random.key(seed), np.ones(2), width)
        np.testing.assert_allclose(study["result"].sel(seed=seed, width=width), alone, rtol=1e-5)
assert study.attrs["devices"] == 4
"""


def test_two_processes_get_the_whole_study(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    environment = {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "2"}
    command = [sys.executable, "-c", SCRIPT]
    processes = [
        subprocess.Popen(
            [*command, str(process), address, str(tmp_path / "study")],
            env=os.environ | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for process in range(2)
    ]
    try:
        outputs = [process.communicate(timeout=120)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], "\n".join(outputs)
