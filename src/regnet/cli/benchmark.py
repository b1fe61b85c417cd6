"""`regnet benchmark`: how fast a model is on this machine."""

from functools import partial
from pathlib import Path

import typer

from regnet.cli.console import print_result, say, show
from regnet.cli.options import AS_OPTION, MODEL, Device, Report, Store
from regnet.cli.progress import track
from regnet.inference.predictors import parse_ir_choice, split_choice
from regnet.system.devices import CPU, require_device
from regnet.system.option import Options, argument, option


class _Measurement(Device):
    model: str = argument(MODEL, "MODEL", ..., *AS_OPTION)
    precision: str | None = option(
        None, "Comma-separated: f32,bf16,int8 [all that the model has]", "LIST"
    )
    batch_size: int | None = option(
        None, "Batch size of the throughput [8; cuda: measured]", min=1, max=1024
    )
    rounds: int | None = option(None, "Rounds of each [by --seconds]", min=1, max=1000)
    seconds: float = option(30.0, "Time per part; at least 3 rounds", "SECONDS", min=0)


class _EndToEnd(Options):
    photos: Path | None = option(
        None, "Also measure from these JPEG files to labels", "--end-to-end", "FOLDER"
    )
    most: int = option(200, "Maximum number of photos", "--photos", min=1)


class _Results(Report):
    json: bool = option(False, "Print only the JSON line")


def benchmark(
    measurement: _Measurement, end_to_end: _EndToEnd, results: _Results, models: Store
) -> None:
    """Measure how fast a model is on this machine.

    Reports latency percentiles at batch 1 and the best throughput, in each precision. Measurements
    are interleaved in rounds; results are medians. The last line is one JSON object.

    Exit status: 0 done, 2 could not run, 130 interrupted.

      regnet benchmark bundled
      regnet benchmark regnetx-3.2gf --end-to-end photos/ --html speed.html
      regnet benchmark my.xml --precision f32,int8 --rounds 9 --json
    """
    from regnet.benchmarking.benchmark import PRECISIONS, Plan, parse_precisions
    from regnet.benchmarking.benchmark import benchmark as measure
    from regnet.benchmarking.end_to_end import find_jpegs
    from regnet.benchmarking.report import benchmark_report

    asked, folder = measurement.precision, end_to_end.photos
    model, parts = split_choice(measurement.model)
    precisions = parse_precisions(asked or parts.get("precision") or ",".join(PRECISIONS))
    device = CPU
    for precision in precisions if asked else (None,):
        device = parse_ir_choice(
            measurement.model, "benchmark", device=measurement.device, precision=precision
        ).device
    require_device(device)
    plan = Plan(
        model=model,
        device=device,
        precisions=precisions if asked or "precision" in parts else None,
        batch_size=measurement.batch_size,
        rounds=measurement.rounds,
        seconds=measurement.seconds,
        photos=tuple(find_jpegs(folder, most=end_to_end.most)) if folder is not None else (),
    )
    with models.library() as library:
        library.ir(model)
    result = measure(
        plan,
        library=library,
        watch=lambda turns: track(turns, "measuring", len(turns), "turns"),
        say=say,
    )
    report = partial(benchmark_report, result)
    show(report, result.to_dict, as_json=results.json, html=results.html)
    if not results.json:
        typer.echo()
        print_result(result)
