"""What a server answers instead of a result: one error a status, with the limit that it names."""

from typing import ClassVar

from regnet.system.errors import RegNetError


class Refused(RegNetError):  # noqa: N818 - what is raised is an answer, not a fault
    """A request is not served; the message says why.

    `limit` is the field of `Limits` that it is over, None where it is over none; `retry_after`
    the seconds after which it may be sent again, None where that does not help.
    """

    status: ClassVar[int]

    def __init__(
        self, message: str, *, limit: str | None = None, retry_after: float | None = None
    ) -> None:
        super().__init__(message)
        self.limit = limit
        self.retry_after = retry_after


class BadRequest(Refused):
    """It is not what the protocol asks for."""

    status = 400


class Unauthorized(Refused):
    """It lacks the token."""

    status = 401


class NotFound(Refused):
    """There is no such model."""

    status = 404


class TooLarge(Refused):
    """It has too many bytes or images."""

    status = 413


class Unprocessable(Refused):
    """It is well-formed, but its images or numbers cannot be used."""

    status = 422


class TooMany(Refused):
    """Too many requests wait already."""

    status = 429


class NotReady(Refused):
    """The model is being loaded or unloaded, or the server stops."""

    status = 503


class TooLate(Refused):
    """Its time was over before its turn came."""

    status = 504
