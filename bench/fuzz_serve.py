"""Random and hostile requests against `regnet serve`: what it answers, and its memory.

    python bench/fuzz_serve.py [--requests 10000] [--seed 1]

A third are schemathesis' on the server's OpenAPI document, the rest the corpus of the tests and
good requests with something broken in them, from several clients at once. Memory is that of the
server after a first round of the corpus, and at the end. The last line is one JSON object; the exit
status is 1 where an answer was none of the documented ones.

    python bench/fuzz_serve.py --siege 10 [--kind NAME]

Ten connections send, again and again, the request of a kind that costs most of what the limits
accept, while ordinary photos come 20 a second: all of those must get 200, 99 of 100 within 1 s.
"""

import argparse
import base64
import contextlib
import io
import itertools
import json
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from hostile_requests import (
    DOCUMENTED,
    SIDE,
    SMALL,
    Hostile,
    ask,
    broken,
    corpus,
    message,
)
from PIL import Image
from serving_process import Served, serving

from regnet.pixels.samples import sample_photos
from regnet.serving.kserve import MOST_CROPS

CLIENTS = 8


def encoded(kind: str, side: int, *, noise: bool = False, **options: Any) -> bytes:
    """Return a square photo, black or of noise."""
    photo = Image.effect_noise((side, side), 100) if noise else Image.new("L", (side, side))
    file = io.BytesIO()
    photo.convert("RGB").save(file, kind, **options)
    return file.getvalue()


def of_many_scans(side: int, scans: int) -> bytes:
    """Return a progressive JPEG whose last scan comes again and again."""
    whole = encoded("JPEG", side, progressive=True)
    return whole[:-2] + whole[whole.rfind(b"\xff\xda") : -2] * scans + whole[-2:]


def form(photos: list[bytes], query: str = "") -> bytes:
    """Return a request with photos as the files of a form."""
    head = b'--b\r\nContent-Disposition: form-data; name="a"; filename="a"\r\n\r\n'
    body = b"".join(head + photo + b"\r\n" for photo in photos) + b"--b--\r\n"
    kind = ("Content-Type", "multipart/form-data; boundary=b")
    return message("POST", f"/v1/classify{query}", body, kind)


def in_json(path: str, value: Any) -> bytes:
    """Return a request in JSON."""
    body = json.dumps(value, separators=(",", ":")).encode()
    return message("POST", path, body, ("Content-Type", "application/json"))


def crops(datatype: str) -> bytes:
    """Return a request with as many crops in JSON as are taken."""
    data = [9] * (MOST_CROPS * SIDE * SIDE * 3)
    shape = [MOST_CROPS, SIDE, SIDE, 3]
    tensor = {"name": "data", "datatype": datatype, "shape": shape, "data": data}
    return in_json("/v2/models/bundled/infer", {"inputs": [tensor]})


def pixels(count: int) -> bytes:
    """Return a request with crops as binary data."""
    data = bytes(4 * count * SIDE * SIDE * 3)
    tensor = {"name": "data", "datatype": "FP32", "shape": [count, SIDE, SIDE, 3]}
    head = json.dumps({"inputs": [tensor | {"parameters": {"binary_data_size": len(data)}}]})
    length = ("Inference-Header-Content-Length", str(len(head)))
    return message("POST", "/v2/models/bundled/infer", head.encode() + data, length)


def base64_of(photo: bytes, count: int) -> bytes:
    """Return a request with a photo in JSON many times."""
    return in_json("/v1/classify", {"images": [base64.b64encode(photo).decode()] * count})


