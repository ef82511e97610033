"""What the networks ask of an activation, found once: every call compiles functions anew."""

import functools
from contextlib import contextmanager

import pytest

from ntkflow.systems.deep.activations import activation_constants, check_activation

_ONCE = {f.__name__: functools.cache(f) for f in (activation_constants, check_activation)}


@contextmanager
def constants_once(*modules):
    """Let the modules of the library remember what they find; what they refuse is not kept."""
    with pytest.MonkeyPatch.context() as patch:
        for module in modules:
            for name, function in _ONCE.items():
                if hasattr(module, name):
                    patch.setattr(module, name, function)
        yield
