"""`regnet samples`: the sample photos as files to try things with."""

from pathlib import Path

import typer

from regnet.cli.console import say
from regnet.system.option import Options, argument
from regnet.system.output_file import naming


class _Place(Options):
    folder: Path = argument("Folder to copy them to; it is made if necessary", "DIR")


def samples(options: _Place) -> bool:
    """Copy the sample photos into a folder, and print their paths.

    A file that is there already is left as it is.

    Exit status: 0 done, 1 another file has the name of a sample photo, 2 could not run.

      regnet samples photos/
    """
    from regnet.pixels.samples import sample_photos

    others = False
    for photo in sample_photos():
        path, data = options.folder / photo.name, photo.read_bytes()
        with naming(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                with path.open("xb") as file:
                    file.write(data)
            except FileExistsError:
                same = path.is_file() and path.read_bytes() == data
                others |= not same
                say(
                    f"{path}: {'exists' if same else 'another file has this name; not overwritten'}"
                )
            else:
                typer.echo(path)
    return others
