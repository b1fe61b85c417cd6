"""The photos in a request's body: one as it is, the files of a form, or a list in JSON."""

from dataclasses import dataclass
from typing import Any, Final

from regnet.addresses import without_secrets
from regnet.errors import ImageError, shown
from regnet.serving.answers import Forbidden
from regnet.serving.content_coding import Unsupported
from regnet.serving.exchange import Exchange
from regnet.serving.kserve import from_base64, json_object
from regnet.serving.multipart import parse_multipart
from regnet.serving.refusals import BadRequest, TooLarge
from regnet.serving.served_model import ServedModel
from regnet.serving.service import Service

_IMAGE_TYPES: Final = ("application/octet-stream", "application/x-www-form-urlencoded", "")
"""Taken as one image beside image/*: the second is what `curl --data-binary` says by itself."""


@dataclass(frozen=True)
class Photos:
    """The encoded photos of a request, or why one could not be fetched, and a name of each."""

    data: list[bytes | ImageError]
    sources: list[str]


async def read_photos(exchange: Exchange, service: Service, model: ServedModel) -> Photos:
    """Return the photos in the body of a request; raises `Refused`."""
    kind = exchange.media_type
    if kind.startswith("image/") or kind in _IMAGE_TYPES:
        return Photos([await exchange.body()], ["image 0"])
    if kind == "multipart/form-data":
        return _files(await exchange.body(), exchange, most=service.limits.batch)
    if kind == "application/json":
        asked = json_object(await exchange.body(), model.metadata, service.limits)
        return await _listed(asked, exchange, service)
    raise Unsupported(
        f"a body of {shown(kind)} is not taken: send image/*, application/octet-stream, "
        "multipart/form-data or application/json"
    )


def _files(body: bytes, exchange: Exchange, *, most: int) -> Photos:
    parts = parse_multipart(body, exchange.header("content-type") or "", most=most)
    if not parts:
        raise BadRequest("the form has no files")
    sources = [part.name or f"image {number}" for number, part in enumerate(parts)]
    return Photos([part.data for part in parts], sources)


async def _listed(asked: dict[str, Any], exchange: Exchange, service: Service) -> Photos:
    """Return the photos that JSON lists: in base64, and by their addresses where that is on."""
    if unknown := [name for name in asked if name not in ("images", "urls")]:
        raise BadRequest(f"unknown field {shown(unknown[0])}; there are images and urls")
    texts, urls = _list(asked, "images"), _list(asked, "urls")
    count, most = len(texts) + len(urls), service.limits.batch
    if not count:
        raise BadRequest('the JSON lists no images: {"images": ["<base64>", ...]}')
    if count > most:
        raise TooLarge(
            f"{count} images in one request are over the limit of {most} (batch)", limit="batch"
        )
    data: list[bytes | ImageError] = [
        from_base64(text, f"image {number}") for number, text in enumerate(texts)
    ]
    sources = [f"image {number}" for number in range(len(texts))]
    if urls:
        data += await _fetched(urls, exchange, service)
        sources += map(without_secrets, urls)
    return Photos(data, sources)


def _list(asked: dict[str, Any], name: str) -> list[Any]:
    found = asked.get(name, [])
    if not isinstance(found, list):
        raise BadRequest(f"{name}={shown(found)} is no list")
    return found


async def _fetched(
    urls: list[Any], exchange: Exchange, service: Service
) -> list[bytes | ImageError]:
    if service.remote is None:
        raise Forbidden("this server opens no addresses: it was started without --allow-url")
    if wrong := [url for url in urls if not isinstance(url, str)]:
        raise BadRequest(f"the address {shown(wrong[0])} is no text")
    return await service.remote.fetch_all(urls, deadline=exchange.deadline)
