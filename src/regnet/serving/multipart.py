"""The parts of a multipart/form-data body, all in memory: images never touch the disk."""

from dataclasses import dataclass, field

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from regnet.serving.refusals import BadRequest, TooLarge


@dataclass
class FormFile:
    """One part: the name of its field, that of its file, empty where it has none, and its bytes.

    It is a file where it has the name of one, or says that it is of another kind than text.
    """

    field: str = ""
    name: str = ""
    is_file: bool = False
    data: bytes = b""


@dataclass
class _Parts:
    """Hears the parser."""

    most: int
    found: list[FormFile] = field(default_factory=list)
    chunks: list[bytes] = field(default_factory=list)
    header: bytes = b""
    value: bytes = b""

    def on_part_begin(self) -> None:
        self.found.append(FormFile())
        self.chunks = []

    def on_header_field(self, data: bytes, start: int, end: int) -> None:
        self.header += data[start:end]

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        self.value += data[start:end]

    def on_header_end(self) -> None:
        part, header = self.found[-1], self.header.lower()
        value, options = parse_options_header(self.value)
        if header == b"content-disposition":
            part.field = options.get(b"name", b"").decode("utf-8", "replace")
            part.name = options.get(b"filename", b"").decode("utf-8", "replace")
            part.is_file |= b"filename" in options
        elif header == b"content-type":
            part.is_file |= not value.lower().startswith(b"text/")
        self.header = self.value = b""

    def on_headers_finished(self) -> None:
        files = sum(part.is_file for part in self.found)
        if files > self.most:
            raise TooLarge(
                f"more than {self.most} images in one request are over the limit (batch)",
                limit="batch",
            )
        if len(self.found) - files > self.most:
            raise BadRequest(f"the form has more than {self.most} fields beside its files")

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        self.chunks.append(data[start:end])

    def on_part_end(self) -> None:
        self.found[-1].data = b"".join(self.chunks)


def parse_multipart(body: bytes, content_type: str, *, most: int) -> list[FormFile]:
    """Return the parts of a body; raises `BadRequest`, `TooLarge` for over `most` files."""
    _, options = parse_options_header(content_type)
    if not (boundary := options.get(b"boundary")):
        raise BadRequest("multipart/form-data without a boundary")
    parts = _Parts(most)
    callbacks = {name: getattr(parts, name) for name in dir(parts) if name.startswith("on_")}
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
