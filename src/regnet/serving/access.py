"""Whom a server answers: requests with its token, or without one those under its own names.

Without a token a browser could be made to send requests. A name of somebody else that leads here
(DNS rebinding) shows in Host. A page of another site shows in Origin or in Sec-Fetch-Site: every
browser sends one of them where it matters.
Sources: RFC 9110, 7.2 (Host); https://fetch.spec.whatwg.org (Origin, Sec-Fetch-Site).
"""

import hashlib
import hmac
import os
import re
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final

from regnet.serving.refusals import BadRequest, Forbidden
from regnet.system.errors import StartError, shown

VARIABLE: Final = "REGNET_TOKEN"
_MIN_LENGTH: Final = 16  # characters; shorter tokens can be guessed
_AUTHORITY: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::(\d{1,5})?)?")
_ORIGIN: Final = re.compile(r"(https?)://(\S+)", re.IGNORECASE)
_READS: Final = frozenset({"GET", "HEAD", "OPTIONS"})


@dataclass(frozen=True)
class Token:
    """A secret that every request must bring; only its hash is kept."""

    digest: bytes = field(repr=False)

    def admits(self, authorization: bytes | None) -> bool:
        """Tell whether an `Authorization` header brings the token, in constant time."""
        scheme, _, given = (authorization or b"").partition(b" ")
        digest = hashlib.sha256(given.strip()).digest()
        return hmac.compare_digest(digest, self.digest) and scheme.lower() == b"bearer"


def new_token(text: str, *, source: str) -> Token:
    """Return a token; raises `StartError` if it is too short or does not fit in a header."""
    secret = text.strip()
    plain = secret.isascii() and secret.isprintable() and " " not in secret
    if len(secret) < _MIN_LENGTH or not plain:
        raise StartError(
            f"{source}: holds no token: at least {_MIN_LENGTH} letters, digits or signs without "
            "spaces; make one with `openssl rand -hex 32`"
        )
    return Token(hashlib.sha256(secret.encode()).digest())


def read_token(file: Path | None, environ: Mapping[str, str] = os.environ) -> Token | None:
    """Return the token in a file, else the one in $REGNET_TOKEN, else None.

    Raises `StartError` if the file cannot be read or holds no token.
    """
    if file is None:
        return new_token(environ[VARIABLE], source=f"${VARIABLE}") if VARIABLE in environ else None
    try:
        return new_token(file.read_text(), source=str(file))
    except (OSError, UnicodeDecodeError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else "is not text"
        raise StartError(f"{file}: the token cannot be read: {reason}") from exc


class Visitors:
    """Knows the names of a server: its `host`, loopback, and the names `allowed`.

    The address at which a connection came in is a name too: no name service can redirect it. So is
    the machine's name if the server listens to other machines. Raises `StartError` for an allowed
    name that is none.
    """

    def __init__(self, host: str, allowed: Iterable[str] = ()) -> None:
        own, self._allowed = _canonical(host), frozenset(map(_allowed, allowed))
        self._own = {own} if _is_loopback(own) else {own, _canonical(socket.gethostname())}

    def require_welcome(self, scope: Mapping[str, Any]) -> None:
        """Raise `Forbidden` for a foreign name or site, `BadRequest` for no clear Host.

        HTTP/1.0 has no Host and no browser speaks it: such requests are answered.
        """
        hosts = [value for name, value in scope["headers"] if name == b"host"]
        if len(hosts) > 1 or (not hosts and scope["http_version"] != "1.0"):
            raise BadRequest(f"a request has one header Host, not {len(hosts)}")
        host = hosts[0].decode("latin-1") if hosts else ""
        name, _ = _parts(host)
        if hosts and not self._is_mine(name, scope):
            raise Forbidden(
                f"this server is not called {shown(host)}: it answers to its own address, to "
                "localhost and to the names given by --allow-host"
            )
        if not self._is_own_site(host, scope):
            raise Forbidden("a page of another site may not send requests here")

    def _is_mine(self, name: str, scope: Mapping[str, Any]) -> bool:
        return (
            name in self._own
            or name in self._allowed
            or _is_loopback(name)
            or (name != "" and name == _canonical((scope.get("server") or ("",))[0]))
        )

    def _is_own_site(self, host: str, scope: Mapping[str, Any]) -> bool:
        """Tell whether no header says that a page of another site sends this."""
        headers = scope["headers"]
        sites = {value for name, value in headers if name == b"sec-fetch-site"}
        if scope["method"] not in _READS and not sites <= {b"none", b"same-origin"}:
            return False
        origins = [value.decode("latin-1") for name, value in headers if name == b"origin"]
        return not origins or (len(origins) == 1 and self._is_own_origin(origins[0], host))

    def _is_own_origin(self, origin: str, host: str) -> bool:
        """Tell whether an origin is a page of this server, perhaps behind a proxy with https."""
        if not (match := _ORIGIN.fullmatch(origin)):
            return False
        scheme, (name, port) = match[1].lower(), _parts(match[2])
        usual = "443" if scheme == "https" else "80"
        own_name, own_port = _parts(host)
        same = name != "" and (name, port or usual) == (own_name, own_port or usual)
        return same and (scheme == "http" or name in self._allowed)


def _allowed(text: str) -> str:
    name, port = _parts(text if ":" not in text or text.startswith("[") else f"[{text}]")
    if not name or port:
        raise StartError(f"--allow-host {text}: is not a name; give one such as photos.example.org")
    return name


def _parts(authority: str) -> tuple[str, str]:
    """Return the name and port in a Host or Origin; a missing one is empty."""
    match = _AUTHORITY.fullmatch(authority)
    return (_canonical(match[1]), (match[2] or "").lstrip("0")) if match else ("", "")


@lru_cache(1024)
def _canonical(name: str) -> str:
    """Return a name or address in the form that is compared."""
    name = name.strip("[]").partition("%")[0].lower().removesuffix(".")
    try:
        return str(ip_address(name))
    except ValueError:
        return name


def _is_loopback(name: str) -> bool:
    try:
        return name == "localhost" or ip_address(name).is_loopback
    except ValueError:
        return False
