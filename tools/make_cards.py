"""Write the model cards from the published figures: python tools/make_cards.py [-o FOLDER].

Reads regnet_published.json, other_weights.json and timm_regnets.json in ../shared/reference (or
--reference FOLDER) and writes one TOML file a set of weights to src/regnet/zoo/cards.
`bundled.toml` is written by hand and left alone. The same input gives the same files, byte for
byte.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from regnet.network.complexity import complexity
from regnet.network.spec import PUBLISHED_NAMES, canonical_name, spec_aliases, spec_by_name
from regnet.pixels.protocol import timm_protocol
from regnet.system.errors import UnknownModelError

ROOT = Path(__file__).parent.parent
HEADER = "# Written by tools/make_cards.py from published figures; edit that, not this.\n"

IMAGENET = "ImageNet-1k val"
MEAN_BGR = [103.53, 116.28, 123.675]
SCALE_BGR = [57.375, 57.12, 58.395]

PYCLS_ZOO = "https://github.com/facebookresearch/pycls/blob/main/MODEL_ZOO.md"
OMZ_MIRROR = "https://storage.openvinotoolkit.org/repositories/open_model_zoo/public/2022.1"

# What Open Model Zoo published about the one model it took over (facts of its model card).
OMZ_NAME = "regnetx-3.2gf"
OMZ_FILE = {
    "size": 122749825,
    "sha384": "5757be265470b77fa83a26b256d7ee0f49dea765f97b1e6254e87951a2d77079"
    "f34b750a5bc4df1f156cf658bc07c6fe",
}
OMZ_TOP1, OMZ_TOP5 = 78.15, 94.09
OTHER_TEST_SETS = {
    "ImageNet-A": 4.88,
    "ImageNet-R": 38.77,
    "ImageNet-Sketch": 26.71,
}

# torchvision's weights: suffix of the card's name, protocol, and what to say about them.
KINDS = {
    "IMAGENET1K_V1": ("tv1", "torchvision-v1"),
    "IMAGENET1K_V2": ("tv2", "torchvision-v2"),
    "IMAGENET1K_SWAG_E2E_V1": ("swag", "torchvision-swag-e2e"),
    "IMAGENET1K_SWAG_LINEAR_V1": ("swag-linear", "torchvision-swag-linear"),
}
SUMMARIES = {
    "IMAGENET1K_V1": "torchvision's first recipe, after the paper's",
    "IMAGENET1K_V2": "torchvision's newer recipe: longer, with stronger augmentation and EMA",
    "IMAGENET1K_SWAG_E2E_V1": "pre-trained on hashtags of 3.6 billion photos, fine-tuned end to "
    "end at 384 pixels",
    "IMAGENET1K_SWAG_LINEAR_V1": "pre-trained on hashtags of 3.6 billion photos; trunk frozen, a "
    "linear classifier trained on it",
}
SWAG_NOTICE = (
    "These weights were published by Meta's SWAG project under CC-BY-NC-4.0: you may use them for "
    "non-commercial purposes only, and must give credit. See "
    "https://github.com/facebookresearch/SWAG/blob/main/LICENSE"
)

# timm's weights: its tables by test set, and what to say of each tag without "_in1k".
TIMM_TABLES = {"imagenet": IMAGENET, "real": "ImageNet-ReaL", "v2": "ImageNet-V2"}
TIMM_LICENCES = {
    "apache-2.0": {"id": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
    "seer-license": {
        "id": "LicenseRef-SEER",
        "url": "https://github.com/facebookresearch/vissl/blob/main/projects/SEER/MODEL_LICENSE.md",
        "non_commercial": True,
        "notice": "SEER is licensed under SEER license, Copyright (c) Meta Platforms, Inc. All "
        "Rights Reserved. You may use these weights for non-commercial research only; uses such "
        "as surveillance, biometric processing and military purposes are excluded. See "
        "https://github.com/facebookresearch/vissl/blob/main/projects/SEER/MODEL_LICENSE.md",
    },
}
TIMM_SUMMARIES = {
    "ra": "timm's recipe with RandAugment",
    "ra3": "timm's third recipe with RandAugment",
    "sw_in12k": "trained by timm on ImageNet-12k, 11,821 classes of ImageNet-22k",
    "sw_in12k_ft": "trained by timm on ImageNet-12k, fine-tuned on ImageNet-1k",
    "lion_in12k_ft": "trained by timm on ImageNet-12k with the optimizer Lion, fine-tuned on "
    "ImageNet-1k",
    "deit": "the teacher of DeiT, trained by DeiT's authors",
    "seer_ft": "pre-trained without labels on a billion photos (SEER), fine-tuned on ImageNet-1k "
    "at 384 pixels",
}


def main() -> None:
    """Write the cards that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--reference", type=Path, default=ROOT.parent / "shared" / "reference")
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "src/regnet/zoo/cards")
    arguments = parser.parse_args()
    cards = make_cards(arguments.reference)
    arguments.output.mkdir(parents=True, exist_ok=True)
    for name, text in cards.items():
        (arguments.output / f"{name}.toml").write_text(text, "utf-8")
    print(f"{len(cards)} cards in {arguments.output}")