KINDS: dict[str, Callable[[], bytes]] = {
    "one large JPEG": lambda: form([encoded("JPEG", 3990, noise=True, quality=30)]),
    "large JPEGs": lambda: form([encoded("JPEG", 3990)] * 12),
    "WebPs": lambda: form([encoded("WEBP", 2000, noise=True, quality=1)] * 32),
    "small PNGs": lambda: form([encoded("PNG", 1700)] * 64),
    "huge PNGs": lambda: form([encoded("PNG", 7000)] * 4),
    "many scans": lambda: form([of_many_scans(5000, 80)] * 8),
    "explanations": lambda: form([encoded("JPEG", 1700)] * 64, "?explain=true"),
    "explanations of huge PNGs": lambda: form([encoded("PNG", 7000)] * 4, "?explain=true"),
    "crops in JSON": lambda: crops("FP32"),
    "base64": lambda: base64_of(encoded("JPEG", 3990, noise=True, quality=30), 4),
    "base64 of small ones": lambda: base64_of(SMALL.getvalue(), 64),
    "crops": lambda: pixels(64),
    "cut off": lambda: form([encoded("PNG", 7000)] * 4)[:-9],
}
"""The requests that cost most, of what the limits accept."""


def sieges(kinds: list[str], seconds: float) -> int:
    """Lay siege to a server with each kind and print what ordinary photos get meanwhile."""
    found, good = {}, True
    for kind in kinds:
        with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
            served = stack.enter_context(serving(Path(folder), "bundled", "--offline"))
            figures = siege(served, KINDS[kind](), ordinary(folder), seconds)
            memory = peak(served)
            stopped = time.perf_counter()
            status = served.stop()
        found[kind] = {
            "statuses": figures["statuses"],
            "p99_s": round(figures["good"].get("p99", 99.0), 3),
            "hostile": figures["hostile"],
            "memory_mb": round(memory),
            "stop_s": round(time.perf_counter() - stopped, 1),
        }
        print(f"{kind}: {found[kind]}", flush=True)
        good &= set(figures["statuses"]) == {"200"} and found[kind]["p99_s"] <= 1 and not status
    print(json.dumps(found))
    return 0 if good else 1


def ordinary(folder: str) -> str:
    """Return a folder of photos as people send them."""
    photos = Path(folder) / "photos"
    photos.mkdir()
    for photo in sample_photos():
        shutil.copy(photo, photos)
    return str(photos)


def siege(served: Served, request: bytes, photos: str, seconds: float) -> dict[str, Any]:
    """Return the figures of ordinary photos while ten connections send one request in a loop."""
    host, _, port = served.host.rpartition(":")
    over, statuses = threading.Event(), Counter[str]()

    def attack() -> None:
        while not over.is_set():
            with contextlib.suppress(OSError):
                found = ask((host, int(port)), Hostile("", request, frozenset()), seconds=40)
                statuses[str(found)] += 1

    attackers = [threading.Thread(target=attack, daemon=True) for _ in range(10)]
    for one in attackers:
        one.start()
    order = {"url": served.url, "photos": photos, "seconds": seconds, "rate": 20.0, "skip": 1.0}
    load = [sys.executable, str(Path(__file__).with_name("load.py")), json.dumps(order)]
    figures = json.loads(subprocess.run(load, capture_output=True, text=True, check=True).stdout)
    over.set()
    return {**figures, "hostile": dict(statuses)}


def main() -> int:
    """Run and print; return the exit status."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--siege", type=float, metavar="SECONDS", help="of each kind")
    parser.add_argument("--kind", choices=list(KINDS))
    options = parser.parse_args()
    if options.siege:
        return sieges([options.kind] if options.kind else list(KINDS), options.siege)
    with tempfile.TemporaryDirectory() as folder:
        with serving(Path(folder), "bundled", "--offline") as served:
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
    rest = requests - described - 2 * len(corpus())
    quarter_of = -(-rest // 4)
    for quarter in range(4):
        wrong += round_of(served, itertools.islice(broken(seed + quarter), quarter_of))
        memory.append(resident(served))
        print(f"after {quarter_of} broken requests: {memory[-1]:.0f} MB")
    wrong += round_of(served, corpus())
    memory.append(resident(served))
    print(f"after the hostile ones once more: {memory[-1]:.0f} MB")
    return {
        "requests": described + 4 * quarter_of + 2 * len(corpus()),
        "seconds": round(time.perf_counter() - start, 1),
        "memory_mb": [round(one) for one in memory],
        "schemathesis": failed,
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


def peak(served: Served) -> float:
    """Return the most memory that the server has had, in MB."""
    status = Path(f"/proc/{served.process.pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1000


if __name__ == "__main__":
    sys.exit(main())
