"""Conversion: the contract of the converted model, its agreement with the network, its cost."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray

from regnet.conversion.export import export_network
from regnet.conversion.proof import forward
from regnet.conversion.values import Conversion
from regnet.ir.graph import file_metadata, graph_metadata, read_graph
from regnet.ir.graph_cost import graph_cost
from regnet.ir.metadata import ModelMetadata, metadata_from_strings
from regnet.network.labels import Label, imagenet_labels
from regnet.network.modules import RegNet
from regnet.network.reference import ReferenceNetwork
from regnet.network.spec import RegNetSpec, Spec, spec_by_name
from regnet.pixels.protocol import OMZ, Preprocess
from regnet.pixels.samples import sample_crops
from regnet.system.errors import ConversionError, ModelError
from regnet.system.runtime import core, ov

SMALL = RegNetSpec(d=5, w0=16, wa=16.0, wm=2.0, g=8, classes=7)
SMALL_Y = RegNetSpec(d=5, w0=16, wa=16.0, wm=2.0, g=8, se_ratio=0.25, classes=7)
TINY = Preprocess(name="tiny", resize=72, crop=64)


def probabilities(
    network: RegNet, metadata: ModelMetadata, pixels: NDArray[np.float32]
) -> NDArray[np.float64]:
    """The network's probabilities (N, classes) for raw pixels (N, 3, H, W)."""
    return forward(reference(network), metadata.preprocess, pixels).probabilities


def arrays(network: RegNet) -> dict[str, NDArray[np.float32]]:
    """The weights of a network as numpy arrays."""
    return {name: values.detach().numpy() for name, values in network.state_dict().items()}


def reference(network: RegNet) -> ReferenceNetwork:
    """The same network in numpy."""
    return ReferenceNetwork(network.spec, arrays(network))


def described(spec: Spec, preprocess: Preprocess = TINY, precision: str = "fp32") -> ModelMetadata:
    labels = tuple(Label("", f"thing {i}") for i in range(spec.classes))
    return ModelMetadata(
        card="",
        name="small",
        spec=spec,
        preprocess=preprocess,
        labels=labels,
        weights_sha384="0" * 96,
        precision=precision,
        licence="MIT",
        version="1",
    )


def confident(spec: Spec) -> RegNet:
    """Return a network with BN statistics at work whose logits are as large as trained ones."""
    torch.manual_seed(1)
    network = RegNet(spec).eval()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
            module.bias.data.normal_(0, 0.1)
    network.head.fc.weight.data.normal_(0, 1)
    return network


def convert(spec: Spec, path: Path, precision: str = "fp32") -> Conversion:
    metadata = described(spec, precision=precision)
    return export_network(arrays(confident(spec)), metadata, path, sample_crops(TINY))


@pytest.mark.parametrize("spec", [SMALL, SMALL_Y], ids=["x", "y"])
@pytest.mark.parametrize("ending", ["xml", "onnx"])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_conversion_keeps_its_contract(
    spec: Spec, ending: str, precision: str, tmp_path: Path
) -> None:
    path = tmp_path / f"small.{ending}"
    conversion = convert(spec, path, precision)
    assert conversion.max_delta <= 1e-5
    assert (conversion.rounding > 0) == (precision == "fp16")
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(conversion.files)
    model = core.read_model(path)
    assert [port.any_name for port in (*model.inputs, *model.outputs)] == ["data", "prob"]
    assert str(model.input(0).partial_shape) == "[?,3,64,64]"
    assert str(model.output(0).partial_shape) == "[?,7]"


@pytest.mark.parametrize("ending", ["xml", "onnx"])
def test_probabilities_equal_the_networks_on_new_pixels(ending: str, tmp_path: Path) -> None:
    """Check it again here, on other pixels and in batches, not by the exporter's own word."""
    path = tmp_path / f"small.{ending}"
    convert(SMALL_Y, path)
    pixels = np.random.default_rng(0).integers(0, 256, (5, 3, 64, 64)).astype(np.float32)
    expected = probabilities(confident(SMALL_Y), described(SMALL_Y), pixels)
    if ending == "onnx":
        found = onnxruntime.InferenceSession(path).run(["prob"], {"data": pixels})[0]
    else:
        hints = {"INFERENCE_PRECISION_HINT": "f32"}
        found = core.compile_model(path, "CPU", hints)(pixels)["prob"]
    assert found.max() > 0.5
    assert np.abs(found - expected).max() <= 1e-5
    assert np.abs(found.sum(1) - 1).max() <= 1e-5


def test_trained_weights_convert_exactly(shared: Path, photos: list[Path], tmp_path: Path) -> None:
    from regnet.checkpoints.weights import load_into, read_checkpoint
    from regnet.pixels.preprocess import crop_pixels

    checkpoint = read_checkpoint(shared / "weights" / "regnetx-400mf_tiny200.pyth")
    network = RegNet(checkpoint.spec).eval()
    load_into(network, checkpoint.state)
    protocol = Preprocess(name="tiny-128", resize=128, crop=128)
    crops = [crop_pixels(path, protocol) for path in photos[::8]]
    metadata = described(checkpoint.spec, protocol)
    conversion = export_network(arrays(network), metadata, tmp_path / "m.xml", crops)
    assert conversion.photos == 25
    assert conversion.max_delta <= 1e-5


