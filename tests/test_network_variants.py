"""RegNetV and RegNetZ: timm's networks from the spec, in torch, numpy, ONNX and the counts."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from test_conversion_export import TINY, arrays, confident, described

from regnet.checkpoints.layouts import to_pycls
from regnet.checkpoints.shapes import infer_spec, network_shapes
from regnet.checkpoints.weights import load_into, read_checkpoint, write_safetensors
from regnet.conversion.export import export_network, fold_batch_norm
from regnet.conversion.ir_weights import read_ir_weights, stored_layer
from regnet.ir.constants import ops_by_name
from regnet.ir.graph import read_graph
from regnet.network import modules
from regnet.network.complexity import complexity
from regnet.network.layers import layers
from regnet.network.modules import RegNet
from regnet.network.reference import ReferenceNetwork
from regnet.network.spec import (
    SPEC_NAMES,
    AnyNetSpec,
    RegNetSpec,
    Stage,
    network_title,
    published_name,
    spec_aliases,
    spec_by_name,
    spec_from_dict,
    spec_to_dict,
)
from regnet.pixels.samples import sample_crops
from regnet.quantization.weights import equalize
from regnet.system.errors import SpecError
from regnet.training.batch_norm import unfold_batch_norm

NETWORKS = (
    *("regnetx_032", "regnety_032", "regnetv_040", "regnetv_064", "regnetz_005", "regnetz_040"),
    *("regnetz_040_h", "regnetz_b16", "regnetz_c16", "regnetz_d8", "regnetz_d32", "regnetz_e8"),
)
V: dict[str, Any] = {"activation": "silu", "block": "pre-activation", "se_ratio": 0.25}
Z: dict[str, Any] = {"activation": "silu", "block": "linear", "shortcut": "none", "se_ratio": 0.25}
Z_IN = Z | {"inner_from": "input", "squeeze_from": "inner", "head_width": 48}
NARROW = (Stage(2, 16, 8), Stage(2, 32, 8))
WIDE = (Stage(2, 16, 8, expansion=4), Stage(2, 24, 8, expansion=4), Stage(2, 32, 8, expansion=4))


def small(stages: tuple[Stage, ...], **rest: Any) -> AnyNetSpec:
    return AnyNetSpec(stages=stages, stem_width=16, classes=7, **rest)


SMALL = {
    "v": small(NARROW, **V),
    "v pooled": small(NARROW, shortcut="pool", **V),
    "z": small(WIDE, **Z),
    "z with a convolution before the head": small(WIDE, head_width=48, **Z),
    "z whose inside follows from the input": small(WIDE, **Z_IN),
    "z of a tiered stem": small(WIDE, tiered_stem=True, **Z_IN),
}


def golden_weights(keys: list[str]) -> dict[str, NDArray[Any]]:
    """Return timm's state dict by the rule of the golden file."""
    weights = {}
    for number, text in enumerate(sorted(keys)):
        key, _, sizes = text.partition(":")
        shape = tuple(map(int, sizes.split("x"))) if sizes else ()
        draw = np.asarray(np.random.RandomState(number).standard_normal(shape))
        if key.endswith("num_batches_tracked"):
            weights[key] = np.zeros((), np.int64)
        elif key.endswith("running_var"):
            weights[key] = np.exp(0.1 * draw)
        elif draw.ndim > 1:
            weights[key] = draw * np.sqrt(2 / np.prod(shape[1:]))
        else:
            weights[key] = 0.1 * draw + key.endswith(".weight")
    return weights


@pytest.mark.parametrize("name", NETWORKS)
def test_logits_are_timms(name: str, shared: Path) -> None:
    file = json.loads((shared / "reference" / "timm_golden.json").read_text("utf-8"))
    golden = file["networks"][name]
    theirs = golden_weights(golden["keys"])
    names = to_pycls(theirs)
    weights = {names[key]: values for key, values in theirs.items()}
    spec = spec_by_name(name)
    assert infer_spec({key: values.shape for key, values in weights.items()}) == spec
    assert complexity(spec).params == golden["params"]
    with torch.device("meta"):
        network = RegNet(spec).eval()
    state = {key: torch.from_numpy(values) for key, values in weights.items()}
    network.load_state_dict(state, strict=True, assign=True)
    images = np.random.RandomState(0).standard_normal((1, 3, 128, 128))
    with torch.inference_mode():
        logits = network(torch.from_numpy(images)).numpy()[0]
        assert logits[:10] == pytest.approx(golden["logits_0_to_9"], rel=1e-9, abs=0)
        assert logits.argmax() == golden["argmax"]
        odd = np.random.RandomState(1).standard_normal((1, 3, 48, 33))
        expected = network(torch.from_numpy(odd)).numpy()
    found = ReferenceNetwork(spec, weights).logits(odd)
    assert np.abs(found - expected).max() <= 1e-12 * np.abs(expected).max()


