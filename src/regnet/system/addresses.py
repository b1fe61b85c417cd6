"""Network addresses as texts."""

import re
from ipaddress import ip_address
from urllib.parse import urlsplit


def without_secrets(url: str) -> str:
    """Return an address without user name and password, fit to be shown and recorded."""
    return re.sub(r"^([^/?#]*//)?[^/?#]*@", r"\1", url)


def host_of(url: str) -> str:
    """Return the host of an address, with its port if it names one, without user and password."""
    return without_secrets(url).partition("//")[2].partition("/")[0]


def is_local_address(url: str) -> bool:
    """Return whether an address is of files of this machine, or in memory."""
    return url.lower().startswith(("file://", "memory://", "local://"))


def is_loopback(url: str) -> bool:
    """Return whether an address is one of this machine, which needs no network."""
    try:
        host = urlsplit(url).hostname or ""
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
