"""`regnet embed`: photos -> a file of embeddings."""

import os
from functools import partial
from pathlib import Path

from regnet.cli.console import print_result, say
from regnet.cli.options import Json, Model, Store, require_photos
from regnet.cli.progress import track
from regnet.data.photo_files import is_video, require_extra
from regnet.features.embeddings_file import DType
from regnet.pixels.decode_limits import DecodeLimits
from regnet.system.errors import OutputError
from regnet.system.option import argument, option
from regnet.system.text import counted, visible


class _Input(Model):
    sources: tuple[str, ...] = argument("Photos and videos, see above", "SOURCE...")
    batch_size: int | None = option(
        None, "Maximum batch size, 1 to 256 [8; cuda: measured]", min=1, max=256
    )
    every: float = option(
        1.0, "Embed one frame of a video every SECONDS; 0 = every frame", "SECONDS", min=0
    )


class _Output(Json):
    output: Path = option(..., "Write FILE.npy (and FILE.npy.jsonl) or FILE.parquet", "-o", "FILE")
    dtype: DType = option("float32", "float32 or float16", "TYPE")
    normalise: bool = option(False, "Scale each embedding to length 1")


def embed(input: _Input, output: _Output, limits: DecodeLimits, models: Store) -> bool:
    """Write embeddings of photos, near for photos that look alike.

    SOURCE is a file, a folder, a glob in quotes, an http(s) URL, an archive, a Parquet file of
    images, - or a video. An embedding is the input of the model's last linear layer. Beside an .npy
    a sidecar in JSON lines, FILE.npy.jsonl, names the photo of each row, and the errors.

    An interrupted run resumes when the command is repeated. If FILE.npy exists, only new and
    changed photos are embedded.

    Exit status: 0 done, 1 some photos failed, 2 could not run, 130 interrupted.

      regnet embed --model bundled photos/ -o photos.npy
      regnet embed photos.zip -o photos.parquet --dtype float16 --normalise
    """
    from regnet.data.sources import count_items, iter_items
    from regnet.features.embed import Form, embed_to, require_file

    choice = input.chosen("embed")
    require_file(output.output)
    if os.path.realpath(output.output) in map(os.path.realpath, input.sources):
        raise OutputError(f"cannot write {output.output}: it is one of the sources")
    require_photos("embed", input.sources)
    if any(map(is_video, input.sources)):
        require_extra()
    classifier = models.classifier(choice, limits=limits)
    form = Form(
        model=choice.model,
        precision=choice.precision,
        dtype=output.dtype,
        normalise=output.normalise,
    )
    try:
        summary = embed_to(
            output.output,
            classifier,
            iter_items(input.sources, offline=models.offline),
            form,
            batch_size=input.batch_size,
            every=input.every,
            show=partial(
                track,
                description="embedding",
                count=lambda: count_items(input.sources),
                unit="photos",
            ),
        )
    except KeyboardInterrupt:
        say(f"{output.output}: not complete; the same command resumes")
        raise
    if output.json:
        print_result(summary)
    else:
        rows, failed = counted(summary.rows, "embedding"), counted(summary.failed, "photo")
        reused = f"{summary.reused:,} of them from before, " * bool(summary.reused)
        reason = visible(f" ({summary.first_error})" if summary.first_error else "")
        say(f"{output.output}: {rows} of {summary.width} values, {reused}{failed} failed{reason}")
    return summary.failed > 0
