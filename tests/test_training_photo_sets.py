"""Validation photos that are training photos: found by content, at a bounded cost."""

from functools import partial

from regnet.data.labelled import LabelledItem
from regnet.system.errors import ImageError
from regnet.training.photo_sets import leak_findings


class Files:
    """Photos as bytes by name; counts what is read."""

    def __init__(self, files: dict[str, bytes | None], *, sized: bool = True) -> None:
        self.read: list[str] = []
        self.items = [
            LabelledItem(
                name, 0, partial(self._read, name, data), len(data or b"xx") if sized else None
            )
            for name, data in files.items()
        ]

    def _read(self, name: str, data: bytes | None) -> bytes:
        self.read.append(name)
        if data is None:
            raise ImageError("truncated")
        return data


def numbered(count: int, size: int, start: int = 0) -> dict[str, bytes | None]:
    return {f"{n}.bmp": n.to_bytes(4) * (size // 4) for n in range(start, start + count)}


def test_only_photos_of_equal_size_are_read() -> None:
    train, val = Files(numbered(50, 400)), Files({"a": b"x" * 400, "b": b"y" * 404})
    assert leak_findings(train.items, val.items) == ()
    assert len(train.read) == 50
    assert val.read == ["a"]


def test_the_cost_is_bounded() -> None:
    train, val = Files(numbered(1000, 400)), Files(numbered(500, 400))
    (found,) = leak_findings(train.items, val.items, most_photos=20, most_bytes=400 * 999)
    assert found.text.startswith("20 of 20 validation photos compared (100 %) are training photos")
    assert len(train.read) == 20  # too many of one size: those of the same name
    assert len(val.read) == 20


def test_photos_of_unknown_size_and_unreadable_ones() -> None:
    train = Files({"a": b"one", "b": b"two", "c": None}, sized=False)
    val = Files({"x": b"two", "y": None, "z": b"six", "w": b"zzzz", "v": b"yyyyy"}, sized=False)
    (found,) = leak_findings(train.items, val.items)
    assert (found.count, found.severity, found.files[0].source) == (1, "warning", "x")
    assert found.text.startswith("1 of 5 validation photos (20 %) is a training photo, too")
    assert leak_findings(Files({"a": None}).items, Files({"a": None}).items) == ()
