"""The house: rooms on floors, imports that point down, no circle, nothing loose, nothing too long.

Imports inside functions count as others do. Those for type checkers alone make no circle of files,
but they point down as well.
"""

import ast
import shutil
from collections.abc import Iterator, Mapping
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import regnet

ROOT = Path(regnet.__file__).parent
FLOORS = (
    ("system",),
    ("network", "pixels", "statistics"),
    ("checkpoints", "data", "pages"),
    ("ir", "video", "zoo"),
    ("conversion",),
    ("inference",),
    ("explanation", "evaluation", "comparison", "benchmarking", "doctor", "cluster"),
    ("calibration", "quantization", "serving"),
    ("training", "features"),
    ("space",),
    ("cli",),
)
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS, start=1) for room in rooms}
FRONT = ("__init__", "__main__")
MOST_FLOORS = 11
MOST_LINES = 400
MOST_FUNCTION_LINES = 80

Graph = Mapping[str, set[str]]


def room(module: str) -> str:
    return module.partition(".")[0]


def folder(module: str) -> str:
    return module.rpartition(".")[0]


@cache
def named(text: str) -> tuple[frozenset[str], frozenset[str]]:
    """Return what a file imports of the package, wherever it does; second: but for type checkers.

    Both have modules, and names in modules as if they were some.
    """
    tree = ast.parse(text)
    blocks = (n for n in tree.body if isinstance(n, ast.If) and "TYPE_CHECKING" in ast.dump(n.test))
    typing = {id(inner) for block in blocks for inner in ast.walk(block)}
    every, real = set(), set()
    for node in ast.walk(tree):
        found = {n.removeprefix("regnet.") for n in _named(node) if n.startswith("regnet.")}
        every |= found
        real |= set() if id(node) in typing else found
    return frozenset(every), frozenset(real)


def _named(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.ImportFrom) and node.module:
        yield node.module
        yield from (f"{node.module}.{alias.name}" for alias in node.names)
    elif isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.Call) and ast.unparse(node.func) == "import_module":
        yield from (str(a.value) for a in node.args if isinstance(a, ast.Constant))


def imports(root: Path, *, typing: bool) -> Graph:
    """Return what each module in a room imports; a name from a package is its module's."""
    files = {
        ".".join(path.relative_to(root).with_suffix("").parts): path
        for path in root.rglob("*.py")
        if path.parent != root
    }
    graph = {}
    for name, path in files.items():
        words = named(path.read_text("utf-8"))[0 if typing else 1]
        found = {n for word in words for n in (word, f"{word}.__init__")} & (files.keys() - {name})
        inside = {folder(n) for n in found if not n.endswith(".__init__")}
        graph[name] = {n for n in found if not n.endswith(".__init__") or folder(n) not in inside}
    return graph


def circle(graph: Graph) -> list[str]:
    """Return the members of a circle; none if there is none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as exc:
        return list(exc.args[1])
    return []


def floors(graph: Graph) -> int:
    """Return how many floors the rooms need: each is one above the highest that it imports."""
    rooms: dict[str, set[str]] = {}
    for name, used in graph.items():
        rooms.setdefault(room(name), set()).update({room(n) for n in used} - {room(name)})
    drawn: dict[str, int] = {}
    for one in TopologicalSorter(rooms).static_order():
        drawn[one] = 1 + max((drawn[below] for below in rooms[one]), default=0)
    return max(drawn.values())


def faults(root: Path) -> Iterator[str]:
    """Yield what is wrong with the structure of a package."""
    yield from (f"loose module: {p.stem}" for p in root.glob("*.py") if p.stem not in FRONT)
    for name, used in imports(root, typing=True).items():
        if room(name) not in FLOOR:
            yield f"no room of ours: {name}"
        for other in used:
            above = FLOOR.get(room(other), 0) >= FLOOR.get(room(name), 0)
            if room(name) != room(other) and above:
                yield f"upward: {name} imports {other}"
    graph = imports(root, typing=False)
    folders: dict[str, set[str]] = {}
    for name, used in graph.items():
        folders.setdefault(folder(name), set()).update({folder(n) for n in used} - {folder(name)})
    rings = {"files": circle(graph), "folders": circle(folders)}
    yield from (f"circle of {k}: {' -> '.join(ring)}" for k, ring in rings.items() if ring)
    if not any(rings.values()) and floors(graph) > MOST_FLOORS:
        yield f"{floors(graph)} floors"


def too_long(root: Path) -> Iterator[str]:
    """Yield the modules and functions with more lines than a reader keeps in mind."""
    for path in root.rglob("*.py"):
        text = path.read_text("utf-8")
        sizes = {"the module": (text.count("\n"), MOST_LINES)}
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or 0) - node.lineno + 1
                sizes[f"{node.name}:{node.lineno}"] = (lines, MOST_FUNCTION_LINES)
        for name, (lines, most) in sizes.items():
            if lines > most:
                yield f"{path.relative_to(root)}: {name}: {lines} lines, at most {most}"


def test_imports_point_down() -> None:
    assert len(FLOORS) <= MOST_FLOORS
    assert list(faults(ROOT)) == []


def test_nothing_is_too_long() -> None:
    assert list(too_long(ROOT)) == []


@pytest.mark.parametrize(
    ("file", "line", "fault"),
    [
        ("system/files.py", "from regnet.cli import main", "upward: system.files imports cli"),
        (
            "system/files.py",
            "import regnet.cli.console",
            "upward: system.files imports cli.console",
        ),
        (
            "data/archives.py",
            "from regnet.ir import graph",
            "upward: data.archives imports ir.graph",
        ),
        ("pixels/decode.py", 'import_module("regnet.space.search")', "upward: pixels.decode"),
        ("data/archives.py", "from regnet.data.sources import Item", "circle of files"),
        ("pixels/kernel/__init__.py", "import regnet.pixels.preprocess", "circle of folders"),
        ("loose.py", "pass", "loose module: loose"),
        ("attic/__init__.py", "pass", "no room of ours: attic"),
    ],
)
def test_a_fault_inside_a_function_is_found(
    tmp_path: Path, file: str, line: str, fault: str
) -> None:
    for path in ROOT.rglob("*.py"):
        copy = tmp_path / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
    (tmp_path / file).parent.mkdir(exist_ok=True)
    with (tmp_path / file).open("a", encoding="utf-8") as added:
        added.write(f"\n\ndef planted() -> None:\n    {line}\n")
    assert any(found.startswith(fault) for found in faults(tmp_path))


def test_a_room_above_the_eleventh_floor_is_found() -> None:
    stairs = {f"room{n}.a": {f"room{n - 1}.a"} for n in range(1, 12)} | {"room0.a": set[str]()}
    assert floors(stairs) == 12
