"""How good a head in closed form is: `regnet teach`, `--add`, and wrong labels found by it.

    python bench/teach.py DATASET [--model bundled] [--draws 20] [--seed 0]

DATASET has train/ and val/ with the same class folders. Photos are embedded once, and all draws are
made from their features; one `regnet teach` of all training photos is a process of its own.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import regnet
from regnet.data.class_folders import folder_labels
from regnet.data.dataset import open_dataset
from regnet.data.sources import Item
from regnet.features.teach import embed_photos
from regnet.statistics.conformal import softmax64
from regnet.statistics.discriminant import Fitted, fit, head, rooted, share_changed
from regnet.statistics.metrics import Share

Vectors = NDArray[np.float32]
Truths = NDArray[np.int64]

WRONG = 0.05  # of the labels


class Photos:
    """Features (N, width) of photos and their classes (N,)."""

    def __init__(self, vectors: Vectors, truths: Truths) -> None:
        self.vectors, self.truths = vectors, truths

    def drawn(self, each: int, random: np.random.Generator) -> "Photos":
        """Return so many photos per class."""
        classes = range(self.truths.max() + 1)
        rows = [random.permutation(np.flatnonzero(self.truths == c))[:each] for c in classes]
        return self.at(np.concatenate(rows))

    def at(self, rows: NDArray[Any]) -> "Photos":
        """Return some of the photos."""
        return Photos(self.vectors[rows], self.truths[rows])

    def without(self, number: int) -> "Photos":
        """Return the photos of the other classes, which are numbered anew."""
        others = self.at(self.truths != number)
        return Photos(others.vectors, others.truths - (others.truths > number))


def embedded(classifier: regnet.Classifier, folder: Path) -> Photos:
    """Return the photos of class folders."""
    images = open_dataset(folder, folder_labels(folder))
    items = (Item(image.source, image.read) for image in images.items())
    photos = embed_photos(classifier, items, lambda found: found)
    return Photos(photos.vectors, np.array(images.truths, np.int64)[photos.numbers])


def taught(photos: Photos) -> Fitted:
    """Return a head of these photos."""
    return fit(photos.vectors, photos.truths, int(photos.truths.max()) + 1)


def hits(fitted: Fitted, photos: Photos) -> NDArray[np.bool_]:
    """Return which photos a head is right on."""
    logits = head(fitted.moments, fitted.tuning).logits(rooted(photos.vectors, fitted.tuning.root))
    return np.asarray(logits.argmax(axis=1) == photos.truths)


def accuracies(train: Photos, val: Photos, each: int, draws: int, seed: int) -> dict[str, Any]:
    """Return the accuracy on validation photos, and how often it is in the stated interval."""
    right, stated, inside = [], [], 0
    for draw in range(draws):
        some = train.drawn(each, np.random.default_rng(seed + draw))
        fitted = taught(some)
        correct = int((fitted.logits.argmax(axis=1) == some.truths[fitted.rows]).sum())
        share = Share.of(correct, len(fitted.rows))
        right.append(float(hits(fitted, val).mean()))
        stated.append(share.value)
        inside += share.holds(right[-1])
    return {
        "each": each,
        "draws": draws,
        "top1": float(np.mean(right)),
        "stated": float(np.mean(stated)),
        "inside": inside,
    }


def additions(train: Photos, val: Photos, each: int, seed: int) -> dict[str, Any]:
    """Return what adding each class to the others changes in the answers to the others' photos."""
    changed, between, printed, found = [], [], [], []
    for number in range(int(train.truths.max()) + 1):
        some = train.drawn(each, np.random.default_rng(seed + number))
        fitted = taught(some.without(number))
        new = rooted(some.vectors[some.truths == number], fitted.tuning.root)
        moments = fitted.moments.adding(new)
        before, after = (head(m, fitted.tuning) for m in (fitted.moments, moments))
        values = rooted(val.without(number).vectors, fitted.tuning.root)
        old, now = (each_head.logits(values).argmax(axis=1) for each_head in (before, after))
        changed.append(float((old != now).mean()))
        between.append(float(((old != now) & (now < len(fitted.moments.counts))).mean()))
        printed.append(share_changed(moments, fitted.tuning))
        own = rooted(val.vectors[val.truths == number], fitted.tuning.root)
        found.append(float((after.logits(own).argmax(axis=1) == len(fitted.moments.counts)).mean()))
    return {
        "each": each,
        "changed": float(np.mean(changed)),
        "most": max(changed),
        "between_old_classes": max(between),
        "printed": float(np.mean(printed)),
        "within_printed": sum(c <= p for c, p in zip(changed, printed, strict=True)),
        "of": len(changed),
        "new_class_found": float(np.mean(found)),
    }


def wrong_labels(train: Photos, draws: int, seed: int) -> dict[str, Any]:
    """Return how well wrong labels are found: AUROC, and of as many suspects as there are."""
    aurocs, firsts = [], []
    classes = int(train.truths.max()) + 1
    for draw in range(draws):
        random = np.random.default_rng(seed + draw)
        planted = random.permutation(len(train.truths))[: round(WRONG * len(train.truths))]
        labels = train.truths.copy()
        labels[planted] = (labels[planted] + random.integers(1, classes, len(planted))) % classes
        fitted = fit(train.vectors, labels, classes)
        probabilities = softmax64(fitted.logits)
        suspicion = -probabilities[np.arange(len(labels)), labels]
        wrong = np.zeros(len(labels), bool)
        wrong[planted] = True
        rank = np.argsort(np.argsort(suspicion)) + 1
        n = len(planted)
        aurocs.append((rank[wrong].sum() - n * (n + 1) / 2) / (n * (len(labels) - n)))
        firsts.append(int(wrong[np.argsort(-suspicion)[:100]].sum()))
    return {
        "planted": n,
        "draws": draws,
        "auroc": float(np.mean(aurocs)),
        "least_auroc": float(min(aurocs)),
        "right_of_first_100": float(np.mean(firsts)),
        "least_of_first_100": min(firsts),
    }


def process_seconds(dataset: Path, model: str) -> float:
    """Return the seconds of one `regnet teach`, a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "regnet", "teach", str(dataset), "--model", model]
        start = time.perf_counter()
        subprocess.run([*command, "-o", f"{folder}/m.xml"], check=True, capture_output=True)
        return time.perf_counter() - start


def main() -> None:
    """Measure all, and print it as one line of JSON each."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--model", default="bundled")
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    seconds = process_seconds(options.dataset / "train", options.model)
    print(json.dumps({"teach_seconds": round(seconds, 1)}))
    classifier = regnet.load(options.model)
    train, val = (embedded(classifier, options.dataset / name) for name in ("train", "val"))
    most = int(np.bincount(train.truths).min())
    for each in sorted({2, 5, 10, 39, most}):
        draws = options.draws if each < most else 1
        print(json.dumps(accuracies(train, val, each, draws, options.seed)))
    for each in (10, most):
        print(json.dumps(additions(train, val, each, options.seed)))
    print(json.dumps(wrong_labels(train, options.draws, options.seed)))


if __name__ == "__main__":
    main()
