"""The same network run by torch and by ONNX Runtime, where installed, to measure against."""

import importlib.metadata
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from regnet.checkpoints.model_files import is_model_folder
from regnet.conversion.store import CHECKPOINT_SUFFIXES, Library
from regnet.ir.metadata import ModelMetadata
from regnet.network.spec import spec_from_dict, spec_to_dict
from regnet.pixels.protocol import Preprocess
from regnet.system.errors import RegNetError
from regnet.system.parallel import cores
from regnet.system.timing import Contestant
from regnet.zoo.catalogue import card_by_name

if TYPE_CHECKING:
    from regnet.network.modules import RegNet

TORCH, COMPILED, ONNX = "torch eager", "torch compiled", "ONNX Runtime"
NAMES: Final = (TORCH, COMPILED, ONNX)

Infer = Callable[[NDArray[Any]], NDArray[np.float32]]


@dataclass(frozen=True)
class Competitor:
    """Another engine with the network: `infer` makes (N, crop, crop, 3) to (N, classes)."""

    name: str
    version: str
    infer: Infer

    def calls(self, crop: NDArray[Any], batch: int) -> list[Contestant]:
        """Return one image and a batch of them, each with all cores."""
        images = np.stack([crop] * batch)
        return [
            Contestant(f"{self.name} latency", partial(self.infer, crop[None])),
            Contestant(f"{self.name} x{batch}", partial(self.infer, images), batch),
        ]


@dataclass(frozen=True)
class Competitors:
    """Those that run here, and why the others do not.

    `own_weights` is False where the network's weights are random ones, which are as fast.
    """

    present: tuple[Competitor, ...]
    absent: dict[str, str]
    own_weights: bool

    def get(self, name: str) -> Competitor | None:
        """Return the one of that name, None where it does not run here."""
        return next((c for c in self.present if c.name == name), None)


def find_competitors(
    model: str,
    metadata: ModelMetadata,
    *,
    library: Library,
    names: Sequence[str] = NAMES,
    batches: Sequence[int] = (1, 8),
    compile_seconds: float = 180.0,
    say: Callable[[str], None] = lambda _: None,
) -> Competitors:
    """Return the engines among `names` that can run the network of a model in FP32.

    Its weights are the model's own where it is a checkpoint or a card whose weights are here, else
    random. torch.compile has `compile_seconds` for the sizes of batch in `batches`.
    """
    if not names:
        return Competitors((), {}, own_weights=False)
    if find_spec("torch") is None:
        reason = "torch, which builds the network, is not installed (extra 'torch')"
        return Competitors((), dict.fromkeys(names, reason), own_weights=False)
    network, own_weights = _network(model, metadata, library)
    makers: dict[str, Callable[[], Competitor]] = {
        TORCH: lambda: _torch(network, metadata.preprocess),
        COMPILED: lambda: _compiled(network, metadata, batches, compile_seconds, say),
        ONNX: lambda: _onnx(network, metadata),
    }
    present, absent = [], {}
    for name in names:
        try:
            present.append(makers[name]())
        except _AbsentError as exc:
            absent[name] = str(exc)
    return Competitors(tuple(present), absent, own_weights)


class _AbsentError(Exception):
    """Why an engine cannot take part."""


def _network(model: str, metadata: ModelMetadata, library: Library) -> tuple["RegNet", bool]:
    """Return the model's network in evaluation mode, and whether its weights are the model's."""
    import torch

    from regnet.network.modules import RegNet

    torch.set_num_threads(cores())
    if _has_weights(model):
        from regnet.inference.torch_predictor import read_network

        try:
            request = replace(library, offline=True).request(model)
            return read_network(request)[0].eval(), True
        except RegNetError:  # its IR is here, its weights are not any more
            pass
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return RegNet(metadata.spec).eval(), False


def _has_weights(model: str) -> bool:
    if Path(model).suffix == ".xml":
        return False
    if Path(model).suffix in CHECKPOINT_SUFFIXES or is_model_folder(Path(model)):
        return True
    return Path(model).is_file() or card_by_name(model).bundled is None


