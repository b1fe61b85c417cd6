"""Hooks of schemathesis: photos for the formats of which no schema can say what is in them."""

import base64
import io

import schemathesis
from hypothesis import strategies as st
from PIL import Image


def _encoded(kind: str, size: tuple[int, int]) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, (200, 30, 60)).save(file, kind)
    return file.getvalue()


PHOTOS = st.sampled_from(
    [_encoded("PNG", (1, 1)), _encoded("JPEG", (9, 5)), _encoded("GIF", (3, 3))]
)

schemathesis.openapi.format("photo", PHOTOS)
schemathesis.openapi.format(
    "photo-base64", PHOTOS.map(lambda photo: base64.b64encode(photo).decode())
)
schemathesis.openapi.media_type("image/*", PHOTOS)
schemathesis.openapi.media_type("application/octet-stream", PHOTOS)
