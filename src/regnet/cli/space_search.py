"""`regnet space search`: the most accurate network within a latency on this machine."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from regnet.cli.console import require_html, require_writable, say, show
from regnet.cli.options import Json
from regnet.space.plans import SearchExtent, TrainBest
from regnet.system.option import Options, option

if TYPE_CHECKING:
    from regnet.space.search import Found
    from regnet.space.search_results import Trained


class _Target(Options):
    latency_ms: float = option(..., "Maximum latency of one image", "MS", min=0.01)
    device: str = option("CPU", "OpenVINO device; CPU only", "NAME")
    precision: str = option("f32", "f32, bf16 or int8", "TYPE")
    resolution: int = option(224, "Image size", "PIXELS", min=32, max=1024)


class _Results(Json):
    output: Path | None = option(None, "Write the spec for `regnet train`", "-o", "FILE")
    export: Path | None = option(None, "Write a model for `regnet benchmark`", "DIR")
    front: Path | None = option(None, "Write a report with plots", "FILE")


def search(target: _Target, search: SearchExtent, training: TrainBest, results: _Results) -> None:
    """Find the most accurate network within a latency on this machine.

    Draws networks of regnetx and regnety, measures promising ones with the real engine (one image,
    all cores, random weights, which are as fast) and predicts accuracy by a model fitted to the 24
    published networks. The result's latency is measured twice. Prints the Pareto front, and the
    published networks beside what was found at their latency.

    --train trains the best networks and ranks them by their accuracy. That needs the extra `train`.

    Exit status: 0 done, 2 could not run (for example, nothing is that fast), 130 interrupted.

      regnet space search --latency-ms 5 --precision int8 -o pick.json
      regnet space search --latency-ms 20 --space regnetx --front front.html
      regnet space search --latency-ms 5 --train photos/ --top 3 --epochs 10
    """
    require_html(results.front)
    require_writable(results.output)
    if training.train is not None:
        require_writable(training.records)
    from regnet.space.measure import LatencySetup
    from regnet.space.search import Plan
    from regnet.space.search import search as run
    from regnet.space.search_report import search_report
    from regnet.space.search_results import found_to_dict, require_training, train_best

    setup = {
        "precision": target.precision,
        "image_size": target.resolution,
        "device": target.device,
    }
    plan = Plan(
        latency_ms=target.latency_ms,
        setup=LatencySetup.from_dict(setup),
        **vars(search),
    )
    require_training(training)
    found = run(plan, say=say)
    trained = train_best(found, training, say)
    _write(found, trained, results)
    report = partial(search_report, found, trained)
    values = partial(found_to_dict, found, trained)
    show(report, values, as_json=results.json, html=results.front)


def _write(found: "Found", trained: "Sequence[Trained]", results: _Results) -> None:
    """Write the requested files of the best network, of those trained if any were."""
    from regnet.network.spec import write_spec
    from regnet.space.search_results import export_pick

    best = trained[0].measured if trained else found.pick
    if (spec := results.output) is not None:
        write_spec(spec, best.network.spec)
        say(f"{spec}: written; `regnet train DATASET --model {spec}` trains it")
    if (folder := results.export) is not None:
        model = next(path for path in export_pick(found, best, folder) if path.suffix == ".xml")
        say(f"{folder}: written; `regnet benchmark {model}` measures it")
