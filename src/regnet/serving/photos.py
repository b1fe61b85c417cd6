"""The photos in a request's body: one as it is, the files of a form, or a list in JSON."""

from dataclasses import dataclass
from functools import partial
from typing import Final

from regnet.ir.metadata import ModelMetadata
from regnet.serving.content_coding import Unsupported
from regnet.serving.exchange import Exchange
from regnet.serving.kserve import from_base64, json_object
from regnet.serving.limits import Limits
from regnet.serving.multipart import parse_multipart
from regnet.serving.refusals import BadRequest, TooLarge
from regnet.serving.served_model import ServedModel
from regnet.serving.service import Service
from regnet.system.errors import shown

_IMAGE_TYPES: Final = ("application/octet-stream", "application/x-www-form-urlencoded", "")
"""Taken as one image beside image/*: the second is what `curl --data-binary` says by itself."""


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
    if kind == "multipart/form-data":
        body = await exchange.body()
        read = partial(_files, body, exchange, most=service.limits.batch)
        return await service.in_turn(read, size=len(body), exchange=exchange)
    if kind == "application/json":
        body = await exchange.body()
        read = partial(_listed, body, model.metadata, service.limits)
        return await service.in_turn(read, size=len(body), exchange=exchange)
    raise Unsupported(
        f"a body of {shown(kind)} is not taken: send image/*, application/octet-stream, "
        "multipart/form-data or application/json"
    )


def _files(body: bytes, exchange: Exchange, *, most: int) -> RequestPhotos:
    parts = parse_multipart(body, exchange.header("content-type") or "", most=most)
    files = [part for part in parts if part.is_file]
    sources = [part.name or f"image {number}" for number, part in enumerate(files)]
    fields = [(p.field, p.data.decode("utf-8", "replace")) for p in parts if not p.is_file]
    return RequestPhotos([part.data for part in files], sources, tuple(fields))


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
