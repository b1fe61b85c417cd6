"""Random and hostile requests against `regnet serve`: what it answers, and its memory.

    python bench/fuzz_serve.py [--requests 10000] [--seed 1]

A third are schemathesis' on the server's OpenAPI document, some are messages over gRPC, the rest
the corpus of the tests and good requests with something broken in them, from several clients at
once. Memory is that of the server after a first round of the corpus, and at the end. The last line
is one JSON object; the exit status is 1 where an answer was none of the documented ones.
"""

import argparse
import itertools
import json
import random
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from hostile_requests import DOCUMENTED, SMALL, ask, broken, corpus, damaged
from serving_process import Served, serving

CLIENTS = 8


def main() -> int:
    """Run and print; return the exit status."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        with serving(Path(folder), "bundled", "--offline", "--grpc", "0") as served:
            found = fuzz(served, Path(folder), options.requests, options.seed)
            found["alive"] = served.process.poll() is None
            found["exit_status"] = served.stop()
        found |= of_log(served.log)
    print(json.dumps(found))
    good = found["alive"] and not found["exit_status"] and not found["undocumented"]
    return 0 if good and not found["wrong"] and not found["tracebacks"] else 1


def fuzz(served: Served, folder: Path, requests: int, seed: int) -> dict[str, Any]:
    """Send all requests and return what became of them."""
    wrong = round_of(served, corpus())
    memory = [resident(served)]
    print(f"after {len(corpus())} hostile requests: {memory[0]:.0f} MB")
    start = time.perf_counter()
    described, failed = of_schema(served, folder, requests // 3, seed)
    memory.append(resident(served))
    print(f"after {described} requests of schemathesis, {failed}: {memory[1]:.0f} MB")
    codes = over_grpc(served, requests // 10, seed)
    memory.append(resident(served))
    print(f"after {sum(codes.values())} messages over gRPC: {memory[2]:.0f} MB {dict(codes)}")
    rest = requests - described - sum(codes.values()) - 2 * len(corpus())
    quarter_of = -(-rest // 4)
    for quarter in range(4):
        wrong += round_of(served, itertools.islice(broken(seed + quarter), quarter_of))
        memory.append(resident(served))
        print(f"after {quarter_of} broken requests: {memory[-1]:.0f} MB")
    wrong += round_of(served, corpus())
    memory.append(resident(served))
    print(f"after the hostile ones once more: {memory[-1]:.0f} MB")
    return {
        "requests": described + sum(codes.values()) + 4 * quarter_of + 2 * len(corpus()),
        "seconds": round(time.perf_counter() - start, 1),
        "memory_mb": [round(one) for one in memory],
        "schemathesis": failed,
        "grpc": dict(codes),
        "wrong": wrong,
    }


def round_of(served: Served, requests: Any) -> list[str]:
    """Send requests from several clients at once and return the wrong answers."""
    host, _, port = served.host.rpartition(":")
    requests, lock, wrong = iter(requests), threading.Lock(), list[str]()

    def client() -> None:
        while True:
            with lock:
                request = next(requests, None)
            if request is None:
                return
            status = ask((host, int(port)), request)
            if status not in request.statuses:
                wrong.append(f"{request.name}: {status}")
                print(f"  {request.name}: {status}, not one of {request.statuses}")

    clients = [threading.Thread(target=client) for _ in range(CLIENTS)]
    for one in clients:
        one.start()
    for one in clients:
        one.join()
    return wrong


def of_schema(served: Served, folder: Path, requests: int, seed: int) -> tuple[int, str]:
    """Let schemathesis send about so many requests; return how many, and what it says."""
    checks = ["--checks", "all", "--exclude-checks", "positive_data_acceptance"]
    examples = ["--max-examples", str(max(1, requests // 15)), "--seed", str(seed), "--no-shrink"]
    program = Path(sys.executable).with_name("schemathesis")
    url = f"{served.url}/openapi.json"
    done = subprocess.run(
        [program, "run", url, *checks, "--phases", "coverage,fuzzing", *examples],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    cases = re.search(r"(\d+) generated, (.*)", done.stdout)
    if cases is None or done.returncode:
        print(done.stdout[-4000:], done.stderr[-4000:])
    return (int(cases[1]), cases[2]) if cases else (0, "failed")


def over_grpc(served: Served, requests: int, seed: int) -> Counter[str]:
    """Send broken messages over gRPC and return how often each status came."""
    import grpc

    from regnet.serving.grpc_messages import encode

    photo, rng = SMALL.getvalue(), random.Random(seed)
    good = encode(
        "ModelInferRequest",
        {
            "model_name": "bundled",
            "inputs": [{"name": "image", "datatype": "BYTES", "shape": [1]}],
            "outputs": [{"name": "prob"}],
            "raw_input_contents": [len(photo).to_bytes(4, "little") + photo],
        },
    )
    codes = Counter[str]()
    with grpc.insecure_channel(served.grpc) as channel:
        infer = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        for _ in range(requests):
            try:
                infer(damaged(good, rng), timeout=60)
                codes["OK"] += 1
            except grpc.RpcError as exc:
                codes[exc.code().name] += 1
    return codes


def of_log(log: Path) -> dict[str, Any]:
    """Return what the server's log says of the answers."""
    lines = [line for line in log.read_text().splitlines() if line.startswith("{")]
    statuses = Counter(
        found["status"] for found in map(json.loads, lines) if found["event"] == "request"
    )
    return {
        "statuses": {str(status): statuses[status] for status in sorted(statuses)},
        "undocumented": sorted(set(statuses) - DOCUMENTED - {499}),  # 499: the client was gone
        "tracebacks": log.read_text().count("Traceback"),
    }


def resident(served: Served) -> float:
    """Return the server's memory in MB."""
    status = Path(f"/proc/{served.process.pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1000


if __name__ == "__main__":
    sys.exit(main())
