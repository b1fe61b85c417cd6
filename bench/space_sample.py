"""How long drawing and counting networks takes: a million of each space, on one core.

    python bench/space_sample.py [--count 1000000] [SPACE...]

Times are of the CPU. The last line is one JSON object; the exit status is 1 where a space takes
over 60 seconds for a million.
"""

import argparse
import json
import sys
import time

from regnet.space.sampling import SPACES, sample, space_by_name

BAR = 60e-6  # seconds a network


def seconds(name: str, count: int) -> float:
    """Return the CPU seconds of drawing networks and asking each for its cost."""
    start = time.process_time()
    found = sum(1 for network in sample(space_by_name(name), count) if network.cost.macs)
    assert found == count
    return time.process_time() - start


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("spaces", nargs="*", metavar="SPACE", default=list(SPACES))
    parser.add_argument("--count", type=int, default=1_000_000)
    options = parser.parse_args()
    took = {}
    for name in options.spaces:
        took[name] = seconds(name, options.count)
        print(f"{name:10} {took[name]:6.1f} s", flush=True)
    print(json.dumps({"count": options.count, "seconds": took}))
    sys.exit(max(took.values()) > BAR * options.count)


if __name__ == "__main__":
    main()
