"""The token that a server asks for: where it is from, and how a request's is compared with it."""

import hashlib
import hmac
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from regnet.system.errors import StartError

VARIABLE: Final = "REGNET_TOKEN"
_LEAST: Final = 16  # characters: what is shorter can be guessed


@dataclass(frozen=True)
class Token:
    """A secret that every request must bring; only its hash is kept, and never shown."""

    digest: bytes = field(repr=False)

    def admits(self, authorization: bytes | None) -> bool:
        """Tell whether an `Authorization` header brings it, in a time that does not tell how much.

        Hashes are compared, so neither its length nor its beginning can be found by trying.
        """
        scheme, _, given = (authorization or b"").partition(b" ")
        digest = hashlib.sha256(given.strip()).digest()
        return hmac.compare_digest(digest, self.digest) and scheme.lower() == b"bearer"


def new_token(text: str, *, source: str) -> Token:
    """Return a token; raises `StartError` where it is too short or no header could hold it."""
    secret = text.strip()
    if len(secret) < _LEAST or not secret.isascii() or not secret.isprintable() or " " in secret:
        raise StartError(
            f"{source}: holds no token: at least {_LEAST} letters, digits or signs without spaces; "
            "make one with `openssl rand -hex 32`"
        )
    return Token(hashlib.sha256(secret.encode()).digest())


def read_token(file: Path | None, environ: Mapping[str, str] = os.environ) -> Token | None:
    """Return the token in a file, else that in $REGNET_TOKEN, else None: none is asked for.

    Raises `StartError` where the file cannot be read, or holds none.
    """
    if file is None:
        return new_token(environ[VARIABLE], source=f"${VARIABLE}") if VARIABLE in environ else None
    try:
        return new_token(file.read_text(), source=str(file))
    except (OSError, UnicodeDecodeError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else "is no text"
        raise StartError(f"{file}: the token cannot be read: {reason}") from exc
