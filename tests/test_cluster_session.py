"""Connecting to Ray: of this machine's cores, of a cluster, and to none."""

import signal
import socket
import subprocess
import sys
import time

import pytest

from regnet.cluster.address import is_address
from regnet.cluster.session import connected
from regnet.system.errors import ClusterError


@pytest.mark.parametrize(
    "word", ["local", "auto", "h:1", "a-b.c:6379", "[::1]:80", "ray://h:10001"]
)
def test_addresses(word: str) -> None:
    assert is_address(word)


@pytest.mark.parametrize(
    "word", ["photos", "", "s3://b/c", "h:", "h:0", "h:123456", "ray://h", "http://h:80", "a b:1"]
)
def test_what_is_no_address(word: str) -> None:
    assert not is_address(word)
    with pytest.raises(ClusterError, match="names no Ray cluster"), connected(word):
        pass


def test_a_host_without_ray_is_an_error_at_once() -> None:
    pytest.importorskip("ray")
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{nobody.getsockname()[1]}"
        with pytest.raises(ClusterError, match=f"no Ray cluster at {address}"), connected(address):
            pass


USE = """
import os, sys, warnings
warnings.simplefilter("error")
from regnet.cluster.session import connected
with connected("local") as cluster:
    import ray
    assert cluster.cpus == len(os.sched_getaffinity(0)), cluster
    assert ray.get(ray.remote(lambda: 6 * 7).remote()) == 42
    with connected("auto") as inner:
        assert inner.nodes == 1
    assert ray.is_initialized()
    node = ray._private.worker._global_node
    print([info[0].process.pid for info in node.all_processes.values()], flush=True)
    if sys.argv[1:] == ["wait"]:
        import time; time.sleep(60)
assert not ray.is_initialized()
assert "RAY_USAGE_STATS_ENABLED" not in os.environ
"""


def _alive(pids: list[int]) -> list[int]:
    """Return the processes that run; those that ended but are not yet waited for do not."""
    running = []
    for pid in pids:
        try:
            with open(f"/proc/{pid}/stat", encoding="utf-8") as file:  # noqa: PTH123
                if file.read().rpartition(")")[2].split()[0] != "Z":
                    running.append(pid)
        except FileNotFoundError:
            pass
    return running


def _wait_until_gone(pids: list[int]) -> None:
    for _ in range(300):
        if not _alive(pids):
            return
        time.sleep(0.1)
    raise AssertionError(f"still there: {_alive(pids)}")


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("how", ["end", "kill"])
def test_a_local_ray_is_quiet_and_leaves_no_process(how: str) -> None:
    pytest.importorskip("ray")
    command = [sys.executable, "-c", USE, *(["wait"] if how == "kill" else [])]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as driver:
        assert driver.stdout is not None
        line = driver.stdout.readline()
        if how == "kill":
            driver.send_signal(signal.SIGKILL)
        rest, errors = driver.communicate(timeout=60)
    assert line.startswith("["), errors
    assert (rest, errors) == ("", "")
    assert driver.returncode == (0 if how == "end" else -signal.SIGKILL)
    _wait_until_gone([int(pid) for pid in line.strip("[]\n").split(",")])
