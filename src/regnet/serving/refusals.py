"""Why a server does not serve a request: one error per HTTP status."""

from typing import ClassVar

from regnet.system.errors import RegNetError


class Refused(RegNetError):  # noqa: N818 - what is raised is an answer, not a fault
    """A request is not served; the message says why.

    `limit` names the field of `Limits` that the request exceeds, `retry_after` the seconds after
    which it may be sent again; each is None if there is none.
    """

    status: ClassVar[int]

    def __init_subclass__(cls, *, status: int) -> None:
        cls.status = status

    def __init__(
        self, message: str, *, limit: str | None = None, retry_after: float | None = None
    ) -> None:
        super().__init__(message)
        self.limit = limit
        self.retry_after = retry_after


class BadRequest(Refused, status=400):
    """The request does not follow the protocol."""


class Unauthorized(Refused, status=401):
    """The request lacks the token."""


class Forbidden(Refused, status=403):
    """Another site sent the request, or the server was started without this feature."""


class NotFound(Refused, status=404):
    """There is no such model."""


class TooSlow(Refused, status=408):
    """The body did not arrive in time."""


class TooLarge(Refused, status=413):
    """The request has too many bytes or images."""


class Unsupported(Refused, status=415):
    """The server does not take bodies of this kind."""


class Unprocessable(Refused, status=422):
    """The request is well-formed, but its images or numbers cannot be used."""


class TooMany(Refused, status=429):
    """Too many requests wait already."""


class NotReady(Refused, status=503):
    """The model is being loaded or unloaded, or the server is stopping."""


class TooLate(Refused, status=504):
    """The time limit passed before the request's turn came."""


def too_late(seconds: float) -> TooLate:
    """Return the refusal of a request that took longer than the limit `seconds`."""
    return TooLate(f"not answered within the limit of {seconds:g} s", limit="seconds")