def test_the_card_counts_6_3893_gflops_and_15_2653_mparams(tmp_path: Path) -> None:
    spec = spec_by_name("regnetx-3.2gf")
    metadata = replace(described(SMALL, OMZ), spec=spec, labels=imagenet_labels())
    export_network(arrays(confident(spec)), metadata, tmp_path / "card.xml", sample_crops(OMZ)[:1])
    cost = graph_cost(read_graph(tmp_path / "card.xml"))
    assert (cost.flops, cost.params) == (6_389_348_104, 15_265_272)
    assert f"{cost.gflops:.4f} {cost.mparams:.4f}" == "6.3893 15.2653"


def test_storing_in_fp16_does_not_change_the_count(tmp_path: Path) -> None:
    convert(SMALL_Y, tmp_path / "a.xml")
    convert(SMALL_Y, tmp_path / "b.xml", "fp16")
    a, b = (graph_cost(read_graph(tmp_path / f"{name}.xml")) for name in "ab")
    assert a == b
    sizes = [(tmp_path / f"{name}.bin").stat().st_size for name in "ab"]
    assert sizes[1] < 0.7 * sizes[0]


def test_metadata_travels_in_both_formats(tmp_path: Path) -> None:
    import onnx

    convert(SMALL, tmp_path / "m.xml")
    convert(SMALL, tmp_path / "m.onnx")
    assert graph_metadata(read_graph(tmp_path / "m.xml"), source="m") == described(SMALL)
    props = {p.key: p.value for p in onnx.load(tmp_path / "m.onnx").metadata_props}
    assert metadata_from_strings(props, source="m") == described(SMALL)


def test_a_conversion_that_disagrees_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wrong mean in the graph is a mistake that users meet; it must not get through."""
    import regnet.conversion.export as export

    right = export.onnx_graph

    def wrong(spec, weights, preprocess, **options):
        shifted = replace(preprocess, mean=(103.0, 116.0, 123.0))
        return right(spec, weights, shifted, **options)

    monkeypatch.setattr(export, "onnx_graph", wrong)
    with pytest.raises(ConversionError, match="disagrees with the network"):
        convert(SMALL, tmp_path / "m.xml")
    assert list(tmp_path.iterdir()) == []


def test_weights_that_are_too_large_for_fp16_are_refused(tmp_path: Path) -> None:
    network = confident(SMALL)
    network.head.fc.weight.data *= 1e6
    metadata = described(SMALL, precision="fp16")
    with pytest.raises(ConversionError):
        export_network(arrays(network), metadata, tmp_path / "m.xml", sample_crops(TINY))
    assert list(tmp_path.iterdir()) == []


def test_labels_must_be_as_many_as_classes() -> None:
    with pytest.raises(ModelError, match="2 labels for 7 classes"):
        replace(described(SMALL), labels=(Label("", "a"), Label("", "b")))


@pytest.mark.parametrize("field", ["spec", "labels", "preprocess", "name"])
def test_damaged_metadata_is_an_error_that_names_the_file(field: str) -> None:
    good = described(SMALL).to_strings()
    with pytest.raises(ModelError, match=rf"m\.xml.*the field '{field}' is missing"):
        metadata_from_strings({k: v for k, v in good.items() if k != field}, source="m.xml")
    if field != "name":
        for bad in ("", "{", "[1, 2]", json.dumps({"x": 1}), "null", "3"):
            with pytest.raises(ModelError, match=r"m\.xml"):
                metadata_from_strings(good | {field: bad}, source="m.xml")


def test_a_graph_that_cannot_be_counted_is_an_error() -> None:
    from openvino import opset13 as opset

    free = opset.parameter([-1, 3, -1, -1], dtype=np.float32)
    kernel = opset.constant(np.ones((8, 3, 3, 3), np.float32))
    conv = opset.convolution(free, kernel, [1, 1], [0, 0], [0, 0], [1, 1])
    with pytest.raises(ModelError, match="cannot be counted"):
        graph_cost(ov.Model([conv], [free]))


def test_onnx_metadata_is_seen(tmp_path: Path) -> None:
    convert(SMALL, tmp_path / "m.onnx")
    model = read_graph(tmp_path / "m.onnx")
    assert file_metadata(tmp_path / "m.onnx", model) == described(SMALL)


def test_files_that_are_no_models(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such file"):
        read_graph(tmp_path / "none.xml")
    (tmp_path / "bad.xml").write_text("<net>")
    with pytest.raises(ModelError, match=r"bad\.bin are missing"):
        read_graph(tmp_path / "bad.xml")
    (tmp_path / "bad.bin").write_bytes(b"")
    with pytest.raises(ModelError, match="not a model that OpenVINO can read"):
        read_graph(tmp_path / "bad.xml")
    (tmp_path / "bad.xml").write_text("<html>")
    with pytest.raises(ModelError, match="not an OpenVINO model"):
        read_graph(tmp_path / "bad.xml")
