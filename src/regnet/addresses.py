"""Network addresses as texts, and the client that goes to them."""

import re
from ipaddress import ip_address
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from regnet.errors import DownloadError

if TYPE_CHECKING:
    import httpx


def without_secrets(url: str) -> str:
    """Return an address without user name and password, fit to be shown and recorded."""
    return re.sub(r"^([^/?#]*//)?[^/?#]*@", r"\1", url)


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


def new_client(*, follow_redirects: bool, timeout: float = 5.0) -> "httpx.Client":
    """Return a new pool of HTTP connections; `timeout` is in seconds without a byte.

    Raises `DownloadError` where the environment sets a proxy or certificates that cannot be used.
    """
    import httpx

    headers = {"User-Agent": "regnet-vision", "Accept-Encoding": "identity"}
    try:
        return httpx.Client(follow_redirects=follow_redirects, timeout=timeout, headers=headers)
    except ImportError as exc:
        raise DownloadError(
            "the environment sets a SOCKS proxy, which needs another package: "
            "pip install 'httpx[socks]', or unset ALL_PROXY, HTTPS_PROXY and HTTP_PROXY"
        ) from exc
    except (httpx.InvalidURL, ValueError, OSError) as exc:
        raise DownloadError(
            f"the environment sets a proxy or certificates that cannot be used: {exc}; correct or "
            "unset ALL_PROXY, HTTPS_PROXY, HTTP_PROXY, NO_PROXY, SSL_CERT_FILE and SSL_CERT_DIR"
        ) from exc
