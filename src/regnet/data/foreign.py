"""Data sets of other tools that are not read, by the names of their files: what to do instead."""

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Final

from regnet.system.errors import DatasetError

_EXPORT: Final = (
    "write its images into a folder per class, into webdataset shards (.tar), or as Parquet"
)
_UNPACK: Final = "unpack it, or pack its images as zip or tar"
_KINDS: Final = (
    (r"data\.mdb|lock\.mdb|.+\.lmdb", "LMDB", _EXPORT),
    (r".+\.tfrecords?(?:[-_.].*)?|.+\.tfrec|.+-\d{5}-of-\d{5}", "TFRecord", _EXPORT),
    (
        r".+\.arrow|dataset_dict\.json|state\.json",
        "a data set of Hugging Face's save_to_disk (Arrow)",
        'write it as Parquet: datasets.load_from_disk(FOLDER)["train"].to_parquet("train.parquet")',
    ),
    (r".+\.(?:h5|hdf5)", "HDF5", _EXPORT),
    (r".+\.(?:npz|npy)", "NumPy arrays", _EXPORT),
    (r".+\.rec", "RecordIO", _EXPORT),
    (r".+\.beton", "FFCV", _EXPORT),
    (r".+\.(?:pkl|pickle)|data_batch_\d", "a pickle", _EXPORT),
    (r".+-idx\d-ubyte", "IDX (MNIST)", _EXPORT),
    (r".+\.(?:7z|rar)", "an archive", _UNPACK),
)
_LOOKED_AT: Final = 10_000  # names of files


def refuse_foreign(path: str, paths: Sequence[Path]) -> None:
    """Raise `DatasetError` if there is a data set of another tool at the paths, without images.

    It names the kind and what to do. Files that are read, such as archives, are none.
    """
    for name in islice(_names(paths), _LOOKED_AT):
        for pattern, what, how in _KINDS:
            if re.fullmatch(pattern, name, re.IGNORECASE):
                raise DatasetError(f"{path} is {what}, which is not read: {how}")


def _names(paths: Iterable[Path]) -> Iterator[str]:
    for path in paths:
        if path.is_dir():
            yield from (name for _, _, names in os.walk(path) for name in names)
        else:
            yield path.name
