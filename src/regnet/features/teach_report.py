"""The report of `regnet teach`."""

from regnet.features.teach import TaughtClass, Teaching
from regnet.network.labels import first_name
from regnet.pages import report as page
from regnet.statistics.metrics import Share
from regnet.system.text import counted, percent


def teach_report(result: Teaching) -> page.Report:
    """Return a taught model as a report."""
    failures = [(failure.source, failure.error) for failure in result.failures]
    return page.Report(
        f"{result.path.stem}, taught with {result.dataset}",
        [
            page.Section("", [page.Tiles(_tiles(result))]),
            *([] if result.added else [_classes(result)]),
            *page.unreadable_section(failures, len(failures)),
            page.Section("How this was made", [page.Facts(_facts(result)), *result.remarks]),
        ],
        subtitle=f"{counted(result.photos, 'photo')} of "
        f"{counted(len(result.classes), 'class', 'classes')}, features of {result.model}",
        verdict=str(result.path),
        command="regnet teach",
    )


def _tiles(result: Teaching) -> list[page.Tile]:
    if result.added is not None:
        found = result.classes[0].accuracy
        return [
            page.Tile(
                f"{result.added.label.name} found",
                percent(found.value if found.images else None),
                _interval(found, "of its photos, each left out"),
            ),
            page.Tile(
                "Old answers that change",
                f"at most {percent(result.added.changes, 1)}",
                "an estimate; they become the new class",
            ),
        ]
    share = result.accuracy or Share.of(0, 0)
    value = percent(share.value if share.images else None)
    return [page.Tile("Expected accuracy", value, _interval(share, "leave-one-out top-1"))]


def _interval(share: Share, what: str) -> str:
    if not share.images:
        return "not measured"
    return (
        f"{what}; 95 % interval {100 * share.low:.1f} to {100 * share.high:.1f}, "
        f"{counted(share.images, 'photo')}"
    )


def _classes(result: Teaching) -> page.Section:
    def row(one: TaughtClass) -> tuple[page.Cell, ...]:
        measured = one.accuracy.value if one.accuracy.images else None
        name = first_name(one.label.name) or one.label.wnid
        return name, page.Number(one.photos), page.Bar(measured, percent(measured, 1))

    worst = sorted(result.classes, key=lambda one: one.accuracy.value)
    table = page.Table(("Class", "Photos", "Found"), list(map(row, worst)), sortable=True)
    return page.Section("Classes", [table], "Those found least often first, by leave-one-out.")


def _facts(result: Teaching) -> list[tuple[str, str]]:
    taught, calibration = result.taught, result.calibration
    roots = {"none": "the features", "root": "square roots of the features"}
    of = roots.get(taught.root, "signed square roots of the features")
    sets = ""
    if calibration is not None:
        sets = (
            f"for {100 * calibration.coverage:g} %, {calibration.mean_size:.1f} classes on average"
        )
    return [
        ("Model", result.model),
        ("Head", f"linear discriminant of {of}, shrinkage {taught.shrinkage:g}"),
        ("Prediction sets", sets),
        ("Assumed", "; ".join(result.assumed)),
        ("Time", f"{result.seconds:.1f} s"),
    ]
