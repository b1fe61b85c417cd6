"""The page at /: files of the package, under a policy that allows nothing else."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from regnet.pixels.samples import sample_photos

_FOLDER: Final = Path(__file__).with_name("page")
_MEDIA_TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".jpg": "image/jpeg",
}
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'"
)
_HEADERS: Final = {
    "content-security-policy": _POLICY,
    "permissions-policy": "camera=(self), microphone=(), geolocation=()",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-cache",  # cached, but revalidated each time: a new version shows at once
}


@dataclass(frozen=True)
class PageFile:
    """One file of the page; `etag` names its content."""

    content: bytes
    media_type: str
    etag: str

    def answer(self, request: Request) -> Response:
        """Return the file, or 304 if the client has it already."""
        headers = {**_HEADERS, "etag": self.etag}
        known = [tag.strip() for tag in request.headers.get("if-none-match", "").split(",")]
        if self.etag in known or f"W/{self.etag}" in known:
            return Response(status_code=304, headers=headers)
        headers["content-type"] = self.media_type
        return Response(self.content, headers=headers)


def page_files() -> dict[str, PageFile]:
    """Return the files by their names under /page/; the sample photos are in samples/."""
    paths = {path.name: path for path in _FOLDER.iterdir() if path.suffix in _MEDIA_TYPES}
    paths |= {f"samples/{path.name}": path for path in sample_photos()}
    files = {}
    for name, path in paths.items():
        content = path.read_bytes()
        etag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
        files[name] = PageFile(content, _MEDIA_TYPES[path.suffix], etag)
    return files


def page_routes() -> list[Route]:
    """Return the routes of the page, whose files are read now."""
    files = page_files()

    async def file(request: Request) -> Response:
        name = request.path_params.get("name", "index.html")
        if name not in files:
            raise HTTPException(404)
        return files[name].answer(request)

    return [Route("/", file), Route("/page/{name:path}", file)]
