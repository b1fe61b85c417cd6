"""Classify the photos in a folder into a CSV file: python folder_to_csv.py photos/ labels.csv."""

import csv
import sys
from pathlib import Path

import regnet


def main(folder: str, output: str) -> None:
    """Write a row for each photo: its name, class and probability, or why there is none."""
    classifier = regnet.load("bundled")
    with Path(output).open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["photo", "label", "probability", "error"])
        for prediction in classifier.stream(folder, top_k=1, progress=True):
            best = [(score.label, f"{score.probability:.4f}") for score in prediction.predictions]
            writer.writerow([prediction.source, *(best or [("", "")])[0], prediction.error])


if __name__ == "__main__":
    main(*sys.argv[1:])
