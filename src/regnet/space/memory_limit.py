"""A limit of memory: what would have the system kill this process is an error instead."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

_PROC: Final = Path("/proc")
_GROUP: Final = Path("/sys/fs/cgroup")


@contextmanager
def memory_limit() -> Iterator[None]:
    """Let allocations fail, for the time of the block, that the memory now free does not hold.

    Nothing where the system does not say what is free: on others than Linux.
    """
    try:
        import resource

        free, used = free_memory(), _kilobytes(_PROC / "self/status", "VmData")
    except (ImportError, OSError):
        free = used = None
    if free is None or used is None:
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    wanted = used + free
    known = [limit for limit in (wanted, soft, hard) if limit != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_DATA, (min(known), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def free_memory() -> int | None:
    """Return the bytes that this process may still have, also within a container."""
    free = _kilobytes(_PROC / "meminfo", "MemAvailable")
    with suppress(OSError, ValueError):
        left = int((_GROUP / "memory.max").read_text()) - _in_use()
        free = left if free is None else min(free, left)
    return free


def _in_use() -> int:
    """Return what the container uses, without files that are only cached."""
    rows = (line.split() for line in (_GROUP / "memory.stat").read_text().splitlines())
    statistics: dict[str, int] = {name: int(value) for name, value in rows}
    used = int((_GROUP / "memory.current").read_text())
    return used - statistics.get("inactive_file", 0)


def _kilobytes(path: Path, name: str) -> int | None:
    """Return a figure that a file of /proc states in kB, in bytes."""
    for line in path.read_text().splitlines():
        words: list[Any] = line.split()
        if words and words[0] == f"{name}:":
            return int(words[1]) * 1024
    return None
