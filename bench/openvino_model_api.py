"""How often OpenVINO Model API finds the top class that `regnet classify` finds.

openvino-model-api wants another OpenCV than regnet's tests, so give it a virtual environment of its
own:

regnet classify -m bundled -k 1 PHOTOS -f jsonl -o top.jsonl
VENV/bin/python bench/openvino_model_api.py MODEL.xml top.jsonl [--known]

Photos go in as OpenCV reads them, with Model API's default call. `--known`: only photos whose name
begins with the wnid of one of the model's classes. The last line is JSON.
"""

import argparse
import json
from pathlib import Path

import cv2
import openvino as ov
from model_api.models import Model


def main() -> None:
    """Print the photos whose top class differs, and the count."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model", metavar="MODEL.xml")
    parser.add_argument("results", type=Path, metavar="top.jsonl")
    parser.add_argument("--known", action="store_true")
    options = parser.parse_args()
    labels = _labels(options.model)
    wnids = {wnid for wnid, _ in labels}
    model = Model.create_model(options.model)
    same = photos = 0
    for line in options.results.read_text("utf-8").splitlines():
        result = json.loads(line)
        path = Path(result["source"])
        if options.known and path.name.split("_")[0] not in wnids:
            continue
        expected = result["predictions"][0]
        top = model(cv2.imread(str(path))).top_labels[0]
        photos += 1
        same += int(top.id == expected["index"])
        if top.id != expected["index"]:
            print(f"{path.name}: {top.name} {top.confidence:.3f}, not {expected['label']}")
    words = model.params.labels
    print(json.dumps({"same": same, "photos": photos, "labels": len(words), "first": words[:3]}))


def _labels(model: str) -> list[list[str]]:
    info = ov.Core().read_model(model).get_rt_info(["regnet", "labels"])
    rows: list[list[str]] = json.loads(info.astype(str))
    return rows


if __name__ == "__main__":
    main()
