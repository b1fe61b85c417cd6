"""The messages of the Open Inference Protocol over gRPC, built from their description at run time.

Source: the protocol's published interface (open_inference_grpc.proto of the Open Inference
Protocol, with the repository extension). What travels is the fields' numbers and types; so nested
types are written flat, and a map as what it is on the wire, a list of keys and values. No generated
code: that would be bound to some versions of protobuf, or need a package of some client. The
descriptors have a pool of their own, so a client in the same process may register its own.
"""

from functools import cache
from typing import Any, Final

from regnet.errors import MissingExtraError

try:
    from google.protobuf import descriptor_pb2
    from google.protobuf.descriptor_pool import DescriptorPool
    from google.protobuf.message_factory import GetMessageClass
except ImportError as exc:
    raise MissingExtraError("gRPC", "grpc") from exc

SERVICE: Final = "inference.GRPCInferenceService"

_ONE_OF: Final = "one of"

# Fields in the order of their numbers, from 1 on; a star marks a list.
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
    "OutputTensor": "string name, string datatype, int64* shape, Parameter* parameters, "
    "TensorContents contents",
    "TensorContents": "bool* bool_contents, int32* int_contents, int64* int64_contents, "
    "uint32* uint_contents, uint64* uint64_contents, float* fp32_contents, double* fp64_contents, "
    "bytes* bytes_contents",
    "Parameter": "string key, ParameterValue value",
    "ParameterValue": f"{_ONE_OF} bool bool_param, int64 int64_param, string string_param, "
    "double double_param, uint64 uint64_param",
    "RepositoryIndexRequest": "string repository_name, bool ready",
    "RepositoryIndexResponse": "ModelIndex* models",
    "ModelIndex": "string name, string version, string state, string reason",
    "RepositoryModelLoadRequest": "string repository_name, string model_name, "
    "RepositoryParameter* parameters",
    "RepositoryModelLoadResponse": "",
    "RepositoryModelUnloadRequest": "string repository_name, string model_name, "
    "RepositoryParameter* parameters",
    "RepositoryModelUnloadResponse": "",
    "RepositoryParameter": "string key, RepositoryValue value",
    "RepositoryValue": f"{_ONE_OF} bool bool_param, int64 int64_param, string string_param, "
    "bytes bytes_param",
}


_VARINT: Final = 0
_LENGTH: Final = 2
_FIXED: Final = {1: 8, 5: 4}  # wire type: bytes


def parse(name: str, data: bytes, *, most: int) -> Any:
    """Return the message that bytes hold; raises `ValueError` where they hold none.

    Also where it has more than `most` fields, those of its parts included: an empty part takes two
    bytes here, and fifty times as much in memory.
    """
    _count(name, memoryview(data), most)
    try:
        return message_class(name).FromString(data)
    except Exception as exc:  # DecodeError, which is another class in each version
        raise ValueError(f"it is no {name}") from exc


def _count(name: str, data: memoryview, left: int) -> int:
    """Return how many more fields there may be after those of a message; raises `ValueError`."""
    parts = _parts(name)
    at = 0
    while at < len(data):
        left -= 1
        if left < 0:
            raise ValueError("it has too many fields")
        tag, at = _varint(data, at)
        if tag & 7 == _VARINT:
            _, at = _varint(data, at)
        elif tag & 7 == _LENGTH:
            size, at = _varint(data, at)
            if (part := parts.get(tag >> 3)) is not None:
                left = _count(part, data[at : at + size], left)
            at += size
        elif tag & 7 in _FIXED:
            at += _FIXED[tag & 7]
        else:
            raise ValueError(f"it is no {name}")
    return left


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    """Return a number of at most 10 bytes and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            break
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
    raise ValueError("it is cut off")


@cache
def _parts(name: str) -> dict[int, str]:
    """Return the message types of the numbers of a message's fields, of those that have one."""
    kinds = (field.split()[0].rstrip("*") for field in _fields(name))
    return {number: kind for number, kind in enumerate(kinds, 1) if kind in _MESSAGES}


def _fields(name: str) -> list[str]:
    return [field for field in _MESSAGES[name].removeprefix(_ONE_OF).split(",") if field]


@cache
def message_class(name: str) -> Any:
    """Return the class of a message of the protocol, such as "ModelInferRequest"."""
    return GetMessageClass(_pool().FindMessageTypeByName(f"regnet.inference.{name}"))


@cache
def _pool() -> DescriptorPool:
    """Return the descriptors of all messages; made once, it never changes."""
    file = descriptor_pb2.FileDescriptorProto(
        name="regnet/inference.proto", package="regnet.inference", syntax="proto3"
    )
    for name in _MESSAGES:
        _add_message(file, name)
    pool = DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return pool


def _add_message(file: Any, name: str) -> None:
    message = file.message_type.add(name=name)
    one_of = _MESSAGES[name].startswith(_ONE_OF)
    if one_of:
        message.oneof_decl.add(name="value")
    for number, field in enumerate(_fields(name), 1):
        kind, field_name = field.split()
        added = message.field.add(name=field_name, number=number)
        added.label = added.LABEL_REPEATED if kind.endswith("*") else added.LABEL_OPTIONAL
        kind = kind.rstrip("*")
        if kind in _MESSAGES:
            added.type, added.type_name = added.TYPE_MESSAGE, f".regnet.inference.{kind}"
        else:
            added.type = getattr(added, f"TYPE_{kind.upper()}")
        if one_of:
            added.oneof_index = 0
