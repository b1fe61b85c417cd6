"""What limits a run, from the times of its steps."""

import pytest

from regnet.training.pace import Pace

FIRST = 2  # steps that do not count


def pace(feed: str, steps: list[tuple[float, float]], *, read: float, on_cpu: bool = False) -> Pace:
    """Return the pace of a run that reads the loss after every step."""
    made = Pace(feed, on_cpu=on_cpu)
    for waited, computed in [(0.0, 9.0)] * FIRST + steps:
        made.step(waited, computed)
        made.read(read)
    return made


@pytest.mark.parametrize(
    ("feed", "step", "read", "limit"),
    [
        ("processes", (0.5, 0.1), 0.4, "feed"),
        ("processes", (0.0, 0.9), 0.1, "host"),
        ("processes", (0.0, 0.1), 0.9, "device"),
        ("device", (0.8, 0.1), 0.1, "host"),  # which gives the device its crops to make
        ("device", (0.1, 0.1), 0.8, "device"),
    ],
)
def test_the_limit_on_a_gpu(feed: str, step: tuple[float, float], read: float, limit: str) -> None:
    made = pace(feed, [step] * 5, read=read)
    assert made.limit == limit
    assert f"is the {limit}" in made.text()
    assert "compilation and the first steps took 16 s more" in made.text()


def test_a_cpu_is_the_device() -> None:
    assert pace("threads", [(0.1, 0.9)] * 5, read=0.0, on_cpu=True).limit == "device"
    slow = pace("threads", [(0.6, 0.4)] * 5, read=0.0, on_cpu=True)
    assert "steps wait for crops 60% of the time, which threads make" in slow.text()


def test_only_steps_without_work_before_them_show_the_hosts_time() -> None:
    made = Pace("processes", on_cpu=False)
    for _ in range(FIRST):
        made.step(0.0, 1.0)
    made.read(1.0)
    made.step(0.0, 0.1)
    for _ in range(20):
        made.step(0.0, 1.0)  # the queue is full: the host waits for the device
    assert made.limit == "device"


def test_few_steps_say_nothing() -> None:
    assert pace("threads", [], read=0.0).text() == ""