def make_cards(reference: Path) -> dict[str, str]:
    """Return the text of every card by its name."""
    published = json.loads((reference / "regnet_published.json").read_text("utf-8"))
    other = json.loads((reference / "other_weights.json").read_text("utf-8"))
    timm = json.loads((reference / "timm_regnets.json").read_text("utf-8"))["models"]
    cards = [_pycls_card(model, other, timm) for model in published]
    for model in other["torchvision"]["models"]:
        cards += [_torchvision_card(model, weights, other, timm) for weights in model["weights"]]
    for tag, model in timm.items():
        taken = {name.lower() for card in cards for name in (card["name"], *card["aliases"])}
        spec = _known_spec(model["architecture"])
        if tag not in taken and spec and model["num_classes"]:
            cards.append(_timm_card(tag, model, spec, taken))
    return {card["name"]: HEADER + _toml(card) for card in cards}


def _pycls_card(
    model: dict[str, Any], other: dict[str, Any], timm: dict[str, Any]
) -> dict[str, Any]:
    name, url = model["name"], model["zoo"]["url"]
    timm_name = spec_aliases(name)[0]
    tag = f"{timm_name}.pycls_in1k"
    file: dict[str, Any] = {"name": url.rpartition("/")[2], "urls": [url]}
    if name == OMZ_NAME:
        file["urls"].insert(0, f"{OMZ_MIRROR}/{name}/{file['name']}")
        file |= OMZ_FILE
    else:
        file["size_at_least"] = 4 * model["params"]
    return {
        "name": name,
        "aliases": [timm_name, tag, f"timm/{tag}", *_hub_names(name, other)],
        "spec": name,
        "classes": 1000,
        "labels": "imagenet-1k",
        "source": "pycls",
        "layout": "pycls",
        "channels": "BGR",
        "notes": _pycls_notes(name),
        "file": file,
        "licence": {
            "id": "MIT",
            "url": "https://github.com/facebookresearch/pycls/blob/main/LICENSE",
        },
        "preprocess": _preprocess("omz", 256, 224, "bicubic"),
        "recipe": {
            "url": PYCLS_ZOO,
            "epochs": 100,
            "learning_rate": model["base_lr"],
            "batch_size": model["batch_size"],
            "weight_decay": model["weight_decay"],
            "hours": float(model["zoo"]["train_hr_8v100"]),
            "hardware": "8 V100",
            "summary": "SGD, Nesterov momentum 0.9, half-period cosine, 5 epochs of warm-up; "
            "random resized crop, flip, PCA lighting 0.1; no label smoothing",
        },
        "accuracies": _pycls_accuracies(model, tag, timm),
    }


def _hub_names(name: str, other: dict[str, Any]) -> list[str]:
    """Return the Hugging Face names of the same weights; some there are from elsewhere."""
    models = other["transformers"]["models"]
    return [m["model_id"] for m in models if (m["pycls"], m["weights_origin"]) == (name, "pycls")]


