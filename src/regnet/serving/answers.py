"""Answers as bytes: JSON without detours, and errors that name the limit and the request."""

import math
from typing import Any, ClassVar

from starlette.responses import Response

from regnet.serving.exchange import Exchange
from regnet.serving.refusals import Refused
from regnet.system.json_text import json_bytes


class Forbidden(Refused):
    """A browser says that another site sent it, or the server was started without this."""

    status: ClassVar[int] = 403


def short_json(value: Any) -> bytes:
    """Return JSON in UTF-8, as short as it gets."""
    return json_bytes(value, separators=(",", ":"), allow_nan=False)


def json_answer(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Return an answer that is JSON."""
    return Response(short_json(value), status, headers, "application/json")


def error_answer(
    exchange: Exchange,
    status: int,
    error: str,
    *,
    limit: str | None = None,
    retry_after: float | None = None,
    more: dict[str, Any] | None = None,
) -> Response:
    """Return `{"error", "limit", "id"}`, and `more`; `limit` is there where one is exceeded."""
    value: dict[str, Any] = {**(more or {}), "error": error}
    if limit is not None:
        value["limit"] = limit
    value["id"] = exchange.id
    headers = {} if retry_after is None else {"Retry-After": str(max(1, math.ceil(retry_after)))}
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return json_answer(value, status, headers)


def refusal_answer(exchange: Exchange, refused: Refused) -> Response:
    """Return the answer that says why a request is not served."""
    return error_answer(
        exchange,
        refused.status,
        str(refused),
        limit=refused.limit,
        retry_after=refused.retry_after,
    )
