"""INT8 models: what is in them, what they claim, and what is refused."""

import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from labelled_photos import write_labelled_photos
from test_conversion_export import SMALL, TINY, arrays, confident, described
from test_pages import Reader

from regnet.conversion.export import export_network
from regnet.conversion.store import Library, int8_beside
from regnet.data.labelled import Unreadable
from regnet.ir.constants import WEIGHTED, with_float_weights
from regnet.ir.engine import Engine, read_model
from regnet.ir.graph import graph_metadata, read_graph
from regnet.ir.graph_cost import graph_cost
from regnet.pages.html import report_html
from regnet.pixels.preprocess import crop_pixels
from regnet.pixels.samples import sample_crops, sample_photos
from regnet.quantization.photo_sets import draw_photos
from regnet.quantization.quantize import Quantization, quantize
from regnet.quantization.report import described_layer, quantization_report
from regnet.quantization.trial import Speed, Trial, Verdict, ranked
from regnet.quantization.weights import rounded
from regnet.statistics.agreement import Agreement, agreement, lower_bound
from regnet.statistics.metrics import Share
from regnet.system.errors import (
    AgreementError,
    ModelError,
    NoGainError,
    QuantizationError,
    UnknownModelError,
)
from regnet.system.machine import this_machine
from regnet.system.runtime import ov

SAMPLES, CHECKS = 1, 100  # INT8 disagrees on some photos: one photo sets poor ranges


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of 138 photos, parts of the samples."""
    folder = tmp_path_factory.mktemp("photos")
    write_labelled_photos(folder / "parts", each=46)
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "small.xml"
    export_network(arrays(confident(SMALL)), described(SMALL), path, sample_crops(TINY))
    return path


def make(model: Path, photos: Path, folder: Path, least: float) -> Quantization:
    return quantize(
        model,
        photos,
        samples=SAMPLES,
        checks=CHECKS,
        min_agreement=least,
        folder=folder,
        seconds=0.2,
        force=True,  # a network this small may be slower in INT8
    )


@pytest.fixture(scope="module")
def all_int8(model: Path, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Quantization:
    return make(model, photos, tmp_path_factory.mktemp("int8"), 0.0)


def weight_types(path: Path) -> dict[str, str]:
    """Return the type in which each convolution's weights are stored."""
    found = {}
    for op in read_graph(path).get_ordered_ops():
        if op.get_type_name() in ("Convolution", "GroupConvolution"):
            node = op.input_value(1).get_node()
            while node.get_type_name() != "Constant":
                node = node.input_value(0).get_node()
            found[op.get_friendly_name().removesuffix(".conv")] = (
                node.get_element_type().to_string()
            )
    return found


def test_the_model_is_int8_and_says_so(all_int8: Quantization) -> None:
    metadata = read_model(all_int8.path).metadata
    assert metadata.precision == "int8"
    assert metadata.certificate == all_int8.certificate
    assert all_int8.restored == ()
    assert set(weight_types(all_int8.path).values()) == {"i8"}
    assert len(weight_types(all_int8.path)) == all_int8.layers


def test_it_is_found_beside_the_original(model: Path, all_int8: Quantization) -> None:
    assert all_int8.path.name == "small-int8.xml"
    shutil.copy(model, all_int8.path.parent)
    assert int8_beside(all_int8.path.parent / "small.xml") == all_int8.path
    assert int8_beside(all_int8.path) == all_int8.path


