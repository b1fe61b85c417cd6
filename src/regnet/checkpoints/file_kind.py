"""Which of the formats of checkpoints a file has, and whether it is whole; needs no torch."""

import zipfile
from pathlib import Path
from typing import Final, Literal

from regnet.system.errors import UnsafeError, WeightsError

Kind = Literal["zip", "pickle", "safetensors"]

REMEDY: Final = (
    "Save the weights alone, torch.save(model.state_dict(), ...) or as .safetensors, "
    "where you trust the file"
)


def checked_kind(path: Path) -> Kind:
    """Return a checkpoint file's format by its first bytes, after checking a zip's checksums.

    Raises `UnsafeError` for TorchScript, `WeightsError` if the file is missing, cut, damaged or no
    checkpoint.
    """
    try:
        with path.open("rb") as file:
            head = file.read(512)
            size = file.seek(0, 2)
    except OSError as exc:
        raise WeightsError(f"cannot read {path}: {exc.strerror or exc}") from exc
    if head.startswith(b"PK\x03\x04"):
        _check_zip(path)
        return "zip"
    if head[4:9] == b"\0\0\0\0{":  # the length (below 4 GiB) of a JSON text, and that text
        if int.from_bytes(head[:8], "little") > size - 8:
            raise WeightsError(f"{path} is a truncated safetensors file; download it again")
        return "safetensors"
    if head.startswith(b"\x80"):
        return "pickle"
    raise WeightsError(f"{path} is not a checkpoint: {_what_instead(head)}")


def _what_instead(head: bytes) -> str:
    if not head:
        return "it is empty"
    if head.lstrip().startswith(b"<"):
        return "it is a web page (a server's error page, most likely); download it again"
    if head.startswith(b"version https://git-lfs"):
        return "it is a Git LFS pointer; fetch the file itself with 'git lfs pull'"
    return f"it is neither a PyTorch nor a safetensors file (it begins with {head[:8]!r})"


def _check_zip(path: Path) -> None:
    """Refuse archives that `torch.save` did not write, before torch maps them into memory."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            stored = all(member.compress_type == zipfile.ZIP_STORED for member in members)
            if stored and sum(member.file_size for member in members) > path.stat().st_size:
                raise EOFError("its members are longer than the file")
            for member in members:
                if member.CRC == 0:  # as `set_crc32_options(False)` writes
                    del member.CRC  # so that none is expected
            # torch itself does not look at the checksums.
            damaged = archive.testzip() if stored else None
    # A broken file makes zipfile raise almost anything.
    except Exception as exc:
        raise WeightsError(
            f"{path} is truncated or corrupt: {str(exc) or 'it ends too early'}"
        ) from exc
    names = [member.filename.rpartition("/")[2] for member in members]
    if "constants.pkl" in names:
        raise UnsafeError(f"{path} is a TorchScript archive, which is code. {REMEDY}")
    if "data.pkl" not in names:
        raise WeightsError(f"{path} is not a checkpoint: it is a zip archive of something else")
    if not stored:
        raise WeightsError(f"{path} is a compressed zip archive, which PyTorch never writes")
    if names.count("data.pkl") > 1:
        raise WeightsError(
            f"{path} is not a checkpoint: it holds {names.count('data.pkl')} of them"
        )
    if damaged:
        raise WeightsError(f"{path} is corrupt: {damaged} in it fails its checksum")
