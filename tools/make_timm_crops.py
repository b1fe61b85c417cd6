"""Write hashes of timm's own crops of the shared photos: python tools/make_timm_crops.py [PHOTOS].

Needs timm and torchvision beside torch: `pip install --no-deps --target FOLDER timm torchvision
huggingface_hub`, then PYTHONPATH=FOLDER. One sha256 for each image size and crop share of timm's
RegNets, over the RGB crops of all photos in the order of their names.
"""

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import PIL.Image
import torch

ROOT = Path(__file__).parent.parent
OUTPUT = ROOT / "tests" / "golden" / "timm_crops.json"


def main() -> None:
    """Write the file that the tests compare with."""
    skip_operators()
    import timm
    from timm.data import create_transform, resolve_data_config
    from timm.models import get_pretrained_cfg

    names = timm.list_models("regnet*", pretrained=True)
    settings = {}
    for config in (get_pretrained_cfg(name).to_dict() for name in names):
        for test_size in (False, True):
            data = resolve_data_config(pretrained_cfg=config, use_test_size=test_size)
            settings[f"{data['input_size'][1]}@{data['crop_pct']:g}"] = data
    folder = Path(sys.argv[1]) if sys.argv[1:] else ROOT.parent / "shared" / "data" / "photos"
    photos = sorted(folder.glob("*.JPEG"))
    crops = {
        key: _hash(photos, create_transform(**settings[key], normalize=False))
        for key in sorted(settings)
    }
    made_with = {"timm": timm.__version__, "Pillow": PIL.__version__, "photos": len(photos)}
    values = {"command": "python tools/make_timm_crops.py", **made_with, "crops": crops}
    OUTPUT.write_text(json.dumps(values, indent=1) + "\n", "utf-8")


def skip_operators() -> None:
    """Let torchvision be imported beside a torch that it was not built for."""
    register = torch.library.register_fake

    def skipping(name: Any, *more: Any, **options: Any) -> Any:
        if str(name).startswith("torchvision::"):
            return lambda function: function
        return register(name, *more, **options)

    torch.library.register_fake = skipping


def _hash(photos: list[Path], transform: Any) -> str:
    digest = hashlib.sha256()
    for path in photos:
        with PIL.Image.open(path) as photo:
            digest.update(transform(photo.convert("RGB")).permute(1, 2, 0).numpy().tobytes())
    return digest.hexdigest()


if __name__ == "__main__":
    main()
