"""Fine-tune on a folder of photos per class, and pack the result: finetune_and_ship.py photos/.

It needs the extra `train`. The zip holds all that another machine needs: there, after
`pip install regnet-vision`, `regnet classify --model my-model.xml photo.jpg` runs without torch.
"""

import sys
import zipfile
from pathlib import Path

import regnet


def main(photos: str, output: str = "my-model.zip", **options: int) -> None:
    """Train, show how good the model is, and write the zip."""
    training = regnet.finetune(photos, **options)
    print(training)
    classifier = training.classifier()
    print(classifier)
    model = Path(training.model)
    with zipfile.ZipFile(output, "w") as archive:
        for suffix in (".xml", ".bin"):
            archive.write(model.with_suffix(suffix), f"my-model{suffix}")
        archive.write(training.report, "report.html")


if __name__ == "__main__":
    main(*sys.argv[1:])
