"""What is never a photo or a class because a system made it."""

import pytest

from regnet.data.clutter import first_clutter, is_clutter

CLUTTER = [
    *("@eaDir", "@EADIR", "#recycle", "#snapshot", "lost+found", "$RECYCLE.BIN", "$Recycle.Bin"),
    *("System Volume Information", ".Trash-1000", ".Trashes", ".thumbnails", "__MACOSX", ".git"),
    *("@__thumb", "FOUND.000", "Thumbs.db", "desktop.ini", "._photo.jpg", "...", "Icon\r"),
]
PHOTOS = [
    "Trash",
    "trash",
    "recycle",
    "recycled",
    "snapshot",
    "cats",
    "..",
    ".",
    "found.jpg",
    "#1",
    "@home",
    "",
]


@pytest.mark.parametrize("name", CLUTTER)
def test_what_a_system_makes_is_clutter(name: str) -> None:
    assert is_clutter(name)


@pytest.mark.parametrize("name", PHOTOS)
def test_what_people_make_is_not(name: str) -> None:
    assert not is_clutter(name)


def test_the_first_component_that_is_clutter_is_named() -> None:
    assert first_clutter("cats/@eaDir/.x/p1.jpg") == "@eaDir"
    assert first_clutter("../cats/./p1.jpg") is None