def test_the_certificate_is_what_is_measured_again(
    model: Path, photos: Path, all_int8: Quantization
) -> None:
    found = agreement_on(slice(CHECKS // 2, CHECKS), model, all_int8.path, photos)
    assert found.top1.value == all_int8.certificate.agreement
    assert found.mean_kl == pytest.approx(all_int8.certificate.kl, rel=1e-3)
    assert all_int8.certificate.photos == CHECKS - CHECKS // 2
    assert all_int8.certificate.calibration_photos == SAMPLES
    assert all_int8.certificate.low < all_int8.certificate.agreement
    assert found.mean_kl < 0.1


def test_its_cost_is_that_of_the_network(model: Path, all_int8: Quantization) -> None:
    int8, original = (graph_cost(read_graph(p)) for p in (all_int8.path, model))
    assert int8.flops == pytest.approx(original.flops, rel=0.02)


@pytest.fixture(scope="module")
def with_restored(
    model: Path, photos: Path, all_int8: Quantization, tmp_path_factory: pytest.TempPathFactory
) -> Quantization:
    """Return a model that has to agree on more photos than the one with every layer in INT8."""
    choosing = slice(CHECKS // 2)
    agreeing = agreement_on(choosing, model, all_int8.path, photos).top1.hits
    least = lower_bound(agreeing + 1, CHECKS // 2)
    return make(model, photos, tmp_path_factory.mktemp("restored"), least)


def agreement_on(part: slice, model: Path, int8: Path, photos: Path) -> Agreement:
    """Return how an INT8 model agrees with the original on some of the check photos."""
    f32, other = Engine(read_model(model)), Engine(read_model(int8), precision="int8")
    drawn = draw_photos(photos, None, f32.pixels, samples=SAMPLES, checks=CHECKS)
    crops = np.stack(drawn.agreement.crops[part])
    return agreement(f32.infer(crops), other.infer(crops))


def test_layers_go_back_until_it_holds(all_int8: Quantization, with_restored: Quantization) -> None:
    found = with_restored
    assert found.certificate.agreement >= found.certificate.min_agreement
    assert 0 < len(found.restored) <= found.layers
    assert found.agreement_before is not None
    assert found.speed_before is not None
    types = weight_types(found.path)
    assert {name for name, kind in types.items() if kind == "f32"} == set(found.restored)
    assert found.certificate.kl < all_int8.certificate.kl


def test_what_chose_the_layers_does_not_certify_them(
    model: Path, photos: Path, all_int8: Quantization, with_restored: Quantization
) -> None:
    certifying = slice(CHECKS // 2, CHECKS)
    found, before = (
        agreement_on(certifying, model, made.path, photos).top1
        for made in (with_restored, all_int8)
    )
    assert found == with_restored.agreement.top1
    assert with_restored.certificate.agreement == found.value
    assert with_restored.certificate.photos == CHECKS - CHECKS // 2
    assert with_restored.agreement_before is not None
    assert with_restored.agreement_before.top1 == before


def test_the_same_photos_give_the_same_file(
    model: Path, photos: Path, all_int8: Quantization, tmp_path: Path
) -> None:
    again = make(model, photos, tmp_path, 0.0)
    weights = [found.path.with_suffix(".bin").read_bytes() for found in (again, all_int8)]
    assert weights[0] == weights[1]
    assert again.certificate == all_int8.certificate


def test_photos_to_check_with_are_others(photos: Path, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    shutil.copytree(photos, folder)
    copies = sorted(folder.rglob("*.png"))[:10]
    for copy in copies:
        shutil.copy(copy, folder / f"copy-{copy.parent.name}-{copy.name}")
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff broken")
    drawn = draw_photos(
        folder, None, lambda data: np.frombuffer(data, np.uint8), samples=20, checks=999
    )
    contents = [crop.tobytes() for crop in (*drawn.calibration.crops, *drawn.agreement.crops)]
    assert len(set(contents)) == len(contents)
    assert len(drawn.calibration) == 20
    assert drawn.duplicates == 10
    assert len(drawn.agreement) == 139 - 20  # whatever can be read here is a photo


def test_unreadable_photos_are_counted(model: Path, photos: Path, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    shutil.copytree(photos, folder)
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff broken")
    engine = Engine(read_model(model))
    drawn = draw_photos(folder, None, engine.pixels, samples=20, checks=999)
    assert [Path(failure.source).name for failure in drawn.unreadable] == ["broken.jpg"]
    assert len(drawn.agreement) == 118


@pytest.mark.parametrize(
    ("samples", "reason"),
    [(300, r"138 readable photos, need 300"), (60, r"78 readable photos left after taking 60")],
)
def test_too_few_photos_are_an_error(
    samples: int, reason: str, model: Path, photos: Path, tmp_path: Path
) -> None:
    with pytest.raises(QuantizationError, match=reason):
        quantize(model, photos, samples=samples, folder=tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_model_may_be_named(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(QuantizationError, match="138 readable photos"):
        quantize("bundled", photos, folder=str(tmp_path), offline=True)
    with pytest.raises(UnknownModelError, match="regnetx-9gf"):
        quantize("regnetx-9gf", photos, folder=tmp_path)


@pytest.mark.parametrize(
    ("verdict", "reason"),
    [
        (None, r"with all \d+ layers in FP32; 99\.00% is asked\. Nothing was written: lower"),
        (
            Verdict(restored=2, agreeing=40, images=50, low=0.6, passed=False),
            r"INT8 with 2 of \d+ layers in FP32 agrees .* of the 50 photos kept to certify it .*"
            r"Nothing was written\. These photos cannot certify another try",
        ),
    ],
)
def test_what_does_not_hold_is_not_written(
    verdict: Verdict | None,
    reason: str,
    model: Path,
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("regnet.quantization.trial.certify", lambda *_: verdict)
    with pytest.raises(AgreementError, match=reason):
        make(model, photos, tmp_path, 0.99)
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_is_slower_is_written_only_by_force(
    model: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = Speed(f32=100, bf16=200, int8=150, vs_f32=1.5, vs_bf16=0.75)
    monkeypatch.setattr(Trial, "speeds", lambda *_: [slow, slow])
    options = {"samples": SAMPLES, "checks": CHECKS, "min_agreement": 0.0, "folder": tmp_path}
    with pytest.raises(NoGainError, match=r"slower than bf16: 0\.75 x bf16.*--force"):
        quantize(model, photos, **options)
    assert list(tmp_path.iterdir()) == []
    found = quantize(model, photos, force=True, **options)
    assert found.path.exists()
    assert [reason.startswith("small: INT8 is slower") for reason in found.no_gain] == [True]
    assert found.to_dict()["no_gain"] == list(found.no_gain)


def test_a_model_of_which_most_stays_in_fp32_is_written_only_by_force(
    model: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def all_but_one(layers: int, images: int, agreeing: object, least: float) -> Verdict:
        return Verdict(restored=layers - 1, agreeing=50, images=50, low=0.9, passed=True)

    monkeypatch.setattr("regnet.quantization.trial.certify", all_but_one)
    with pytest.raises(NoGainError, match=r"of its \d+ layers .* must stay in FP32\. Nothing was"):
        quantize(model, photos, samples=SAMPLES, checks=CHECKS, folder=tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert make(model, photos, tmp_path, 0.5).no_gain


def test_one_calibration_photo_is_enough(model: Path, photos: Path, tmp_path: Path) -> None:
    found = quantize(
        model,
        photos,
        samples=1,
        checks=CHECKS,
        min_agreement=0.0,
        folder=tmp_path,
        force=True,
        seconds=0.2,
    )
    assert found.certificate.calibration_photos == 1


@pytest.mark.parametrize("scale", [0.0, 1.0, 1e6])
def test_inputs_that_hardly_vary_are_rounded(scale: float) -> None:
    """Their covariance is rounding errors, and not positive definite."""
    chance = np.random.default_rng(0)
    inputs = scale * (1 + 1e-9 * chance.normal(size=(64, 72)))
    mean = inputs.mean(axis=0)
    covariance = inputs.T @ inputs / 64 - np.outer(mean, mean)
    levels = rounded(chance.normal(size=(4, 72)), np.full(4, 0.02), covariance)
    assert np.array_equal(levels, np.round(levels))
    assert 100 < np.abs(levels).max() <= 127


def test_inputs_that_are_not_finite_are_an_error() -> None:
    with pytest.raises(QuantizationError, match="not finite on the calibration photos"):
        rounded(np.ones((1, 2)), np.ones(1), np.full((2, 2), np.nan))


def test_what_is_int8_is_not_quantized_again(
    all_int8: Quantization, photos: Path, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match="INT8"):
        make(all_int8.path, photos, tmp_path, 0.0)


def test_a_calibration_of_f32_does_not_travel_on(model: Path, photos: Path, tmp_path: Path) -> None:
    from regnet.ir.graph import set_graph_metadata
    from regnet.ir.records import Calibration

    graph = read_graph(model)
    learnt = Calibration(
        temperature=1.0,
        coverage=0.9,
        method="aps",
        threshold=0.9,
        photos=10,
        held_out=10,
        measured_coverage=0.9,
        mean_size=2.0,
    )
    described_so = replace(graph_metadata(graph, source=""), calibration=learnt)
    set_graph_metadata(graph, described_so)
    ov.save_model(graph, tmp_path / "sets.xml", compress_to_fp16=False)
    found = make(tmp_path / "sets.xml", photos, tmp_path, 0.0)
    assert read_model(found.path).metadata.calibration is None


def test_layers_are_ranked_by_damage_a_multiplication() -> None:
    assert ranked({"a": 1.0, "b": 4.0, "c": 1.0}, {"a": 1, "b": 8, "c": 1}) == ("a", "c", "b")


def test_the_page_shows_what_was_measured(with_restored: Quantization, photos: Path) -> None:
    found = with_restored
    before = found.agreement_before
    assert before is not None
    html = report_html(quantization_report(replace(found, agreement=before), photos))
    reader = Reader(html)
    text = " ".join(" ".join(reader.texts).split())
    assert re.findall(r"<h2>(.*?)</h2>", html) == [
        "Agreement, and what it costs",
        "Flips",
        "Layers restored to FP32",
        "How it was measured",
    ]
    assert f"at least {100 * before.top1_at_least:.2f} % (95 % confidence)" in text
    assert all(layer in reader.texts for layer in found.restored)
    images = [value for tag, name, value in reader.attributes if (tag, name) == ("img", "src")]
    assert len(images) == len(before.flips) > 0
    assert all(image.startswith("data:image/jpeg") for image in images)
    for flip in before.flips:
        assert f"margin {flip.margin:.3f}" in text
        assert Path(flip.source).name in reader.texts


def test_the_page_of_a_model_without_flips(all_int8: Quantization, photos: Path) -> None:
    agreed = replace(all_int8.agreement, top1=Share.of(CHECKS, CHECKS), flips=())
    broken = Unreadable("<b>.jpg", "no image")
    found = replace(all_int8, agreement=agreed, unreadable=(broken,))
    html = report_html(quantization_report(found, photos))
    assert "Every photo has the top class of FP32." in html
    assert f"None: all {found.layers} layers that can be INT8 are." in html
    assert "<b>.jpg" in Reader(html).texts
    assert "<img" not in html


@pytest.mark.parametrize(
    ("layer", "text"),
    [
        ("stem.conv", "the stem's 3 x 3 convolution"),
        ("s1.b1.proj", "stage 1, block 1: 1 x 1 convolution of the shortcut"),
        ("s12.b3.f.b", "stage 12, block 3: 3 x 3 convolution in groups"),
        ("another", ""),
    ],
)
def test_layers_are_described(layer: str, text: str) -> None:
    assert described_layer(layer) == text


def test_the_command_reports(model: Path, photos: Path, tmp_path: Path) -> None:
    shutil.copytree(photos, tmp_path / "photos")
    (tmp_path / "photos" / "broken.jpg").write_bytes(b"\xff\xd8\xff broken")
    done = run_command(
        *(model, "--calibration", tmp_path / "photos", "--samples", SAMPLES, "--json"),
        *("--min-agreement", 0.5, "--checks", CHECKS, "-o", tmp_path / "out", "--force"),
        *("--html", tmp_path / "report.html"),
    )
    assert done.returncode == 1, done.stderr
    assert "broken.jpg" in (tmp_path / "report.html").read_text()
    found = json.loads(done.stdout)
    assert found["certificate"]["photos"] == found["chosen_on"] == CHECKS // 2
    assert found["unreadable"][0]["source"].endswith("broken.jpg")
    assert Path(found["path"]) == tmp_path / "out" / "small-int8.xml"
    assert set(found["speed"]) == {"f32", "bf16", "int8", "vs_f32", "vs_bf16"}
    assert done.stderr.startswith(f"{tmp_path / 'report.html'}: written\n")
    refused = run_command(model, "--calibration", tmp_path / "none", "-o", tmp_path / "no")
    assert refused.returncode == 2
    assert "no such file or folder" in refused.stderr
    assert not (tmp_path / "no").exists()


def run_command(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-m", "regnet", "quantize", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_bundled_model_has_its_int8_twin(shared: Path) -> None:
    library = Library(offline=True)
    int8 = read_model(library.ir("bundled", precision="int8"))
    assert int8.metadata.certificate is not None
    photos = sorted((shared / "data" / "photos").glob("*.JPEG"))
    engines = Engine(read_model(library.ir("bundled"))), Engine(int8, precision="int8")
    crops = np.stack([engines[0].pixels(photo) for photo in [*photos, *sample_photos()]])
    found = agreement(*(engine.infer(crops) for engine in engines))
    assert found.top1.value >= 0.96


def test_int8_in_floating_point_for_cpus_whose_sums_overflow(
    all_int8: Quantization, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = read_model(all_int8.path)
    floating = with_float_weights(model.graph)
    kinds = {op.get_friendly_name(): op for op in floating.get_ordered_ops()}
    for name, op in kinds.items():
        if op.get_type_name() in WEIGHTED:
            assert op.input_value(1).get_node().get_type_name() == "Constant", name
            assert op.input_value(1).get_element_type().to_string() == "f32", name
    old = replace(this_machine(), flags=("avx2",))
    monkeypatch.setitem(with_float_weights.__globals__, "this_machine", lambda: old)
    crops = np.stack([crop_pixels(photo, model.metadata.preprocess) for photo in sample_photos()])
    alone, many = (Engine(model, precision="int8", streams=n).infer(crops) for n in (1, 2))
    assert np.abs(alone - many).max() < 1e-5
