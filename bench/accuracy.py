"""Measure a model's accuracy on photos in class folders: .../<wnid>/<photo>.

    python bench/accuracy.py --model bundled SOURCE...

A source is what `regnet classify` takes (a folder, a zip); the class is the last folder's name.
Prints one JSON line. A photo that cannot be read ends the measurement.
"""

import argparse
import json
from pathlib import PurePosixPath

import regnet


def main() -> None:
    """Classify every photo and print top-1 and top-5 in percent."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sources", nargs="+", metavar="SOURCE")
    parser.add_argument("--model", default="bundled")
    options = parser.parse_args()
    photos = top1 = top5 = 0
    for prediction in regnet.load(options.model).stream(options.sources, top_k=5):
        truth = PurePosixPath(prediction.source).parent.name
        _ = prediction.top
        wnids = [score.wnid for score in prediction.predictions]
        photos += 1
        top1 += truth == wnids[0]
        top5 += truth in wnids
    figures = {"model": options.model, "photos": photos}
    print(json.dumps(figures | {"top1": 100 * top1 / photos, "top5": 100 * top5 / photos}))


if __name__ == "__main__":
    main()
