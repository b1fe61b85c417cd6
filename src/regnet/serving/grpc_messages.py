"""The messages of the Open Inference Protocol over gRPC: from bytes to values, and back.

Source: the protocol's published interface (open_inference_grpc.proto, with the repository
extension) and https://protobuf.dev/programming-guides/encoding. Read here rather than by protobuf,
because these bytes are anyone's: protobuf makes up to fifty times their size of them before a limit
can be applied. Tensors stay where they are, as views; and no package of generated code is needed,
which would be bound to some versions of protobuf.
"""

import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

SERVICE: Final = "inference.GRPCInferenceService"

_ONE_OF: Final = "one of"

# Fields in the order of their numbers, from 1 on or from a number that is given; a star marks a
# list. Nested types are written flat, maps as the lists of keys and values that they are. What is
# `ignored` is never read; `packed` numbers stay as they are.
_MESSAGES: Final = {
    "ServerLiveRequest": "",
    "ServerLiveResponse": "bool live",
    "ServerReadyRequest": "",
    "ServerReadyResponse": "bool ready",
    "ModelReadyRequest": "string name, string version",
    "ModelReadyResponse": "bool ready",
    "ServerMetadataRequest": "",
    "ServerMetadataResponse": "string name, string version, string* extensions",
    "ModelMetadataRequest": "string name, string version",
    "ModelMetadataResponse": "string name, string* versions, string platform, "
    "TensorMetadata* inputs, TensorMetadata* outputs",
    "TensorMetadata": "string name, string datatype, int64* shape",
    "ModelInferRequest": "string model_name, string model_version, string id, "
    "Parameter* parameters, InputTensor* inputs, RequestedOutput* outputs, "
    "bytes* raw_input_contents",
    "InputTensor": "string name, string datatype, int64* shape, Parameter* parameters, "
    "TensorContents contents",
    "RequestedOutput": "string name, Parameter* parameters",
    "ModelInferResponse": "string model_name, string model_version, string id, "
    "Parameter* parameters, OutputTensor* outputs, bytes* raw_output_contents",
    "OutputTensor": "string name, string datatype, int64* shape, Parameter* parameters",
    "TensorContents": "ignored bool_contents, ignored int_contents, ignored int64_contents, "
    "packed* uint_contents, ignored uint64_contents, packed* fp32_contents, ignored fp64_contents, "
    "bytes* bytes_contents",
    "Parameter": "string key, ParameterValue value",
    "ParameterValue": f"{_ONE_OF} bool bool_param, int64 int64_param, string string_param, "
    "double double_param, int64 uint64_param",
    "ModelConfigRequest": "string name, string version",
    "ModelConfigResponse": "ModelConfig config",
    "ModelConfig": "string name, string platform, VersionPolicy version_policy, "
    "int64 max_batch_size, ConfigTensor* input, ConfigOutput* output, "
    "InstanceGroup* instance_group, 11 DynamicBatching dynamic_batching, "
    "14 ConfigParameter* parameters, 17 string backend",
    "VersionPolicy": "LatestVersions latest",
    "LatestVersions": "int64 num_versions",
    "ConfigTensor": "string name, int64 data_type, 4 int64* dims",
    "ConfigOutput": "string name, int64 data_type, int64* dims",
    "InstanceGroup": "string name, int64 count, 4 int64 kind",
    "DynamicBatching": "int64* preferred_batch_size, int64 max_queue_delay_microseconds",
    "ConfigParameter": "string key, ConfigValue value",
    "ConfigValue": "string string_value",
    "ModelStatisticsRequest": "string name, string version",
    "ModelStatisticsResponse": "ModelStatistics* model_stats",
    "ModelStatistics": "string name, string version, int64 last_inference, "
    "int64 inference_count, int64 execution_count, InferStatistics inference_stats, "
    "BatchStatistics* batch_stats",
    "InferStatistics": "Duration success, Duration fail, Duration queue, Duration compute_input, "
    "Duration compute_infer, Duration compute_output, Duration cache_hit, Duration cache_miss",
    "BatchStatistics": "int64 batch_size, Duration compute_input, Duration compute_infer, "
    "Duration compute_output",
    "Duration": "int64 count, int64 ns",
    "RepositoryIndexRequest": "string repository_name, bool ready",
    "RepositoryIndexResponse": "ModelIndex* models",
    "ModelIndex": "string name, string version, string state, string reason",
    "RepositoryModelLoadRequest": "string repository_name, string model_name, "
    "RepositoryParameter* parameters",
    "RepositoryModelLoadResponse": "",
    "RepositoryModelUnloadRequest": "string repository_name, string model_name, "
    "RepositoryParameter* parameters",
    "RepositoryModelUnloadResponse": "",
    "RepositoryParameter": "string key, ignored value",
}
_VARINT, _EIGHT_BYTES, _LENGTH, _FOUR_BYTES = 0, 1, 2, 5  # the wire types
_WIRE_TYPES: Final = {"bool": _VARINT, "int64": _VARINT, "double": _EIGHT_BYTES}
_DEFAULTS: Final = {"bool": False, "int64": 0, "double": 0.0, "string": "", "bytes": b""}


