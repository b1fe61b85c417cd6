"""Compressed bodies: what comes out is what went in, in small steps, and damage is noticed."""

import gzip
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regnet.serving.exchange import Unpacker
from regnet.serving.refusals import BadRequest, Unsupported

DATA = bytes(3 << 20) + b"the end"


def raw(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()


PACKERS = {
    "identity": bytes,
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "deflate without a header": raw,
    "gzip of two members": lambda data: gzip.compress(data[:9]) + gzip.compress(data[9:]),
}


def unpacked(coding: str | None, chunks: list[bytes]) -> bytes:
    unpacker = Unpacker(coding)
    found = [piece for chunk in chunks for piece in unpacker.pieces(chunk)]
    unpacker.end()
    return b"".join(found)


@pytest.mark.parametrize("kind", PACKERS)
@given(data=st.binary(max_size=500), size=st.integers(1, 50))
def test_what_comes_out_is_what_went_in(kind: str, data: bytes, size: int) -> None:
    body = PACKERS[kind](data)
    chunks = [body[at : at + size] for at in range(0, len(body), size)]
    assert unpacked(kind.split()[0], chunks) == data


@pytest.mark.parametrize("kind", PACKERS)
def test_a_bomb_comes_in_small_pieces(kind: str) -> None:
    body = PACKERS[kind](DATA)
    pieces = list(Unpacker(kind.split()[0]).pieces(body))
    assert b"".join(pieces) == DATA
    if kind != "identity":
        assert max(map(len, pieces)) <= 1 << 20


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_damage_is_noticed(coding: str) -> None:
    body = PACKERS[coding](DATA)
    for damaged in (body[:-1], body[:-3] + b"xyz", b"\xff" + body):
        with pytest.raises(BadRequest):
            unpacked(coding, [damaged])
    with pytest.raises(BadRequest, match="follow the end"):
        unpacked("deflate", [zlib.compress(b"a") + b"b"])
    with pytest.raises(BadRequest, match="follow the end"):
        unpacked("gzip", [gzip.compress(b"") * 1001])


def test_no_body_is_complete() -> None:
    assert unpacked("gzip", [b""]) == b""
    assert unpacked(None, [b"as it is"]) == b"as it is"


@pytest.mark.parametrize("coding", ["br", "zstd", "gzip, deflate", "\x00"])
def test_other_codings_are_refused(coding: str) -> None:
    with pytest.raises(Unsupported, match="gzip, deflate"):
        Unpacker(coding)