def _pycls_notes(name: str) -> list[str]:
    if name == OMZ_NAME:
        return ["Open Model Zoo's model card; its figure was measured with the protocol omz."]
    return [
        "No size or hash was published for this file: regnet records the hash of the first "
        "download and holds later ones to it.",
        "Nobody published a figure measured by Open Model Zoo's tools for it; the headline is "
        "timm's, which resizes in the same way.",
    ]


def _pycls_accuracies(
    model: dict[str, Any], tag: str, known: dict[str, Any]
) -> list[dict[str, Any]]:
    pillow, pycls = model["published_pillow_bicubic"], model["published"]
    timm = {"protocol": "timm", **_geometry(256, 224, "bicubic"), "backend": "Pillow, 8 bits"}
    rows = []
    if model["name"] == OMZ_NAME:
        omz = {**timm, "protocol": "omz", "top1": OMZ_TOP1, "top5": OMZ_TOP5}
        rows.append({"dataset": IMAGENET, **omz, "source": "Open Model Zoo, model card"})
    figures = {"top1": pillow["top1"], "top5": pillow["top5"], "source": pillow["source"]}
    rows.append({"dataset": IMAGENET, **timm, **figures})
    rows.append(
        {
            "dataset": IMAGENET,
            "protocol": "pycls",
            **_geometry(256, 224, "bilinear"),
            "backend": "OpenCV, float",
            "top1": _accuracy(pycls["pycls_protocol_top1_error"]),
            "top5": _accuracy(pycls["pycls_protocol_top5_error"]),
            "source": "pycls model zoo",
        }
    )
    rows += _timm_rows(tag, known, "real", "v2")
    if model["name"] == OMZ_NAME:
        for dataset, top1 in OTHER_TEST_SETS.items():
            rows.append({"dataset": dataset, **timm, "top1": top1, "source": f"timm {tag}"})
    return rows


def _accuracy(error: float) -> float:
    return round(100 - error, 3)


def _torchvision_card(
    model: dict[str, Any], weights: dict[str, Any], other: dict[str, Any], timm: dict[str, Any]
) -> dict[str, Any]:
    kind = weights["weights"]
    suffix, protocol = KINDS[kind]
    spec = canonical_name(model["name"])
    swag = "SWAG" in kind
    digits = weights["url"].rpartition("-")[2].removesuffix(".pth")
    geometry = _geometry(weights["resize_size"], weights["crop_size"], weights["interpolation"])
    return {
        "name": f"{spec.removesuffix('-tv')}-{suffix}",
        "aliases": _torchvision_aliases(model, weights, spec),
        "spec": spec,
        "classes": 1000,
        "labels": "imagenet-1k",
        "source": "torchvision",
        "layout": "torchvision",
        "channels": "RGB",
        "notes": _torchvision_notes(spec, swag),
        "file": {
            "name": weights["url"].rpartition("/")[2],
            "urls": [weights["url"]],
            "sha256_prefix": digits,
            "size_about": round(weights["file_size_mb"] * 2**20),
            "size_at_least": 4 * model["num_params"],
        },
        "licence": _torchvision_licence(weights, swag),
        "preprocess": _preprocess(protocol, **geometry),
        "recipe": {"url": weights["recipe"], "summary": SUMMARIES[kind]},
        "accuracies": [
            {
                "dataset": IMAGENET,
                "protocol": protocol,
                **geometry,
                "backend": "torchvision",
                "top1": weights["acc@1"],
                "top5": weights["acc@5"],
                "source": f"torchvision {_enum_name(model['name'])}.{kind}",
            },
            *_timm_accuracies(weights["timm"], other),
            *_timm_rows(weights["timm"], timm, "real", "v2"),
        ],
    }


