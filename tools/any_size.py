"""Let converted models take whole photos of any size besides crops.

python tools/any_size.py MODEL.xml...

`data` becomes [?, 3, ?, ?], and its values are rounded to whole numbers. Crops of the protocol's
size pass as they are. Other images, in the channel order of `data`, are resized and cropped in the
graph, by the bilinear protocols of Pillow; a few values are off by 1. regnet itself removes this
part when it reads the file. It is for engines that pass on a photo as it is, such as OpenVINO Model
API.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from regnet.conversion.graph_preprocess import whole_quotient
from regnet.ir.graph import CROPS, graph_metadata, read_graph, write_ir
from regnet.ir.graph_cost import PREPROCESSING
from regnet.pixels.protocol import Preprocess
from regnet.system.files import new_folder_beside, replace_all
from regnet.system.runtime import ov

opset = ov.opset15


def accept_any_size(model: ov.Model, preprocess: Preprocess) -> None:
    """Put the resize and the crop in front of the network."""
    (old,) = model.get_parameters()
    users = old.output(0).get_target_inputs()
    before = {op.get_friendly_name() for op in model.get_ops()}
    data = opset.parameter(ov.PartialShape([-1, 3, -1, -1]), np.float32)
    data.set_layout(ov.Layout("NCHW"))
    crops = _crops(data, preprocess)
    for user in users:
        user.replace_source_output(crops.output(0))
    model.add_parameters([data])
    model.remove_parameter(old)
    for op in model.get_ops():
        if op.get_friendly_name() not in before:
            op.set_friendly_name(f"{PREPROCESSING}{op.get_friendly_name()}")
            op.get_rt_info()["precise_0"] = ""  # keeps float32 where the plugin is asked for bf16
    crops.set_friendly_name(CROPS)
    data.set_friendly_name("data")
    data.output(0).get_tensor().set_names({"data"})
    model.validate_nodes_and_infer_types()


def _crops(data: Any, preprocess: Preprocess) -> Any:
    """Return the crops [?, 3, crop, crop]; sizes are as `Preprocess.resized` computes them."""
    crop = _int([preprocess.crop] * 2)
    size = opset.gather(opset.shape_of(data, "i32"), _int([2, 3]), _int(0))
    short = opset.reduce_min(size, _int([0]), True)
    resized = whole_quotient(opset.multiply(size, _int(preprocess.resize)), short)
    is_crop = opset.reduce_logical_and(opset.equal(size, crop), _int([0]), True)
    resized = opset.select(is_crop, size, resized)
    rest = opset.subtract(resized, crop)
    start = opset.bitwise_right_shift(rest, _int(1))
    odd = opset.bitwise_and(rest, _int(1))
    up = {"ceil": odd, "round": opset.bitwise_and(odd, start), "floor": _int([0])}
    start = opset.add(start, up[preprocess.offset])
    axes = [opset.split(value, _int(0), 2).outputs() for value in (size, resized, start)]
    vertical, horizontal = (_weights(*axis, preprocess.crop) for axis in zip(*axes, strict=True))
    narrow = _mean(opset.matmul(data, horizontal, False, True), horizontal, False)
    return _mean(opset.matmul(vertical, narrow, False, False), vertical, True)


def _weights(size: Any, resized: Any, start: Any, crop: int) -> Any:
    """Return Pillow's bilinear weights [1, 1, crop, size] of an axis; sizes are int32 [1].

    All distances are whole multiples of 1 / (2 * resized) pixels, so that they are exact.
    """
    outputs = opset.add(start, _int(np.arange(crop).reshape(1, 1, crop, 1)))
    pixels = opset.range(_int(0), opset.squeeze(size, _int([0])), _int(1), "i32")
    apart = opset.abs(opset.subtract(_odd(pixels, resized), _odd(outputs, size)))
    reach = opset.multiply(opset.maximum(size, resized), _int(2))
    weights = opset.maximum(opset.subtract(reach, apart), _int(0))
    return opset.convert(weights, "f32")


def _odd(position: Any, factor: Any) -> Any:
    return opset.multiply(opset.add(opset.multiply(position, _int(2)), _int(1)), factor)


def _mean(sums: Any, weights: Any, rows: bool) -> Any:
    """Return weighted sums over the sum of the weights, rounded to whole numbers.

    OpenVINO's CPU plugin keeps float32 only in a division of one by a sum.
    """
    shape = _int([1, 1, -1, 1] if rows else [1, 1, 1, -1])
    half = opset.reshape(opset.reduce_sum(weights, _int([3]), True), shape, False)
    half = opset.multiply(half, opset.constant(np.float32(0.5)))
    share = opset.divide(opset.constant(np.float32(1)), opset.add(half, half))
    about = opset.add(opset.multiply(sums, share), opset.constant(np.float32(0.5)))
    return opset.floor(about)


def _int(values: Any) -> Any:
    return opset.constant(np.array(values, np.int32))


def main() -> None:
    """Replace each model named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("models", type=Path, nargs="+", metavar="MODEL.xml")
    for path in parser.parse_args().models:
        graph = read_graph(path)
        metadata = graph_metadata(graph, source=str(path))
        accept_any_size(graph, metadata.preprocess)
        with new_folder_beside(path) as scratch:
            replace_all(scratch, path.parent, write_ir(graph, metadata, scratch / path.name))
        print(path)


if __name__ == "__main__":
    main()
