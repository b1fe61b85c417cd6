"""What killed processes leave beside the files they were writing, and who removes it."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from regnet.system.files import new_folder_beside, temporary_folder, whole_file, write_whole

if sys.platform == "win32":
    pytest.skip("nothing tells who lives", allow_module_level=True)

WRITER = """
import sys, time
from pathlib import Path
from regnet.system.files import new_folder_beside, whole_file
with {how}(Path(sys.argv[1])) as scratch:
    print("writing", flush=True)
    time.sleep(60)
"""


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def writing(path: Path, how: str) -> subprocess.Popen[str]:
    """Return a process that is in the middle of a write."""
    command = [sys.executable, "-c", WRITER.format(how=how), str(path)]
    process = subprocess.Popen(command, text=True, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == "writing\n"
    return process


@pytest.mark.parametrize("how", ["whole_file", "new_folder_beside"])
@pytest.mark.parametrize("then", [lambda path: write_whole(path, b"new"), None])
def test_scratch_of_the_dead_goes_with_the_next_write_that_of_the_living_stays(
    tmp_path: Path, how: str, then: object
) -> None:
    path = tmp_path / "result"
    (tmp_path / ".regnet-notes.tmp").mkdir()  # not of this form
    (tmp_path / ".regnet-12345678.tmp").symlink_to(tmp_path / ".regnet-notes.tmp")
    before = names(tmp_path)
    with writing(path, how) as process:
        (scratch,) = set(names(tmp_path)) - set(before)
        write_whole(path, b"one")
        assert names(tmp_path) == sorted([*before, scratch, "result"])
        process.kill()
        process.communicate()
    assert scratch in names(tmp_path)
    if callable(then):
        then(tmp_path / "another")
    else:
        with new_folder_beside(path):
            pass
    assert scratch not in names(tmp_path)
    assert set(before) < set(names(tmp_path))
    assert path.read_bytes() == b"one"


def test_writers_at_once_leave_each_other_alone(tmp_path: Path) -> None:
    def write(number: int) -> None:
        for turn in range(40):
            with whole_file(tmp_path / f"{number}") as file:
                file.write(b"%d" % turn)
            with new_folder_beside(tmp_path / "x") as folder:
                (folder / "part").write_bytes(b"%d" % turn)
                (folder / "part").replace(tmp_path / f"{number}.moved")

    threads = [threading.Thread(target=write, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert names(tmp_path) == sorted(f"{n}{end}" for n in range(6) for end in ("", ".moved"))
    assert {path.read_bytes() for path in tmp_path.iterdir()} == {b"39"}


def test_a_folder_that_cannot_be_listed_can_be_written_to(tmp_path: Path) -> None:
    folder = tmp_path / "closed"
    folder.mkdir(mode=0o300)
    write_whole(folder / "a", b"one")
    assert (folder / "a").read_bytes() == b"one"


def test_a_temporary_folder_is_nobody_elses_and_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with temporary_folder() as folder:
        assert folder.parent == tmp_path
        assert folder.stat().st_mode & 0o777 == 0o700
        (folder / "file").touch()
    assert names(tmp_path) == []


def test_what_is_interrupted_leaves_nothing(tmp_path: Path) -> None:
    with writing(tmp_path / "result", "whole_file") as process:
        process.send_signal(signal.SIGINT)
        process.communicate()
    assert names(tmp_path) == []


def test_a_file_has_the_mode_of_any_other(tmp_path: Path) -> None:
    usual = os.umask(0o027)
    try:
        write_whole(tmp_path / "a", b"")
    finally:
        os.umask(usual)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o640
