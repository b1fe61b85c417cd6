"""How often an adopted model's top class differs from its original's, fed as its maker feeds it.

    python bench/adopt.py FOLDER PHOTOS [--only NAME...]

FOLDER is written by tools/make_foreign_models.py. Each model in it is adopted as docs/adopt.md
says. Its original runs in ONNX Runtime or OpenVINO, one photo at a time, with the preprocessing of
its maker's package: timm, torchvision, transformers or ultralytics; Pillow for Keras's; OpenVINO
Model API does all by itself. Where that package is missing, and for models of other names, the
original gets regnet's own crops. `most` is the largest difference of a probability; `right` counts
photos whose name begins with the wnid of their class. The last line is JSON.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from regnet.conversion.foreign_graph import read_face, read_foreign
from regnet.conversion.original import Original
from regnet.conversion.protocol_choice import protocol_of_maker
from regnet.conversion.store import Library
from regnet.conversion.values import Request
from regnet.ir.constants import pixels_of
from regnet.ir.engine import Engine, read_model
from regnet.network.labels import read_labels
from regnet.statistics.conformal import softmax64

sys.path.insert(0, str(Path(__file__).parent.parent / "tools"))

SUFFIXES = (".jpg", ".jpeg", ".JPEG", ".png")
Values = NDArray[Any]
Feed = Callable[[Path], Values]
"""From a photo to the original's input, a batch of one."""


@dataclass(frozen=True)
class Maker:
    """How a model is adopted, and the package that feeds its original; `feed` imports it."""

    package: str = ""
    feed: Callable[[Path], Feed] | None = None
    named: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    labels: str = ""


@dataclass(frozen=True)
class Row:
    """The comparison of a model with its original.

    `most`: the largest difference of a probability, None where the original gives none.
    """

    fed_by: str
    flips: int
    most: float | None
    right: float


def from_timm(name: str) -> Callable[[Path], Feed]:
    """Return what makes timm's own transform of a model."""

    def feed(_: Path) -> Feed:
        import timm.data
        from timm.models import get_pretrained_cfg

        config = get_pretrained_cfg(name).to_dict()
        transform = timm.data.create_transform(
            **timm.data.resolve_data_config(pretrained_cfg=config)
        )
        return lambda photo: np.asarray(transform(rgb(photo)))[None]

    return feed


def from_torchvision(name: str) -> Callable[[Path], Feed]:
    """Return what makes torchvision's own transform of some weights."""

    def feed(_: Path) -> Feed:
        from torchvision.models import get_weight

        transform = get_weight(f"{name}.IMAGENET1K_V1").transforms()
        return lambda photo: np.asarray(transform(rgb(photo)))[None]

    return feed


def from_ultralytics(_: Path) -> Feed:
    """Return Ultralytics' own transform, as its predictor feeds it."""
    import cv2
    from ultralytics.data.augment import classify_transforms

    transform = classify_transforms(224)

    def feed(photo: Path) -> Values:
        pixels = cv2.cvtColor(cv2.imread(str(photo)), cv2.COLOR_BGR2RGB)
        return np.asarray(transform(Image.fromarray(pixels)))[None]

    return feed


def from_transformers(folder: Path) -> Feed:
    """Return the image processor in a folder with Pillow; torchvision resizes otherwise."""
    from transformers import AutoImageProcessor

    processor = AutoImageProcessor.from_pretrained(folder, backend="pil")
    return lambda photo: processor(rgb(photo), return_tensors="np")["pixel_values"]


def stretched(*, scaled: bool) -> Callable[[Path], Feed]:
    """Return what makes Keras's `load_img`: a photo stretched by Pillow."""

    def feed(photo: Path) -> Values:
        pixels = np.asarray(rgb(photo).resize((224, 224), Image.Resampling.BILINEAR))[None]
        return pixels.astype(np.float32) / np.float32(127.5) - 1 if scaled else pixels

    return lambda _: feed


LABELS = "labels.txt"
BICUBIC = {"interpolation": "bicubic"}
HALF = {"mean": (127.5,) * 3, "scale": (127.5,) * 3}
TORCHVISION = {
    name: Maker("torchvision", from_torchvision(weights), "torchvision", {}, LABELS)
    for name, weights in {
        "torchvision-resnet50.onnx": "ResNet50_Weights",
        "torchvision-mobilenet_v3_large.onnx": "MobileNet_V3_Large_Weights",
    }.items()
}
TIMM = {
    name: Maker("timm", from_timm(weights), "torchvision", BICUBIC | options, LABELS)
    for name, weights, options in (
        ("efficientnet-lite0.onnx", "tf_efficientnet_lite0", HALF),
        ("efficientnet-lite0-b1.onnx", "tf_efficientnet_lite0", HALF),
        ("efficientnet-lite2.onnx", "tf_efficientnet_lite2", HALF | {"resize": 292}),
        ("timm-convnext_atto.onnx", "convnext_atto", {}),
        ("timm-vit_tiny_patch16_224.onnx", "vit_tiny_patch16_224", HALF | {"resize": 248}),
    )
}
BYTES = {"resize": 224, "crop": 224, "fit": "stretch", "interpolation": "bilinear"}
MAKERS = {
    **TIMM,
    **TORCHVISION,
    "keras-nhwc.onnx": Maker(
        "PIL", stretched(scaled=True), "keras", {"interpolation": "bilinear"}, "labels-1001.txt"
    ),
    "tf-uint8.onnx": Maker("PIL", stretched(scaled=False), "", BYTES, "labels-1001.txt"),
    "ultralytics-cls.onnx": Maker("ultralytics", from_ultralytics),
    "ultralytics-yolo11n-cls.onnx": Maker("ultralytics", from_ultralytics),
    "optimum-intel/openvino_model.xml": Maker("transformers", from_transformers),
    "model-api/efficientnet-lite0.xml": Maker("model_api"),
    "model-api/resnet50.xml": Maker("model_api"),
}


