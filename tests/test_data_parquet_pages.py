import os
from pathlib import Path
from typing import Any

import pytest

from regnet.data.parquet_images import _pages, images_from
from regnet.data.sources import iter_items
from regnet.system.errors import DatasetError, ImageError

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")


def written(folder: Path, images: Any, **options: Any) -> str:
    path = folder / "photos.parquet"
    pq.write_table(pa.table({"image": pa.array(images, pa.binary())}), path, **options)
    return str(path)


def reason(path: str) -> str:
    (item,) = iter_items([path])
    with pytest.raises(ImageError) as caught:
        item.read()
    return str(caught.value)


@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("dictionary", [True, False])
@pytest.mark.parametrize("codec", ["none", "snappy", "zstd", "gzip", "brotli"])
def test_all_pages_are_found(tmp_path: Path, version: str, dictionary: bool, codec: str) -> None:
    names = ["n" * 4000, *(f"photo {number}" for number in range(3000))]
    columns = {
        "image": [os.urandom(300) + bytes(number) for number in range(3001)],
        "path": names,
        "label": [number % 7 if number % 5 else None for number in range(3001)],
        "both": [{"bytes": name.encode(), "path": name} for name in names],
    }
    path = tmp_path / "photos.parquet"
    options: dict[str, Any] = {"use_dictionary": dictionary, "compression": codec}
    options |= {
        "data_page_size": 5000,
        "row_group_size": 2000,
        "data_page_version": version,
        "write_batch_size": 10,
    }
    pq.write_table(pa.table(columns), path, **options)
    metadata, found = pq.read_metadata(path), 0
    with path.open("rb") as file:
        for group in map(metadata.row_group, range(metadata.num_row_groups)):
            for chunk in map(group.column, range(group.num_columns)):
                pages = list(_pages("photos", file, chunk))
                found += len(pages)
                shrunk = chunk.total_uncompressed_size - chunk.total_compressed_size
                assert shrunk == sum(unpacked - packed for packed, unpacked in pages)
    assert found >= (20 if dictionary else 100)


@pytest.mark.parametrize("codec", ["zstd", "gzip", "brotli"])
def test_a_page_that_unpacks_to_far_more_is_refused(tmp_path: Path, codec: str) -> None:
    path = written(tmp_path, [bytes(5 << 20)] * 4, compression=codec, use_dictionary=False)
    assert "a Parquet bomb? A page of" in reason(path)


def test_a_page_may_be_large_if_the_file_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("regnet.data.parquet_images.MAX_PAGE", 100_000)
    path = written(tmp_path, [os.urandom(150_000)], use_dictionary=False)
    assert len(list(iter_items([path]))) == 1
    path = written(tmp_path, [os.urandom(50_000) + bytes(100_000)], use_dictionary=False)
    assert "over the limit of 100,000: write it with smaller pages" in reason(path)


def test_more_rows_than_bytes_are_refused(tmp_path: Path) -> None:
    assert "It claims 100,000 rows in" in reason(written(tmp_path, pa.nulls(100_000)))


def test_a_value_may_not_be_repeated_without_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("regnet.data.parquet_images.BEYOND", 10_000_000)
    path = written(tmp_path, [bytes(1_000_000)] * 300)
    with pytest.raises(DatasetError, match="unpacks to over 200 times its size and 9 MiB more"):
        list(images_from(path, "image", 0, 1 << 30))


def test_a_page_without_a_header_is_damage(tmp_path: Path) -> None:
    path = Path(written(tmp_path, [os.urandom(1000)], use_dictionary=False))
    data = path.read_bytes()
    path.write_bytes(data[:4] + b"\xff" * 20 + data[24:])
    assert "a page of this Parquet file is damaged" in reason(str(path))


def test_large_images_are_put_aside_and_unchanged(tmp_path: Path) -> None:
    photos = [os.urandom(size) for size in (10, 3 << 20, 20, 1 << 20, (1 << 20) + 1)]
    items = list(iter_items([written(tmp_path, photos)]))
    assert [item.read() for item in items] == photos