@pytest.mark.parametrize("spec", SMALL.values(), ids=SMALL)
@pytest.mark.parametrize("file", ["fp32.xml", "fp16.xml", "fp32.onnx"])
def test_converted_networks_pass_the_proof(spec: AnyNetSpec, file: str, tmp_path: Path) -> None:
    protocol = replace(TINY, resize=75, crop=67)  # odd sizes before the pooled shortcuts
    metadata = described(spec, protocol, file[:4])
    weights = arrays(confident(spec))
    written = export_network(weights, metadata, tmp_path / file, sample_crops(protocol))
    assert written.proof.delta.probabilities < 1e-6


@pytest.mark.parametrize("kind", ["v", "z of a tiered stem"])
def test_channels_are_not_scaled_through_silu(kind: str, tmp_path: Path) -> None:
    path, crops = tmp_path / "small.xml", sample_crops(TINY)
    export_network(arrays(confident(SMALL[kind])), described(SMALL[kind]), path, crops)
    graph, before = read_graph(path), read_ir_weights(path).state
    equalize(graph, crops)
    ops = ops_by_name(graph)
    for layer in layers(SMALL[kind]):
        weight, bias = stored_layer(ops, layer)
        assert np.array_equal(weight, before[f"{layer.name}.weight"])
        assert np.array_equal(bias, before[f"{layer.name}.bias"])


@pytest.mark.parametrize("spec", SMALL.values(), ids=SMALL)
def test_own_files_and_folded_weights_are_read_back(spec: AnyNetSpec, tmp_path: Path) -> None:
    network = confident(spec)
    write_safetensors(tmp_path / "own.safetensors", arrays(network), spec=spec)
    checkpoint = read_checkpoint(tmp_path / "own.safetensors")
    assert checkpoint.spec == spec
    again = RegNet(spec).eval()
    load_into(again, checkpoint.state)
    images = torch.randn(4, 3, 64, 64)
    folded = modules.to_tensors(fold_batch_norm(spec, arrays(network)))
    with torch.inference_mode():
        logits = network(images)
        assert torch.equal(again(images), logits)
        others = (
            unfold_batch_norm(spec, folded, [images])(images),
            modules.fold_batch_norm(again)(images),
        )
        for other in others:
            assert (other - logits).abs().max() <= 1e-4 * logits.abs().max()


@pytest.mark.parametrize("spec", SMALL.values(), ids=SMALL)
def test_kinds_are_found_from_shapes_and_keep_as_json(spec: AnyNetSpec) -> None:
    assert infer_spec(network_shapes(spec)) == spec
    assert spec_from_dict(json.loads(json.dumps(spec_to_dict(spec)))) == spec
    with torch.device("meta"):
        network = RegNet(spec)
    assert complexity(spec).params == sum(p.numel() for p in network.parameters())


def test_fields_at_their_defaults_are_not_written() -> None:
    own = "stem_width stem_stride se_ratio classes d w0 wa wm g b q rounding"
    assert list(spec_to_dict(spec_by_name("regnetx-3.2gf"))) == own.split()
    assert spec_to_dict(small(NARROW)) == {
        "stem_width": 16,
        "stem_stride": 2,
        "se_ratio": None,
        "classes": 7,
        "stages": [[2, 16, 8, 1], [2, 32, 8, 1]],
    }
    assert spec_to_dict(small(WIDE))["stages"][0] == [2, 16, 8, 1, 4]


@pytest.mark.parametrize(
    "name", [name for name in SPEC_NAMES if name[:7] in ("regnetv", "regnetz")]
)
def test_named_networks(name: str) -> None:
    spec = spec_by_name(name, classes=3)
    assert published_name(spec) == name
    assert [spec_by_name(alias, classes=3) for alias in spec_aliases(name)] == [spec]
    assert spec_from_dict(json.loads(json.dumps(spec_to_dict(spec)))) == spec


def test_timms_names_and_titles() -> None:
    assert spec_aliases("regnetz-c16") == ("regnetz_c16",)
    assert spec_aliases("regnetz-500mf") == ("regnetz_005",)
    assert spec_aliases("regnetz-4.0gf-h") == ("regnetz_040_h",)
    assert [network_title(SMALL[kind]) for kind in ("v", "z")] == [
        "a RegNetV of 4 blocks",
        "a RegNetZ of 6 blocks",
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tiered_stem": True, "stem_stride": 1}, "tiered_stem must be false"),
        ({"tiered_stem": True, "block": "pre-activation"}, "tiered_stem must be false"),
        ({"inner_from": "input", "stem_width": 3}, "inner_from must be 'output'"),
        ({"shortcut": "max"}, "shortcut must be"),
        ({"head_width": 0}, "head_width must be"),
    ],
)
def test_impossible_fields_are_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        replace(small(WIDE), **change)


def test_a_regnet_rounds_widths_for_groups_and_expansion() -> None:
    spec = RegNetSpec(d=4, w0=24, wa=16.0, wm=2.0, g=16, expansion=3)
    assert [stage.inner_width % 16 for stage in spec.stages] == [0, 0, 0]
    assert [stage.inner_width for stage in spec.stages] == [3 * s.width for s in spec.stages]
