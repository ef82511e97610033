"""Which of this machine's devices a computation runs on."""

from collections.abc import Sequence

import jax


def local_devices(devices: int | Sequence[jax.Device] | None = None) -> list[jax.Device]:
    """Choose among the local devices.

    Args:
      devices: the devices, or how many of them; None takes all.

    Returns:
      At least one device, each once, in the order given.

    Raises:
      ValueError: no device, one that is not local, one given twice, or more than there are.

    Example:
      >>> local_devices(2) == jax.local_devices()[:2]
      True
    """
    local = jax.local_devices()
    if devices is None:
        return local
    if isinstance(devices, int):
        chosen = local[:devices] if 0 < devices <= len(local) else []
    else:
        chosen = list(devices)
        if len(set(chosen) & set(local)) < len(chosen):
            chosen = []
    if not chosen:
        raise ValueError(
            f"devices is {devices}; expected some of the {len(local)} local devices {local}, each "
            "once, or how many of them. CPU devices are asked for before JAX starts: "
            "JAX_NUM_CPU_DEVICES=2 python script.py."
        )
    return chosen
