"""Network addresses as texts."""

import re


def without_secrets(url: str) -> str:
    """Return an address without user name and password, fit to be shown and recorded."""
    return re.sub(r"^([^/?#]*//)?[^/?#]*@", r"\1", url)
