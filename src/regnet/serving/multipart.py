"""The files in a multipart/form-data body, all in memory: images never touch the disk."""

from dataclasses import dataclass, field

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from regnet.serving.refusals import BadRequest, TooLarge


@dataclass
class Part:
    """One part: its file's name, empty where it has none, and its bytes."""

    name: str = ""
    data: bytes = b""


@dataclass
class _Parts:
    """Hears the parser."""

    most: int
    found: list[Part] = field(default_factory=list)
    chunks: list[bytes] = field(default_factory=list)
    header: bytes = b""
    value: bytes = b""

    def on_part_begin(self) -> None:
        if len(self.found) == self.most:
            raise TooLarge(
                f"more than {self.most} images in one request are over the limit (batch)",
                limit="batch",
            )
        self.found.append(Part())
        self.chunks = []

    def on_header_field(self, data: bytes, start: int, end: int) -> None:
        self.header += data[start:end]

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        self.value += data[start:end]

    def on_header_end(self) -> None:
        if self.header.lower() == b"content-disposition":
            _, options = parse_options_header(self.value)
            self.found[-1].name = options.get(b"filename", b"").decode("utf-8", "replace")
        self.header = self.value = b""

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        self.chunks.append(data[start:end])

    def on_part_end(self) -> None:
        self.found[-1].data = b"".join(self.chunks)


def parse_multipart(body: bytes, content_type: str, *, most: int) -> list[Part]:
    """Return the parts of a body; raises `BadRequest`, and `TooLarge` for more than `most`."""
    _, options = parse_options_header(content_type)
    if not (boundary := options.get(b"boundary")):
        raise BadRequest("multipart/form-data without a boundary")
    parts = _Parts(most)
    names = ("part_begin", "part_data", "part_end", "header_field", "header_value", "header_end")
    callbacks = {f"on_{name}": getattr(parts, f"on_{name}") for name in names}
    ended: list[bool] = []
    callbacks["on_end"] = lambda: ended.append(True)
    try:
        parser = MultipartParser(boundary, callbacks)  # type: ignore[arg-type]
        parser.write(body)
        parser.finalize()
    except FormParserError as exc:
        raise BadRequest(f"the body is no multipart/form-data ({exc})") from exc
    if not ended:
        raise BadRequest("the multipart/form-data ends too early")
    return parts.found
