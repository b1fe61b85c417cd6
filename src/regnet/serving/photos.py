"""The photos in a request's body: one as it is, the files of a form, or a list in JSON.

All in memory: images never touch the disk.
"""

from dataclasses import dataclass, field
from functools import partial
from typing import Final

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from regnet.ir.metadata import ModelMetadata
from regnet.serving.exchange import Exchange
from regnet.serving.kserve import from_base64, json_object
from regnet.serving.limits import Limits
from regnet.serving.refusals import BadRequest, TooLarge, Unsupported
from regnet.serving.served_model import ServedModel
from regnet.serving.service import Service
from regnet.system.errors import shown

_IMAGE_TYPES: Final = ("application/octet-stream", "application/x-www-form-urlencoded", "")
"""Taken as one image beside image/*: `curl --data-binary` sends the second by itself."""


@dataclass(frozen=True)
class RequestPhotos:
    """The encoded photos of a request, a name of each, and the text `fields` of its form."""

    data: list[bytes]
    sources: list[str]
    fields: tuple[tuple[str, str], ...] = ()


async def read_photos(exchange: Exchange, service: Service, model: ServedModel) -> RequestPhotos:
    """Return the photos in the body of a request; raises `Refused`."""
    kind = exchange.media_type
    if kind.startswith("image/") or kind in _IMAGE_TYPES:
        return RequestPhotos([await exchange.body()], ["image 0"])
    if kind not in ("multipart/form-data", "application/json"):
        raise Unsupported(
            f"a body of {shown(kind)} is not taken: send image/*, application/octet-stream, "
            "multipart/form-data or application/json"
        )
    body = await exchange.body()
    if kind == "application/json":
        read = partial(_listed, body, model.metadata, service.limits)
    else:
        content_type = exchange.header("content-type") or ""
        read = partial(_files, body, content_type, max_files=service.limits.batch)
    return await service.in_turn(read, size=len(body), exchange=exchange)


def _listed(body: bytes, metadata: ModelMetadata, limits: Limits) -> RequestPhotos:
    """Return the photos that JSON lists in base64."""
    asked, most = json_object(body, metadata, limits), limits.batch
    if unknown := [name for name in asked if name != "images"]:
        raise BadRequest(
            f"unknown field {shown(unknown[0])}; the photos are the list images, in base64 (no "
            "address is opened here: fetch a photo yourself)"
        )
    texts = asked.get("images", [])
    if not isinstance(texts, list):
        raise BadRequest(f"images={shown(texts)} is no list")
    if not texts:
        raise BadRequest('the JSON lists no images: {"images": ["<base64>", ...]}')
    if len(texts) > most:
        raise TooLarge(
            f"{len(texts)} images in one request are over the limit of {most} (batch)",
            limit="batch",
        )
    sources = [f"image {number}" for number in range(len(texts))]
    return RequestPhotos([from_base64(*each) for each in zip(texts, sources, strict=True)], sources)


def _files(body: bytes, content_type: str, *, max_files: int) -> RequestPhotos:
    """Return the files and fields of a form."""
    parts = _parts(body, content_type, max_files)
    files = [part for part in parts if part.is_file]
    sources = [part.name or f"image {number}" for number, part in enumerate(files)]
    fields = [(p.field, p.data.decode("utf-8", "replace")) for p in parts if not p.is_file]
    return RequestPhotos([part.data for part in files], sources, tuple(fields))


@dataclass
class _Part:
    """One part of a form: the names of its field and its file, its bytes.

    It is a file if it has a file's name, or a type other than text.
    """

    field: str = ""
    name: str = ""
    is_file: bool = False
    data: bytes = b""


@dataclass
class _Form:
    """Receives the calls of the parser."""

    max_files: int
    parts: list[_Part] = field(default_factory=list)
    chunks: list[bytes] = field(default_factory=list)
    header: bytes = b""
    value: bytes = b""
    ended: bool = False

    def on_part_begin(self) -> None:
        self.parts.append(_Part())
        self.chunks = []

    def on_header_field(self, data: bytes, start: int, end: int) -> None:
        self.header += data[start:end]

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        self.value += data[start:end]

    def on_header_end(self) -> None:
        part, header = self.parts[-1], self.header.lower()
        value, options = parse_options_header(self.value)
        if header == b"content-disposition":
            part.field = options.get(b"name", b"").decode("utf-8", "replace")
            part.name = options.get(b"filename", b"").decode("utf-8", "replace")
            part.is_file |= b"filename" in options
        elif header == b"content-type":
            part.is_file |= not value.lower().startswith(b"text/")
        self.header = self.value = b""

    def on_headers_finished(self) -> None:
        files = sum(part.is_file for part in self.parts)
        if files > self.max_files:
            raise TooLarge(
                f"more than {self.max_files} images in one request are over the limit (batch)",
                limit="batch",
            )
        if len(self.parts) - files > self.max_files:
            raise BadRequest(f"the form has more than {self.max_files} fields beside its files")

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        self.chunks.append(data[start:end])

    def on_part_end(self) -> None:
        self.parts[-1].data = b"".join(self.chunks)

    def on_end(self) -> None:
        self.ended = True


def _parts(body: bytes, content_type: str, max_files: int) -> list[_Part]:
    """Return the parts of a multipart/form-data body."""
    _, options = parse_options_header(content_type)
    if not (boundary := options.get(b"boundary")):
        raise BadRequest("multipart/form-data without a boundary")
    form = _Form(max_files)
    callbacks = {name: getattr(form, name) for name in dir(form) if name.startswith("on_")}
    try:
        parser = MultipartParser(boundary, callbacks)  # type: ignore[arg-type]
        parser.write(body)
        parser.finalize()
    except FormParserError as exc:
        raise BadRequest(f"the body is no multipart/form-data ({exc})") from exc
    if not form.ended:
        raise BadRequest("the multipart/form-data ends too early")
    return form.parts
