"""What the weights of a run depend on besides its recipe, as its checkpoints keep it."""

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, fields
from hashlib import sha384
from pathlib import Path
from typing import Any, Self

from regnet.conversion.store import Library
from regnet.inference.predictors import parse_choice
from regnet.ir.metadata import InferencePrecision
from regnet.network.spec import Spec, network_title, spec_from_dict, spec_to_dict
from regnet.system.errors import SpecError, TrainingError
from regnet.system.files import sha384_of
from regnet.training.initial_network import Start, converted
from regnet.training.photo_sets import PhotoSets


@dataclass(frozen=True, kw_only=True)
class Source:
    """A model that a run uses: its `name`, and its `content` as a hash of its files."""

    name: str
    content: str


@dataclass(frozen=True, kw_only=True)
class About:
    """What a run's weights depend on besides its recipe.

    `photos` is the fingerprint of the data set and `described` says it in words. `labels` are pairs
    of wnid and name, `network` a spec as plain values. `start` is None for random weights.
    """

    photos: str
    described: str
    labels: tuple[tuple[str, str], ...]
    network: dict[str, Any]
    start: Source | None
    teachers: tuple[Source, ...]
    accumulate: int
    precision: str

    @property
    def spec(self) -> Spec:
        """The network."""
        return spec_from_dict(self.network)

    def to_dict(self) -> dict[str, Any]:
        """Return the values as a checkpoint keeps them."""
        return asdict(self) | {
            "labels": [list(label) for label in self.labels],
            "teachers": [asdict(teacher) for teacher in self.teachers],
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Return what `to_dict` wrote. Raises `TrainingError` for other values."""
        try:
            start = values["start"]
            made = cls(
                **{f.name: values[f.name] for f in fields(cls)}
                | {
                    "labels": tuple((wnid, name) for wnid, name in values["labels"]),
                    "start": start and Source(**start),
                    "teachers": tuple(Source(**teacher) for teacher in values["teachers"]),
                }
            )
            spec_from_dict(made.network)
        except (KeyError, TypeError, ValueError, SpecError) as exc:
            raise TrainingError(
                f"the checkpoint was written by another version ({exc!r}). Resume with that "
                "version, or start the run again"
            ) from exc
        return made


def about(
    start: Start,
    sets: PhotoSets,
    teachers: Iterable[str],
    *,
    accumulate: int,
    precision: str,
    library: Library,
) -> About:
    """Return what a run depends on; the files of all models are read to hash them."""
    spec = start.spec.with_classes(len(sets.labels))
    learnt = start.state is not None
    return About(
        photos=sets.fingerprint,
        described=_photos(sets),
        labels=tuple((label.wnid, label.name) for label in sets.labels),
        network=_plain(spec_to_dict(spec)),
        start=_start(start.source, library) if learnt else None,
        teachers=tuple(_teacher(teacher, library) for teacher in teachers),
        accumulate=accumulate,
        precision=precision,
    )


def _plain(value: Any) -> Any:
    """Return nested tuples as lists, as they come back from a checkpoint."""
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, list | tuple) else value


def _photos(sets: PhotoSets) -> str:
    validating = 0 if sets.validation is None else sets.validation.count
    return f"{len(sets.train):,} of {sets.path} and {validating:,} to validate with"


def _start(source: str, library: Library) -> Source:
    return Source(name=source, content=_content(source, library, "f32"))


def _teacher(text: str, library: Library) -> Source:
    """Return a teacher; the engine and precision that run it are a part of its content."""
    choice = parse_choice(text)
    content = _content(choice.model, library, choice.precision)
    return Source(name=text, content=f"{content} {choice.runs_on} {choice.precision}")


def _content(model: str, library: Library, precision: InferencePrecision) -> str:
    """Return a hash of a model's files, and of the entry chosen among several networks in them."""
    digest = sha384((library.entry or "").encode())
    try:
        for path in _files(model, library, precision):
            digest.update(bytes.fromhex(sha384_of(path)))
    except OSError as exc:
        raise TrainingError(f"cannot read {exc.filename}: {exc.strerror or exc}") from exc
    return digest.hexdigest()


def _files(model: str, library: Library, precision: InferencePrecision) -> list[Path]:
    """Return the files of a model: a card's weights, an IR with its .bin, a file, or a folder's."""
    if converted(model, library):
        path = library.ir(model, precision=precision)
        return [path, path.with_suffix(".bin")]
    path = Path(model)
    if not path.exists():
        return [library.request(model).weights]
    return sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]


def differences(before: About, now: About) -> Iterator[str]:
    """Yield how a run differs from what it was started as, in words."""
    if before.photos != now.photos:
        yield f"on other photos ({before.described}; now {now.described})"
    if before.labels != now.labels:
        yield f"with other classes ({_labels(before, now)})"
    if before.network != now.network:
        yield f"with another network ({_networks(before.spec, now.spec)})"
    if _contents(before.start) != _contents(now.start):
        yield f"from other weights ({_names(before.start)}; now {_names(now.start)})"
    if _contents(*before.teachers) != _contents(*now.teachers):
        yield f"with other teachers ({_names(*before.teachers)}; now {_names(*now.teachers)})"


def _contents(*sources: Source | None) -> list[str]:
    return [source.content for source in sources if source]


def _names(*sources: Source | None) -> str:
    """Return the names of models, each with the first digits of its hash: a file may change."""
    named = [f"{source.name} [{source.content[:8]}]" for source in sources if source]
    return ", ".join(named) or "none"


def _labels(before: About, now: About) -> str:
    if len(before.labels) != len(now.labels):
        return f"{len(before.labels):,}; now {len(now.labels):,}"
    pairs = zip(before.labels, now.labels, strict=True)
    place, (was, became) = next((n, pair) for n, pair in enumerate(pairs) if pair[0] != pair[1])
    return f"class {place} was {' '.join(was).strip()!r}, now {' '.join(became).strip()!r}"


def _networks(before: Spec, now: Spec) -> str:
    """Return both networks; where they have one name, the first value in which they differ."""
    names = network_title(before), network_title(now)
    if names[0] != names[1]:
        return f"{names[0]}; now {names[1]}"
    was, became = spec_to_dict(before), spec_to_dict(now)
    key = next((key for key in was | became if was.get(key) != became.get(key)), "spec")
    return f"{key} {was.get(key)}; now {became.get(key)}"
