"""The names that the parts of a data set have: `train`, `val_images`, `TestSet`, `seg_train`."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Final, Literal

Role = Literal["train", "val", "test", "unlabelled"]

ROLES: Final[tuple[Role, ...]] = ("train", "val", "test")
"""The roles of splits with labels, in the order in which they are named."""

_WORDS: Final[Mapping[str, Role]] = {
    **dict.fromkeys(("train", "training", "trn"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "validate", "dev", "eval"), "val"),
    **dict.fromkeys(("evaluation", "development"), "val"),
    **dict.fromkeys(("test", "testing", "tst", "holdout"), "test"),
    **dict.fromkeys(("pred", "predict", "prediction", "predictions", "inference"), "unlabelled"),
    **dict.fromkeys(("unlabeled", "unlabelled"), "unlabelled"),
}
_NOISE: Final = frozenset(
    ("set", "sets", "data", "dataset", "datasets", "image", "images", "img", "imgs", "photo")
) | {
    *("photos", "pic", "pics", "picture", "pictures", "split", "splits", "seg", "part", "folder"),
    *("dir", "files", "subset", "jpg", "jpeg", "png", "raw", "full", "all", "single", "sample"),
    *("samples", "labeled", "labelled", "crop", "crops", "cropped", "resized", "original", "orig"),
}
_GLUED: Final = re.compile(r"(?P<word>[a-z]+?)(?:sets?|data|images?|imgs?|dir|split|folder)")
_BOUNDARY: Final = re.compile(r"[\W_]+|(?<=[a-z])(?=[A-Z])|(?<=[^\W\d_])(?=\d)|(?<=\d)(?=[^\W\d_])")


def role_of(name: str) -> Role | None:
    """Return the role that a folder or file of this name has; None for any other name.

    One word of the name says the role; the others say nothing, as `set` or a year do.
    """
    role, rest = _role_and_rest(name)
    return role if not rest else None


def roles_of(names: Iterable[str]) -> dict[str, Role]:
    """Return the roles of folders that lie side by side, of those that have one.

    What the names of several roles have in common says nothing: `flowers_train`, `flowers_test`.
    """
    found = {name: _role_and_rest(name) for name in names}
    sharing: dict[tuple[str, ...], set[Role]] = defaultdict(set)
    for role, rest in found.values():
        if role:
            sharing[rest].add(role)
    return {
        name: role
        for name, (role, rest) in found.items()
        if role and (not rest or len(sharing[rest]) > 1)
    }


def possible_role(name: str) -> Role | None:
    """Return the role that one word of a name says, whatever its other words are."""
    return _role_and_rest(name)[0]


def _role_and_rest(name: str) -> tuple[Role | None, tuple[str, ...]]:
    """Return the role of a name, and its words that are neither that nor without meaning."""
    words = [word.lower() for word in _BOUNDARY.split(name) if word]
    roles = {role for word in words if (role := _role_of_word(word))}
    rest = tuple(
        word
        for word in words
        if not _role_of_word(word) and word not in _NOISE and not word.isdecimal()
    )
    return (roles.pop() if len(roles) == 1 else None), rest


def _role_of_word(word: str) -> Role | None:
    glued = _GLUED.fullmatch(word)
    return _WORDS.get(word) or (_WORDS.get(glued["word"]) if glued else None)
