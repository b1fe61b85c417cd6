import platform
import subprocess
import sys

import pytest
import torch

from regnet.training import devices
from regnet.training.devices import is_shortage

FREED = """
import sys
from regnet.training.devices import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096 >> 20
before = resident()
data = b"x" * (64 << 20)
held = resident()
del data
print(held - before, resident() - before)
"""


def megabytes(how):
    """Return how much a process of its own grew by a buffer of 64 MiB, and once it was freed."""
    command = [sys.executable, "-c", FREED, how]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    held, freed = map(int, output.split())
    assert held >= 60
    return freed


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have no such knob")
def test_freed_buffers_are_kept_for_the_next_step():
    assert megabytes("keep") >= 60
    assert megabytes("let") <= 10


@pytest.mark.parametrize("error", [OSError, AttributeError])
def test_where_there_is_no_such_knob_nothing_happens(monkeypatch, error):
    def absent(name):
        raise error

    monkeypatch.setattr(devices.ctypes, "CDLL", absent)
    devices.keep_freed_memory()
    monkeypatch.setattr(devices.sys, "platform", "darwin")
    monkeypatch.setattr(devices.ctypes, "CDLL", None)  # must not be called at all
    devices.keep_freed_memory()


@pytest.mark.parametrize(
    ("error", "short"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (RuntimeError("std::bad_alloc"), True),
        (RuntimeError("could not create a primitive"), True),
        (RuntimeError("can't start new thread"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("not enough memory"), False),
    ],
)
def test_shortages_of_memory_are_told_from_other_errors(error: Exception, short: bool) -> None:
    assert is_shortage(error) is short


def test_torchs_own_refusal_is_known() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert is_shortage(caught.value)
