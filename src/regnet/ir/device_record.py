"""What was measured of a model on a device, kept in the cache and measured once."""

import hashlib
import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from regnet.ir.engine import ConvertedModel
from regnet.system.devices import device_title, is_cuda
from regnet.system.files import write_whole
from regnet.system.installation import installed_version
from regnet.system.version import TOOL_VERSION


@dataclass(frozen=True)
class DeviceRecord:
    """A file of measured values by name; `path` None keeps nothing."""

    path: Path | None

    @classmethod
    def of(cls, model: ConvertedModel, *, device: str, precision: str, folder: Path | None) -> Self:
        """Return the record of a model on a device; `folder` is that of compiled models.

        Another model, device, precision or version has another record.
        """
        if folder is None:
            return cls(None)
        known = [
            hashlib.sha256(model.path.read_bytes()).hexdigest(),  # has the hash of its weights
            device,
            device_title(device),
            precision,
            TOOL_VERSION,
            installed_version("torch" if is_cuda(device) else "openvino"),
        ]
        name = hashlib.sha256(json.dumps(known).encode()).hexdigest()[:24]
        return cls(folder.with_name("devices") / f"{name}.json")

    def kept(self, name: str, measure: Callable[[], Any], valid: Callable[[Any], bool]) -> Any:
        """Return the value of that name; measured and kept if there is none that is valid."""
        values = self._read()
        if name in values and valid(values[name]):
            return values[name]
        value = measure()
        if self.path is not None:
            with suppress(OSError):  # it is measured again next time
                text = json.dumps(self._read() | {name: value})
                write_whole(self.path, text.encode())
        return value

    def _read(self) -> dict[str, Any]:
        """Return all values; none of a file that is damaged."""
        if self.path is None:
            return {}
        try:
            values = json.loads(self.path.read_bytes())
        except (OSError, ValueError, RecursionError):
            return {}
        return values if isinstance(values, dict) else {}


NOT_KEPT: Final = DeviceRecord(None)