def _torch(network: "RegNet", preprocess: Preprocess) -> Competitor:
    import torch

    return Competitor(TORCH, torch.__version__.partition("+")[0], _torch_infer(network, preprocess))


def _torch_infer(network: Any, preprocess: Preprocess) -> Infer:
    import torch

    mean, scale = (torch.tensor(v).view(1, 3, 1, 1) for v in (preprocess.mean, preprocess.scale))

    def infer(pixels: NDArray[Any]) -> NDArray[np.float32]:
        batch = torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous().float()
        with torch.inference_mode():
            logits = network((batch - mean) / scale)
            rows: NDArray[np.float32] = torch.softmax(logits, 1).numpy()
        return rows

    return infer


def _compiled(
    network: "RegNet",
    metadata: ModelMetadata,
    batches: Sequence[int],
    seconds: float,
    say: Callable[[str], None],
) -> Competitor:
    """Compile in another process first, which can be stopped; here its work is found again."""
    import torch

    say(f"{COMPILED}: compiling, {seconds:.0f} s at most")
    sizes = {"size": metadata.preprocess.crop, "batches": list(dict.fromkeys(batches))}
    job = json.dumps({"spec": spec_to_dict(metadata.spec), **sizes})
    try:
        subprocess.run(
            [sys.executable, __file__, job], check=True, timeout=seconds, capture_output=True
        )
    except subprocess.TimeoutExpired:
        raise _AbsentError(f"torch.compile took over {seconds:.0f} s") from None
    except subprocess.CalledProcessError as exc:
        lines = exc.stderr.decode(errors="replace").strip().splitlines() or ["no reason given"]
        raise _AbsentError(f"torch.compile failed ({_reason(lines)})") from None
    infer = _torch_infer(_compile(network, sizes), metadata.preprocess)
    return Competitor(COMPILED, torch.__version__.partition("+")[0], infer)


def _reason(lines: Sequence[str]) -> str:
    """Return the line of a traceback that says what went wrong."""
    return next((line for line in reversed(lines) if "Error" in line), lines[-1])[:200]


def compile_job(job: str) -> None:
    """Compile a network given as JSON; what torch made of it stays in its cache on disk."""
    import torch

    from regnet.network.modules import RegNet

    values = json.loads(job)
    torch.set_num_threads(cores())
    _compile(RegNet(spec_from_dict(values["spec"])).eval(), values)


def _compile(network: "RegNet", sizes: dict[str, Any]) -> Any:
    import torch

    compiled = torch.compile(network, dynamic=False)
    side = sizes["size"]
    with torch.inference_mode():
        for batch in sizes["batches"]:
            pixels = torch.zeros(batch, 3, side, side)
            compiled(pixels)
    return compiled


def _onnx(network: "RegNet", metadata: ModelMetadata) -> Competitor:
    """Return ONNX Runtime with the graph that `regnet convert` writes."""
    missing = [name for name in ("onnx", "onnxruntime") if find_spec(name) is None]
    if missing:
        raise _AbsentError(f"{' and '.join(missing)} not installed (extra 'onnx')")
    import onnxruntime

    from regnet.conversion.onnx_graph import INPUT, OUTPUT, onnx_graph
    from regnet.network.modules import fold_batch_norm

    weights = {name: v.numpy() for name, v in fold_batch_norm(network).state_dict().items()}
    if sum(value.nbytes for value in weights.values()) > 2**30:
        raise _AbsentError("its graph is too large for one ONNX message")
    graph = onnx_graph(metadata.spec, weights, metadata.preprocess).SerializeToString()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = cores()
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])

    def infer(pixels: NDArray[Any]) -> NDArray[np.float32]:
        batch = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2), np.float32)
        rows: NDArray[np.float32] = session.run([OUTPUT], {INPUT: batch})[0]
        return rows

    return Competitor(ONNX, importlib.metadata.version("onnxruntime"), infer)


if __name__ == "__main__":
    compile_job(sys.argv[1])
