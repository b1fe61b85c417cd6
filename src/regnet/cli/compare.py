"""`regnet compare`: the first stage at which two pipelines differ, and by how much."""

from functools import partial
from typing import TYPE_CHECKING

from regnet.cli.console import show
from regnet.cli.options import AS_OPTION, Device, Report, Store, Truth, require_sources
from regnet.cli.progress import track
from regnet.comparison.differences import Gates
from regnet.system.option import argument

if TYPE_CHECKING:
    from regnet.comparison.compare import ComparisonRecord


class _Sides(Truth, Device):
    a: str = argument("Reference model, see above", "A", ..., *AS_OPTION)
    b: str = argument("Model to compare with it", "B")
    dataset: str = argument("Photos, labelled or not", "DATASET")


def compare(photos: _Sides, gates: Gates, results: Report, models: Store) -> bool:
    """Compare two models or pipelines on photos, stage by stage.

    A and B are MODEL[:engine][:device][:precision][:protocol]: a model card, `bundled`, an IR
    (.xml), an ONNX file or a checkpoint; engine ir, onnx or torch; device CPU, GPU, NPU, AUTO
    or cuda; precision f32, bf16 or int8; protocol omz or pycls. One may be a running server,
    http://HOST:PORT/v2/models/NAME. DATASET is as for `regnet evaluate` (accuracies are compared
    too) or any photos that `regnet classify` takes.

    Compares pixels after decoding, resizing and cropping, then logits, probabilities and top-1
    classes, and names the first stage that differs.

    Exit status: 0 done, 1 a gate is exceeded or some photos are unreadable, 2 could not run, 130
    interrupted (the results so far are printed).

      regnet compare bundled bundled:bf16 photos/
      regnet compare bundled:CPU bundled --device cuda photos/
      regnet compare my.pyth:torch my.pyth:ir photos/ --max-flips 0 --max-delta 1e-5
      regnet compare bundled http://localhost:8000/v2/models/bundled photos/
    """
    from regnet.comparison.compare import ComparisonRecord
    from regnet.comparison.sides import open_pair
    from regnet.comparison.tally import ComparisonTally, open_photos

    require_sources("compare", [photos.dataset])
    with models.library() as library:
        pair = open_pair(photos.a, photos.b, library=library, device=photos.device)
    truth = str(photos.truth) if photos.truth else None
    compared = open_photos(photos.dataset, pair.labels, truth=truth, offline=models.offline)
    tally = ComparisonTally(pair)
    record = partial(ComparisonRecord, pair=pair, photos=compared, gates=gates)
    try:
        tally.run(track(compared.items(), "comparing", compared.count, "photos"))
    except KeyboardInterrupt:
        if tally.photos:
            _report(record(comparison=tally.result(), complete=False), results)
        raise
    complete = record(comparison=tally.result())
    _report(complete, results)
    return bool(complete.exceeded or complete.comparison.unreadable)


def _report(record: "ComparisonRecord", results: Report) -> None:
    from regnet.comparison.report import comparison_report

    show(
        partial(comparison_report, record), record.to_dict, as_json=results.json, html=results.html
    )
