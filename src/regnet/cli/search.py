"""`regnet search`: the photos nearest to a photo."""

from functools import partial
from pathlib import Path

from regnet.cli.console import require_html, show
from regnet.cli.options import Json, Model, Store, require_photos
from regnet.cli.progress import track
from regnet.system.cache import cache_dir
from regnet.system.option import Options, argument, option


class _Photos(Options):
    photos: tuple[str, ...] = argument("Photos to search for", "PHOTO...")
    within: str = option(
        ..., "Folder of photos, or file from `regnet embed`", "--in", "FOLDER|FILE"
    )
    top_k: int = option(10, "Photos to find for each PHOTO", "-k", "K", min=1)


class _Results(Json):
    html: Path | None = option(None, "Also write a contact sheet", "FILE")

    def __post_init__(self) -> None:
        require_html(self.html)


def search(photos: _Photos, model: Model, results: _Results, models: Store) -> bool:
    """Find the photos that look most like a photo.

    Photos are compared by the cosine of their embeddings, with every photo in FOLDER (or archive,
    Parquet file, glob) or FILE. The embeddings of a folder are kept in the cache: the next search
    embeds only new and changed photos. FILE is searched with its own model.

    Exit status: 0 done, 1 some photos failed, 2 could not run, 130 interrupted.

      regnet search --model bundled cat.jpg --in photos/
      regnet search cat.jpg --in photos.npy -k 20 --html found.html
    """
    from regnet.data.sources import count_items
    from regnet.features.embed import Form
    from regnet.features.embeddings_file import is_embeddings_file, open_embeddings
    from regnet.features.search import embedded_folder, search, search_report

    require_photos("search", photos.photos)
    path = Path(photos.within)
    file = open_embeddings(path) if is_embeddings_file(path) else None
    if file is None:
        require_photos("search", [photos.within])
        choice = model.chosen("search")
    else:
        own = file.description
        default = own.model if model.precision else f"{own.model}:{own.precision}"
        choice = model.chosen("search", default=default)
    classifier = models.classifier(choice)
    find = partial(
        search,
        classifier,
        photos.photos,
        within=photos.within,
        k=photos.top_k,
        offline=models.offline,
    )
    if file is None:
        within = embedded_folder(
            photos.within,
            classifier,
            Form(model=choice.model, precision=choice.precision),
            cache=cache_dir(models.cache_dir),
            offline=models.offline,
            show=partial(
                track,
                description="embedding",
                count=lambda: count_items([photos.within]),
                unit="photos",
            ),
        )
        with within as embeddings:
            result = find(embeddings)
    else:
        result = find(file)
    show(partial(search_report, result), result.to_dict, as_json=results.json, html=results.html)
    return result.unreadable > 0 or any(match.error for match in result.matches)
