"""Settings of OpenVINO Model API (`openvino-model-api`), which it reads from a model's rt_info.

Source: model_api 0.4.7, parameters.py, image_model.py and classification.py in `models/`.
"""

from collections import Counter
from typing import Final

from regnet.ir.metadata import ModelMetadata
from regnet.network.labels import Labels, first_name

MODEL_INFO: Final = "model_info"


def model_info(metadata: ModelMetadata) -> dict[str, str]:
    """Return the settings for a converted model; Model API passes it photos in BGR.

    A model that takes crops gets the largest central square of a photo, resized with bilinear
    sampling: the nearest of Model API's ways to a short-side resize and a centre crop. A model with
    the preprocessing in its graph gets the whole photo, and so does one that takes any size, as the
    bundled ones do (tools/any_size.py). Mean and scale are in the graph.
    """
    whole = metadata.preprocessing == "graph"
    takes_rgb = whole or metadata.preprocess.channels == "RGB"
    return {
        "model_type": "Classification",
        "labels": " ".join(label_words(metadata.labels)),
        "resize_type": "crop",
        "reverse_input_channels": str(takes_rgb),
        # Said also where it is the default: without it Model API passes whole photos in BGR.
        "embedded_processing": "False",
        "multilabel": "False",
    }


def onnx_properties(metadata: ModelMetadata) -> dict[str, str]:
    """Return the settings as properties of an ONNX file, by the names that Model API reads."""
    return {f"{MODEL_INFO} {key}": value for key, value in model_info(metadata).items()}


def label_words(labels: Labels) -> list[str]:
    """Return one word per class, because Model API splits the list at white space.

    It is the first synonym, with `_` for spaces, or the whole name if two classes share the first
    synonym.
    """
    short = [_word(first_name(label.name)) for label in labels]
    count = Counter(short)
    words = zip(short, labels, strict=True)
    return [word if count[word] == 1 else _word(label.name) for word, label in words]


def _word(name: str) -> str:
    return "_".join(name.split()) or "_"
