"""Write IRs again with what this version puts into their .xml; the weights stay as they are.

python tools/describe_ir.py MODEL.xml...

That is the checksum of the .bin and the settings of OpenVINO Model API. Use it on models that an
earlier version converted; `tools/any_size.py` does the same for the bundled ones. The metadata is
kept, and the .bin is the same byte for byte: if it would not be, nothing is changed.
"""

import argparse
import filecmp
from pathlib import Path

from regnet.ir.graph import graph_metadata, read_graph, write_ir
from regnet.system.files import new_folder_beside


def describe(path: Path) -> None:
    """Replace the .xml at `path`; raises `ValueError` if the .bin would change."""
    graph = read_graph(path)
    with new_folder_beside(path) as scratch:
        copy = scratch / path.name
        write_ir(graph, graph_metadata(graph, source=str(path)), copy)
        if not filecmp.cmp(copy.with_suffix(".bin"), path.with_suffix(".bin"), shallow=False):
            raise ValueError(f"{path}: OpenVINO would write another .bin; convert it again")
        copy.replace(path)


def main() -> None:
    """Describe each model named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("models", type=Path, nargs="+", metavar="MODEL.xml")
    for path in parser.parse_args().models:
        describe(path)
        print(path)


if __name__ == "__main__":
    main()
