"""Files of results: they get their names once they are complete, or are streams of others."""

import io
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TextIO

from regnet.system.errors import OutputError, reason_of
from regnet.system.files import open_stream


def part_of(output: Path) -> Path:
    """Return the path of an output file until it is complete."""
    output = output.resolve()
    return output.with_name(output.name + ".part")


@contextmanager
def naming(output: Path) -> Iterator[None]:
    """Turn an `OSError` into an `OutputError` that names the output, but for a reader that left."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as exc:
        raise OutputError(f"cannot write {output}: {reason_of(exc)}") from exc


@dataclass(frozen=True)
class OutputFile:
    """An open file that gets its name with `complete`; until then it is at `part`.

    A stream, pipe or device is written as it is: its `part` is None.
    """

    path: Path
    part: Path | None
    file: BinaryIO

    def complete(self) -> None:
        """Close the file and give it its name. Raises `OSError`."""
        self.file.close()
        if self.part is not None:
            self.part.replace(self.path)

    def keep(self) -> None:
        """Close the file after an interrupt; it gets its name unless an older file has it."""
        if self.part is not None and self.path.exists():
            self.file.close()
        else:
            self.complete()

    def discard(self) -> None:
        """Close the file and remove what is not complete."""
        with suppress(OSError):
            self.file.close()
        if self.part is not None:
            self.part.unlink(missing_ok=True)


def open_output(path: Path) -> OutputFile:
    """Open a file to write results to; a link stays one. Raises `OSError`."""
    if (stream := open_stream(path)) is not None:
        return OutputFile(path, None, stream)
    part = part_of(path)
    return OutputFile(path.resolve(), part, part.open("wb"))


def text_of(file: BinaryIO) -> TextIO:
    """Return a binary file as one of UTF-8, newlines as they are."""
    return io.TextIOWrapper(file, encoding="utf-8", errors="backslashreplace", newline="")
