"""The choice of devices, and its refusals."""

import jax
import pytest

from ntkflow.devices import local_devices


@pytest.mark.quick
def test_the_devices_are_local_and_in_the_order_given():
    local = jax.local_devices()
    assert local_devices() == local
    assert local_devices(3) == local[:3]
    assert local_devices(local[2:0:-1]) == [local[2], local[1]]


def test_what_is_refused():
    first = jax.local_devices()[0]
    for devices in (0, -1, 5, [], ["gpu"], [first, first]):
        with pytest.raises(ValueError, match=r"of the 4 local devices .* JAX_NUM_CPU_DEVICES"):
            local_devices(devices)