def _torchvision_aliases(model: dict[str, Any], weights: dict[str, Any], spec: str) -> list[str]:
    name, kind = model["name"], weights["weights"]
    aliases = [f"{_enum_name(name)}.{kind}", f"{name}.{kind}".lower()]
    if tag := weights["timm"]:
        aliases += [tag, f"timm/{tag}"]
    if kind == model["default"]:
        own = spec not in PUBLISHED_NAMES
        aliases += [name, *([spec, spec_aliases(spec)[0]] if own else [])]
    return aliases


def _enum_name(name: str) -> str:
    """Return torchvision's class of weights: regnet_x_3_2gf -> RegNet_X_3_2GF_Weights."""
    _, family, size = name.split("_", 2)
    return f"RegNet_{family.upper()}_{size.upper()}_Weights"


def _torchvision_notes(spec: str, swag: bool) -> list[str]:
    notes = []
    if spec.endswith("-tv"):
        base = spec.removesuffix("-tv")
        notes.append(f"torchvision rounds widths by another rule: not pycls's {base}.")
    if swag:
        notes.append("The licence forbids commercial use.")
    return notes


def _torchvision_licence(weights: dict[str, Any], swag: bool) -> dict[str, Any]:
    if swag:
        licence = {"id": weights["licence"], "url": weights["licence_url"]}
        return licence | {"non_commercial": True, "notice": SWAG_NOTICE}
    return {
        "id": "BSD-3-Clause",
        "url": "https://github.com/pytorch/vision#pre-trained-model-license",
        "notice": "BSD-3-Clause is the licence of torchvision's code, and what timm states for "
        "these weights; torchvision itself states none for the weights.",
    }


def _timm_accuracies(tag: str | None, other: dict[str, Any]) -> list[dict[str, Any]]:
    timm = other["timm"]
    rows = [r for r in timm["results"] + timm["results_other_tags"] if r["name"] == tag]
    return [
        {
            "dataset": IMAGENET,
            "protocol": "timm",
            **_geometry(int(r["img_size"] / r["crop_pct"]), r["img_size"], r["interpolation"]),
            "backend": "Pillow, 8 bits",
            "top1": r["top1"],
            "top5": r["top5"],
            "source": f"timm results-imagenet.csv {tag}@{r['img_size']}",
        }
        for r in rows
    ]


def _timm_rows(
    tag: str | None, timm: dict[str, Any], *tables: str, protocol: str = "timm"
) -> list[dict[str, Any]]:
    """Return the figures of timm's tables for a set of weights; `protocol` may hold the size."""
    rows = [(table, row) for table in tables for row in timm.get(tag, {}).get(table, [])]
    return [
        {
            "dataset": TIMM_TABLES[table],
            "protocol": protocol.format(row["img_size"]),
            **_timm_geometry(row["img_size"], row["crop_pct"], row["interpolation"]),
            "backend": "Pillow, 8 bits",
            "top1": row["top1"],
            "top5": row["top5"],
            "source": f"timm {tag}@{row['img_size']}",
        }
        for table, row in rows
    ]


def _timm_geometry(size: int, share: float, interpolation: str) -> dict[str, Any]:
    return _geometry(timm_protocol(size, share).resize, size, interpolation)


def _known_spec(architecture: str) -> str | None:
    try:
        return canonical_name(architecture)
    except UnknownModelError:
        return None


def _timm_card(tag: str, model: dict[str, Any], spec: str, taken: set[str]) -> dict[str, Any]:
    """Return the card of weights that timm has; it answers to bare names that no other card has."""
    kind, classes = model["tag"].removesuffix("_in1k"), model["num_classes"]
    files = _timm_files(tag, model, 4 * complexity(spec_by_name(spec, classes=classes)).params)
    protocols = _timm_protocols(model)
    return {
        "name": f"{spec}-{kind.replace('_', '-')}",
        "aliases": [
            tag,
            f"timm/{tag}",
            *(n for n in dict.fromkeys((model["architecture"], spec)) if n not in taken),
        ],
        "spec": spec,
        "classes": classes,
        "labels": "imagenet-1k" if classes == 1000 else "numbered",
        "source": "timm",
        "layout": "timm",
        "channels": "RGB",
        "notes": _timm_notes(model, files),
        "file": files[0],
        "other_files": files[1:],
        "licence": TIMM_LICENCES[model["license"]],
        "preprocess": protocols[0],
        "sizes": protocols if len(protocols) > 1 else [],
        "recipe": {
            "url": f"https://huggingface.co/{model['hf_hub_id']}",
            "summary": TIMM_SUMMARIES[kind],
        },
        "accuracies": _timm_rows(tag, {tag: model}, *TIMM_TABLES, protocol="timm-{}"),
    }