@dataclass(frozen=True)
class _Field:
    number: int
    name: str
    kind: str
    many: bool

    @property
    def default(self) -> Any:
        return [] if self.many else _DEFAULTS.get(self.kind)


@cache
def _fields(name: str) -> dict[int, _Field]:
    """Return the fields of a message by their numbers."""
    parts = [part for part in _MESSAGES[name].removeprefix(_ONE_OF).split(",") if part]
    fields: dict[int, _Field] = {}
    number = 0
    for part in parts:
        *given, kind, field = part.split()
        number = int(given[0]) if given else number + 1
        fields[number] = _Field(number, field, kind.rstrip("*"), kind.endswith("*"))
    return fields


def decode(name: str, data: bytes, *, most: int) -> dict[str, Any]:
    """Return the fields of a message; bytes are views of `data`, numbers that are packed too.

    A field that is not there has its default; of fields of which there is only one, only that one
    is there. Raises `ValueError` where the bytes are no such message, or have more than `most`
    fields and numbers of shapes.
    """
    return _Reader(most).message(name, memoryview(data))


class _Reader:
    """Reads messages, at most `left` fields of them."""

    def __init__(self, left: int) -> None:
        self._left = left

    def message(self, name: str, data: memoryview) -> dict[str, Any]:
        fields = _fields(name)
        one_of = _MESSAGES[name].startswith(_ONE_OF)
        found = {} if one_of else {field.name: field.default for field in fields.values()}
        for number, wire_type, value in self._parts(data):
            field = fields.get(number)
            if field is None or wire_type not in (_WIRE_TYPES.get(field.kind, _LENGTH), _LENGTH):
                continue
            if one_of:
                found.clear()
            if not field.many:
                found[field.name] = self._value(field.kind, wire_type, value)
            elif field.kind == "int64" and wire_type == _LENGTH:
                found[field.name].extend(map(_signed, self._numbers(value)))
            else:
                found[field.name].append(self._value(field.kind, wire_type, value))
        return found

    def _parts(self, data: memoryview) -> Iterator[tuple[int, int, Any]]:
        """Yield number, wire type and raw value of each field."""
        at = 0
        while at < len(data):
            self._count()
            tag, at = _varint(data, at)
            wire_type = tag & 7
            if wire_type == _VARINT:
                value, at = _varint(data, at)
                yield tag >> 3, wire_type, value
                continue
            size = {_EIGHT_BYTES: 8, _FOUR_BYTES: 4}.get(wire_type)
            if wire_type == _LENGTH:
                size, at = _varint(data, at)
            if size is None or tag < 8:
                raise ValueError("it is no message")
            if at + size > len(data):
                raise ValueError("it is cut off")
            yield tag >> 3, wire_type, data[at : at + size]
            at += size

    def _value(self, kind: str, wire_type: int, value: Any) -> Any:
        if kind in _MESSAGES:
            return self.message(kind, value)
        if wire_type == _LENGTH and kind in _WIRE_TYPES:
            raise ValueError(f"a {kind} is no number")
        convert = _CONVERT.get(kind)
        return value if convert is None else convert(value)

    def _numbers(self, data: memoryview) -> Iterator[int]:
        at = 0
        while at < len(data):
            self._count()
            number, at = _varint(data, at)
            yield number

    def _count(self) -> None:
        self._left -= 1
        if self._left < 0:
            raise ValueError("it has too many fields")


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    """Return a number of at most 10 bytes and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            raise ValueError("it is cut off")
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value & 0xFFFFFFFFFFFFFFFF, at
    raise ValueError("it is no message")


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def _text(value: memoryview) -> str:
    return str(value, "utf-8")


def _double(value: memoryview) -> float:
    (number,) = struct.unpack("<d", value)
    return float(number)


_CONVERT: Final[Mapping[str, Callable[[Any], Any]]] = {
    "string": _text,
    "bool": bool,
    "int64": _signed,
    "double": _double,
}


def encode(name: str, values: Mapping[str, Any]) -> bytes:
    """Return the bytes of a message with these fields; what is not named has its default."""
    fields = {field.name: field for field in _fields(name).values()}
    pieces: list[bytes] = []
    for key, value in values.items():
        field = fields[key]
        if field.many and field.kind == "int64":
            packed = b"".join(_to_varint(number) for number in value)
            pieces += [_to_varint(field.number << 3 | _LENGTH), _to_varint(len(packed)), packed]
            continue
        for one in value if field.many else [value]:
            pieces += _encoded(field, one)
    return b"".join(pieces)


def _encoded(field: _Field, value: Any) -> list[bytes]:
    if field.kind in ("bool", "int64"):
        return [_to_varint(field.number << 3 | _VARINT), _to_varint(int(value))]
    if field.kind == "string":
        value = value.encode("utf-8", "backslashreplace")
    elif field.kind in _MESSAGES:
        value = encode(field.kind, value)
    return [_to_varint(field.number << 3 | _LENGTH), _to_varint(len(value)), value]


def _to_varint(value: int) -> bytes:
    value &= 0xFFFFFFFFFFFFFFFF
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    found.append(value)
    return bytes(found)
