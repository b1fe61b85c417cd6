"""What others call a model's classes: wnids, names, synonyms and numbers, to class indices."""

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final

from regnet.network.labels import Labels, numbered_labels
from regnet.system.errors import DatasetError

_SHOWN: Final = 10  # names in a message
_WNID: Final = re.compile(r"(n\d{8})(?:[-_ ].+)?")  # alone, or as in n02085620-Chihuahua


class ClassNames:
    """A model's classes by wnid, name, and each synonym (a name lists them with commas).

    Case does not matter, nor `_` for a space. Raises `DatasetError` for a model whose classes are
    only numbered: no name could be matched.
    """

    def __init__(self, labels: Labels) -> None:
        if labels == numbered_labels(len(labels)):
            raise DatasetError(
                f"the model does not name its {len(labels)} classes, so no label can be matched "
                "to them: convert it again with its class list (regnet convert --labels FILE)"
            )
        self.labels = labels
        self._by_wnid: dict[str, set[int]] = defaultdict(set)
        self._by_name: dict[str, set[int]] = defaultdict(set)
        self._by_synonym: dict[str, set[int]] = defaultdict(set)
        for index, label in enumerate(labels):
            if label.wnid:
                self._by_wnid[label.wnid.lower()].add(index)
            self._by_name[normal(label.name)].add(index)
            for synonym in (label.name, *label.name.split(",")):
                self._by_synonym[normal(synonym)].add(index)

    def candidates(self, name: str) -> set[int]:
        """Return the classes that a wnid, name or synonym may mean: none, one, or several.

        A class's whole name means that class: `maillot` is not the `maillot, tank suit`. But a name
        spelled exactly as another's synonym may mean either: ImageNet has the dog `Cardigan` and
        the `cardigan`.
        """
        classes = self._meanings(name)
        whole = self._by_name.get(normal(name), set()) & classes
        if len(classes) < 2 or len(whole) != 1:
            return classes
        if self._spells(name, *whole, synonyms=False):
            return whole
        elsewhere = any(self._spells(name, index) for index in classes - whole)
        return classes if elsewhere else whole

    def _meanings(self, name: str) -> set[int]:
        """Return all classes that have this wnid, name or synonym."""
        wnid = _WNID.fullmatch(name.strip().lower())
        by_wnid = self._by_wnid.get(wnid[1], set()) if wnid else set()
        return by_wnid or self._by_synonym.get(normal(name), set())

    def _spells(self, name: str, index: int, *, synonyms: bool = True) -> bool:
        """Tell whether a class has this name, or a synonym, with the same capitals."""
        whole = self.labels[index].name
        names = (whole, *whole.split(",")) if synonyms else (whole,)
        return _spaced(name) in map(_spaced, names)

    def match(self, names: Iterable[str], *, what: str) -> dict[str, int]:
        """Return the class of each name; raises `DatasetError` listing unknown and ambiguous names.

        Names that are each a class's whole name, one for every class, are taken as such. So are all
        the indices from 0 on, but not some: those could count from 1. `what` says in the message
        what has the names, such as "class folders".
        """
        names = list(names)
        whole = [self._by_name.get(normal(name), set()) for name in names]
        every = set(range(len(self.labels)))
        if all(len(classes) == 1 for classes in whole) and every == set().union(*whole):
            return {name: min(classes) for name, classes in zip(names, whole, strict=True)}
        numbered = all(name.isdecimal() for name in names) and not any(whole)
        if numbered and every == {int(name) for name in names}:
            return {name: int(name) for name in names}
        classes = {name: self.candidates(name) for name in names}
        if unknown := [name for name in names if not classes[name]]:
            raise DatasetError(
                f"the model does not know {len(unknown)} of the {what}: {listed(unknown)}; its "
                f"{len(self.labels)} classes are like {self.described(0)}"
            )
        self._refuse_ambiguous(classes, what)
        return {name: min(classes[name]) for name in names}

    def are_indices(self, labels: Collection[str]) -> bool:
        """Tell whether labels are numbers, none of which is the name of a class."""
        numbers = all(label.isdecimal() for label in labels)
        return numbers and not any(map(self.candidates, labels))

    def match_labels(self, labels: Collection[str], *, what: str) -> dict[str, int]:
        """Return the class of each label: a wnid, a name or a 0-based index. Raises as `match`."""
        if not self.are_indices(labels):
            return self.match(labels, what=what)
        count = len(self.labels)
        if wrong := [label for label in labels if int(label) >= count]:
            raise DatasetError(
                f"{what} are 0 to {count - 1}, so these are out of range: {listed(wrong)}"
            )
        return {label: int(label) for label in labels}

    def match_list(self, names: Sequence[str], used: Sequence[int], *, what: str) -> list[int]:
        """Return the model's class of each index into a data set's own class list.

        If the list is in the model's order, the place decides: ImageNet has two cranes.
        """
        if len(names) == len(self.labels) and all(
            place in self._meanings(name) for place, name in enumerate(names)
        ):
            return list(used)
        twice = [name for name, count in Counter(names[i] for i in used).items() if count > 1]
        self._refuse_ambiguous({name: self._meanings(name) for name in twice}, what)
        classes = self.match([names[index] for index in used], what=what)
        return [classes[names[index]] for index in used]

    def _refuse_ambiguous(self, classes: Mapping[str, set[int]], what: str) -> None:
        texts = [
            f"{name} ({' or '.join(self.described(i) for i in sorted(indices))})"
            for name, indices in classes.items()
            if len(indices) > 1
        ]
        if texts:
            raise DatasetError(
                f"some {what} name several classes of the model: {listed(texts)}; use the wnid"
            )

    def described(self, index: int) -> str:
        """Return a class for a message: its wnid and first name."""
        label = self.labels[index]
        return f"{label.wnid} {label.name.split(',')[0]}".strip()


def normal(name: str) -> str:
    """Return a name in lower case, with spaces for `_` and accents coded in one way."""
    text = unicodedata.normalize("NFC", name).casefold().replace("_", " ")
    return " ".join(text.split())


def _spaced(name: str) -> str:
    return " ".join(name.replace("_", " ").split())


def listed(names: Sequence[str]) -> str:
    """Return the first names for a message, and how many there are where they are more."""
    text = ", ".join(names[:_SHOWN])
    return text if len(names) <= _SHOWN else f"{text}, ... ({len(names)} in all)"