def _timm_files(tag: str, model: dict[str, Any], size_at_least: int) -> list[dict[str, Any]]:
    """Return the publisher's own file where its name tells its hash, then the hub's."""
    hub = f"https://huggingface.co/{model['hf_hub_id']}/resolve/main/model.safetensors"
    files = [{"name": f"{tag}.safetensors", "urls": [hub], "size_at_least": size_at_least}]
    url = model["url"] or ""
    name = url.rpartition("/")[2]
    digits = name.removesuffix(".pth").rpartition("-")[2]
    if name.endswith(".pth") and len(digits) == 8:
        own = {"sha256_prefix": digits, "size_at_least": size_at_least}
        files.insert(0, {"name": name, "urls": [url], **own})
    return files


def _timm_protocols(model: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the protocols of the size in training and, where it is another, of the test's."""
    size, share = model["input_size"][1], model["crop_pct"]
    sizes = {size: share}
    if test := model["test_input_size"]:
        sizes[test[1]] = model["test_crop_pct"] or share
    levels = {
        name: [round(255 * value, 4) for value in reversed(model[key])]
        for name, key in (("mean", "mean"), ("scale", "std"))
    }
    return [
        {
            "name": f"timm-{size}",
            **_timm_geometry(size, share, model["interpolation"]),
            "channels": "BGR",
            **levels,
        }
        for size, share in sizes.items()
    ]


def _timm_notes(model: dict[str, Any], files: list[dict[str, Any]]) -> list[str]:
    notes = []
    if model["num_classes"] != 1000:
        notes.append(
            f"The names of the {model['num_classes']:,} classes (ImageNet-12k) are not part of "
            "the weights: regnet numbers them. The weights are meant for fine-tuning, and nobody "
            "published an accuracy."
        )
    if model["url"] and len(files) == 1:
        notes.append(f"The file is timm's copy; regnet does not read the original, {model['url']}")
    if "seer" in model["license"]:
        notes.append("The licence forbids commercial use.")
    return notes


def _geometry(resize: int, crop: int, interpolation: str) -> dict[str, Any]:
    return {"resize": resize, "crop": crop, "interpolation": interpolation}


def _preprocess(name: str, resize: int, crop: int, interpolation: str) -> dict[str, Any]:
    geometry = _geometry(resize, crop, interpolation)
    colours = {"channels": "BGR", "mean": MEAN_BGR, "scale": SCALE_BGR}
    return {"name": name, **geometry, **colours}


def _toml(card: dict[str, Any]) -> str:
    """Return a card as TOML: plain keys, then tables and lists of tables."""
    lists = {key: card[key] for key in ("other_files", "sizes", "accuracies") if key in card}
    tables = {key: value for key, value in card.items() if isinstance(value, dict)}
    parts = [_pairs({k: v for k, v in card.items() if k not in lists and k not in tables})]
    parts += [f"[{key}]\n{_pairs(table)}" for key, table in tables.items()]
    parts += [f"[[{key}]]\n{_pairs(row)}" for key, rows in lists.items() for row in rows]
    return "\n".join(parts)


def _pairs(table: dict[str, Any]) -> str:
    return "".join(f"{key} = {_value(value)}\n" for key, value in table.items() if value != [])


def _value(value: Any) -> str:
    """Return a value as TOML; JSON's texts, numbers and lists are TOML's too."""
    if isinstance(value, list) and len(json.dumps(value)) > 72:
        return "[\n" + "".join(f"    {json.dumps(item)},\n" for item in value) + "]"
    return json.dumps(value)


if __name__ == "__main__":
    main()