def main() -> None:
    """Print a line per model and one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("photos", type=Path, metavar="PHOTOS")
    parser.add_argument("--only", nargs="+", default=[""], help="parts of models' names")
    options = parser.parse_args()
    if find_spec("torchvision"):
        from make_timm_crops import skip_operators

        skip_operators()
    photos = [path for path in sorted(options.photos.rglob("*")) if path.suffix in SUFFIXES]
    rows = []
    print(f"{'model':34} {'fed by':12} {f'flips of {len(photos)}':>14} {'most':>8} {'right':>7}")
    for file in sorted([*options.folder.rglob("*.onnx"), *options.folder.rglob("*.xml")]):
        name = str(file.relative_to(options.folder))
        if "refused" not in file.parts and any(part in name for part in options.only):
            row = compare(file, options.folder, MAKERS.get(name, Maker()), photos)
            most = "" if row.most is None else f"{row.most:.1e}"
            values = f"{row.flips:14} {most:>8} {row.right:7.1%}"
            print(f"{name:34} {row.fed_by:12} {values}", flush=True)
            rows.append({"model": name, **asdict(row)})
    print(json.dumps({"photos": len(photos), "models": rows}))


def compare(file: Path, folder: Path, maker: Maker, photos: Sequence[Path]) -> Row:
    """Adopt a model and compare it with its original on photos."""
    labels = read_labels(folder / maker.labels) if maker.labels else None
    protocol = {"named": protocol_of_maker(maker.named).to_dict()} if maker.named else {}
    request = Request(weights=file, labels=labels, protocol={**protocol, **maker.options})
    with tempfile.TemporaryDirectory() as cache:
        engine = Engine(read_model(Library(folder=Path(cache)).convert(request).path))
        ours = np.concatenate([engine.infer([engine.pixels(photo)]) for photo in photos])
    fed_by = maker.package if maker.package and find_spec(maker.package) else "regnet"
    if fed_by == "model_api":
        tops = model_api_tops(file, photos)
        most = None
    else:
        rows = original_rows(file, engine, maker.feed if fed_by != "regnet" else None, photos)
        tops, most = rows.argmax(axis=1), float(np.abs(rows - ours).max())
    wnids = [label.wnid for label in engine.metadata.labels]
    known = [p.name.split("_")[0] == wnids[i] for p, i in zip(photos, ours.argmax(1), strict=True)]
    return Row(fed_by, int((tops != ours.argmax(axis=1)).sum()), most, float(np.mean(known)))


def original_rows(
    file: Path, engine: Engine, feed: Callable[[Path], Feed] | None, photos: Sequence[Path]
) -> Values:
    """Return the original's probabilities; without `feed` it gets the adopted model's crops."""
    if feed is None:
        face = read_face(read_foreign(file), file)
        original = Original(file, face, engine.metadata.preprocess)
        raw = np.concatenate([original.raw(pixels_of([engine.pixels(p)])) for p in photos])
    else:
        run, batch = engine_of(file), feed(file.parent)
        raw = np.stack([run(batch(photo))[0].ravel() for photo in photos]).astype(np.float64)
    sums_to_1 = raw.min() >= 0 and np.abs(raw.sum(axis=1) - 1).max() < 1e-3
    return raw if sums_to_1 else softmax64(raw)


def engine_of(file: Path) -> Callable[[Values], Values]:
    """Return what runs a batch in the file's own engine, without anything of regnet's."""
    if file.suffix == ".onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(file)
        name = session.get_inputs()[0].name
        return lambda batch: np.asarray(session.run(None, {name: batch})[0])
    import openvino as ov

    model = ov.Core().compile_model(file, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda batch: np.asarray(model(batch)[0])


def model_api_tops(file: Path, photos: Sequence[Path]) -> Values:
    """Return the top classes that OpenVINO Model API finds by itself."""
    import cv2
    from model_api.models import ClassificationModel

    model = ClassificationModel.create_model(str(file), device="CPU")
    return np.array([model(cv2.imread(str(photo))).top_labels[0].id for photo in photos])


def rgb(photo: Path) -> Image.Image:
    """Return a photo as the makers open it."""
    with Image.open(photo) as image:
        return image.convert("RGB")


if __name__ == "__main__":
    main()
