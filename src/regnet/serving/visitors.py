"""Whom a server without a token answers: requests under its own names, no pages of other sites.

A name of somebody else that leads here (DNS rebinding) shows in Host. A page of another site shows
in Origin, or in Sec-Fetch-Site: each browser sends the one or the other where it matters.
Sources: RFC 9110, 7.2 (Host); https://fetch.spec.whatwg.org (Origin, Sec-Fetch-Site).
"""

import re
import socket
from collections.abc import Iterable
from functools import lru_cache
from ipaddress import ip_address
from typing import Final

from regnet.serving.answers import Forbidden
from regnet.serving.exchange import Scope
from regnet.serving.refusals import BadRequest
from regnet.system.errors import StartError, shown

_AUTHORITY: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::(\d{1,5})?)?")
_ORIGIN: Final = re.compile(r"(https?)://(\S+)", re.IGNORECASE)
_READS: Final = frozenset({"GET", "HEAD", "OPTIONS"})


class Visitors:
    """Knows the names of a server: `host`, where it listens, loopback, and those `allowed`.

    The address at which a connection came in is a name too: no name service can make it lead
    elsewhere. So is the machine's name, where it listens to other machines. Raises `StartError`
    where what is allowed is no name.
    """

    def __init__(self, host: str, allowed: Iterable[str] = ()) -> None:
        own, self._allowed = _canonical(host), frozenset(map(_allowed, allowed))
        self._own = {own} if _is_loopback(own) else {own, _canonical(socket.gethostname())}

    def require_welcome(self, scope: Scope) -> None:
        """Raise `Forbidden` for a name or a site of somebody else, `BadRequest` for no clear Host.

        HTTP/1.0 has no Host, and no browser speaks it: that is answered.
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

    def _is_mine(self, name: str, scope: Scope) -> bool:
        return (
            name in self._own
            or name in self._allowed
            or _is_loopback(name)
            or (name != "" and name == _canonical((scope.get("server") or ("",))[0]))
        )

    def _is_own_site(self, host: str, scope: Scope) -> bool:
        """Tell whether no browser says that a page of another site sends this."""
        headers = scope["headers"]
        sites = {value for name, value in headers if name == b"sec-fetch-site"}
        if scope["method"] not in _READS and not sites <= {b"none", b"same-origin"}:
            return False
        origins = [value.decode("latin-1") for name, value in headers if name == b"origin"]
        return not origins or (len(origins) == 1 and self._is_own_origin(origins[0], host))

    def _is_own_origin(self, origin: str, host: str) -> bool:
        """Tell whether an origin is that of a page from here; https is a proxy's, so allowed."""
        if not (found := _ORIGIN.fullmatch(origin)):
            return False
        scheme, (name, port) = found[1].lower(), _parts(found[2])
        usual = "443" if scheme == "https" else "80"
        own_name, own_port = _parts(host)
        same = name != "" and (name, port or usual) == (own_name, own_port or usual)
        return same and (scheme == "http" or name in self._allowed)


def _allowed(text: str) -> str:
    name, port = _parts(text if ":" not in text or text.startswith("[") else f"[{text}]")
    if not name or port:
        raise StartError(f"--allow-host {text}: is no name; give one such as photos.example.org")
    return name


def _parts(authority: str) -> tuple[str, str]:
    """Return the name and port in a Host or Origin, empty where there are none."""
    found = _AUTHORITY.fullmatch(authority)
    return (_canonical(found[1]), (found[2] or "").lstrip("0")) if found else ("", "")


@lru_cache(1024)
def _canonical(name: str) -> str:
    """Return a name or address in the one form that is compared."""
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
