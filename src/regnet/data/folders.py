"""What the folders of a data set are, by their names: classes, splits of classes, or neither.

The one reader of layouts: what `doctor` reports is what `train` and `evaluate` do.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Literal

from regnet.data.class_names import listed

Kind = Literal["classes", "splits", "flat"]
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
_VIEWS: Final = frozenset(
    ("images", "image", "imgs", "img", "photos", "masks", "mask", "labels", "annotations")
) | {"jpg", "jpeg", "png", "raw", "rgb", "depth", "original", "augmented", "crops", "thumbs"}
"""Folders inside of class folders that are no classes themselves."""


def role_of(name: str) -> Role | None:
    """Return the role of a folder or file of this name, such as `val_images`; None for others.

    One word of the name is the role; the other words say nothing, as `set` or a year.
    """
    role, others = _role_and_others(name)
    return role if not others else None


def roles_of(names: Iterable[str]) -> dict[str, Role]:
    """Return the roles of folders side by side, of those that have one.

    Words that names of several roles share say nothing: `flowers_train`, `flowers_test`.
    """
    parsed = {name: _role_and_others(name) for name in names}
    sharing: dict[tuple[str, ...], set[Role]] = defaultdict(set)
    for role, others in parsed.values():
        if role:
            sharing[others].add(role)
    return {
        name: role
        for name, (role, others) in parsed.items()
        if role and (not others or len(sharing[others]) > 1)
    }


def _role_and_others(name: str) -> tuple[Role | None, tuple[str, ...]]:
    """Return the role that one word of a name says, and its other words with a meaning."""
    words = [word.lower() for word in _BOUNDARY.split(name) if word]
    roles = {role for word in words if (role := _role_of_word(word))}
    others = tuple(
        word
        for word in words
        if not _role_of_word(word) and word not in _NOISE and not word.isdecimal()
    )
    return (roles.pop() if len(roles) == 1 else None), others


def _role_of_word(word: str) -> Role | None:
    glued = _GLUED.fullmatch(word)
    return _WORDS.get(word) or (_WORDS.get(glued["word"]) if glued else None)


@dataclass(frozen=True)
class Split:
    """A split: its folder `top`, and `root`, the folder below it that holds the class folders."""

    role: Role
    top: str
    root: str


@dataclass(frozen=True)
class Doubt:
    """Why folders are not taken for classes: a finding's code, the folders, and its sentences."""

    code: Literal["splits-as-classes", "splits-in-classes"]
    names: tuple[str, ...]
    text: str
    remedy: str


@dataclass(frozen=True)
class Layout:
    """How the photos of a data set lie in folders, whose paths have `/` between.

    `root` is the folder that they all are below, `children` are the folders in it, sorted, and
    `stray` tells whether photos lie beside them. If some children are `splits`, the others are
    `beside`. With a `doubt` the children are classes only if the user lists them as such.
    """

    kind: Kind
    root: str
    children: tuple[str, ...]
    stray: bool
    splits: tuple[Split, ...] = ()
    beside: tuple[str, ...] = ()
    doubt: Doubt | None = None

    def split(self, role: Role) -> Split | None:
        """Return the split of a role."""
        return next((split for split in self.splits if split.role == role), None)

    def role(self, folder: str) -> str:
        """Return the role of a folder's photos, "" outside of the splits."""
        return next((s.role for s in self.splits if _is_below(folder, s.top)), "")

    def place(self, folder: str) -> tuple[str, str]:
        """Return the role ("" without splits) and the class ("" for none) of a folder's photos."""
        if self.kind != "splits":
            return "", _first_below(folder, self.root)
        for split in self.splits:
            if _is_below(folder, split.top):
                below_root = _is_below(folder, split.root)
                return split.role, _first_below(folder, split.root) if below_root else ""
        return "", ""


@dataclass
class _Folder:
    """A folder: whether photos lie in it, and the folders in it."""

    photos: bool = False
    folders: dict[str, "_Folder"] = field(default_factory=dict)


def read_layout(
    folders: Iterable[str], *, is_class: Callable[[str], bool] = lambda name: False
) -> Layout:
    """Return the layout of photos in these folders ("" is the top).

    A folder that holds nothing but a folder stands for that one, unless it `is_class` and does not
    hold several classes itself.
    """
    tree = _Folder()
    for path in folders:
        folder = tree
        for part in filter(None, path.split("/")):
            folder = folder.folders.setdefault(part, _Folder())
        folder.photos = True
    root, top = _unwrapped("", tree, _trains)
    if len(top.folders) < 2 or not all(map(is_class, top.folders)):
        root, top = _unwrapped("", tree, lambda name: is_class(name) or _trains(name))
    children = tuple(sorted(top.folders))
    classes = Layout("classes" if children else "flat", root, children, top.photos)
    if any(map(is_class, children)) and not set(children) <= roles_of(children).keys():
        return classes
    roles = roles_of(children)
    if _same_folders(top):
        possible = {name: _role_and_others(name)[0] for name in children}
        roles = {name: role for name, role in possible.items() if role} | roles
    if doubt := _doubt(top, roles):
        return replace(classes, doubt=doubt)
    splits = _splits(root, top, roles)
    if not splits:
        return classes
    tops = {split.top for split in splits}
    beside = tuple(child for child in children if _join(root, child) not in tops)
    if any(top.folders[name].folders for name in roles if roles[name] in ROLES):
        return replace(classes, kind="splits", splits=splits, beside=beside)
    flat = _names_of_splits(sorted(roles)) if len(children) > 1 else None
    return replace(classes, splits=splits, beside=beside, doubt=flat)


def _trains(name: str) -> bool:
    """Tell whether a lone folder is the training split; others stand for their content."""
    return role_of(name) == "train"


def _unwrapped(
    root: str, folder: _Folder, stop: Callable[[str], bool] = lambda name: False
) -> tuple[str, _Folder]:
    """Return the first folder with photos in it, or more than one folder, or one to stop at."""
    while not folder.photos and len(folder.folders) == 1:
        ((name, child),) = folder.folders.items()
        if child.photos or stop(name):
            break
        root, folder = _join(root, name), child
    return root, folder


def _same_folders(top: _Folder) -> tuple[str, ...]:
    """Return the folders that nearly all folders at the top hold alike, as splits do; () if not.

    Each must hold at least half of them all, two or more, and no photos beside them.
    """
    inner = [set(_unwrapped("", child)[1].folders) for child in top.folders.values()]
    every = set().union(*inner) if len(inner) > 1 else set()
    if len(every - _VIEWS) < 2 or any(child.photos for child in top.folders.values()):
        return ()
    alike = all(2 * len(names) >= len(every) for names in inner)
    shared = sum(count > 1 for count in Counter(n for names in inner for n in names).values())
    return tuple(sorted(every)) if alike and 2 * shared >= len(every) else ()


def _doubt(top: _Folder, roles: Mapping[str, Role]) -> Doubt | None:
    """Return why the folders at the top are neither clearly classes nor clearly splits."""
    if inside := _with_splits_inside(top):
        return Doubt(
            "splits-in-classes",
            inside,
            f"There are folders of splits inside of {listed(inside)}: validation photos would be "
            "trained on.",
            "Turn the folders round (DATASET/train/cat, not DATASET/cat/train), or name one as the "
            f"data set, DATASET/{inside[0]}. If all are to be trained on, list the classes with "
            "--labels FILE.",
        )
    named = sorted(name for name, role in roles.items() if role in ROLES)
    if not named and (same := _same_folders(top)):
        names = tuple(sorted(top.folders))
        return Doubt(
            "splits-as-classes",
            names,
            f"{listed(names)} all hold the same folders ({listed(same)}), so they look like "
            "splits, not like classes.",
            f"Name them for their roles: DATASET/train/{same[0]}, DATASET/val/{same[0]}; or name "
            f"one as the data set, DATASET/{names[0]}. If they are the classes, list them with "
            "--labels FILE.",
        )
    if not named or _clearly_splits(top, roles):
        return _twice(roles)
    lone_class = [name.lower() for name in named] == ["train"] and not top.folders[named[0]].folders
    return None if lone_class else _names_of_splits(named)


def _names_of_splits(names: list[str]) -> Doubt:
    one = len(names) == 1
    return Doubt(
        "splits-as-classes",
        tuple(names),
        f"{listed(names)} would be {'a class' if one else 'classes'}, but "
        f"{'has the name of a split' if one else 'have the names of splits'}.",
        "Give each split a folder per class (DATASET/train/cat, DATASET/val/cat) and move other "
        f"folders away, or name one as the data set, DATASET/{names[0]}. If all are classes, list "
        "them with --labels FILE.",
    )


def _twice(roles: Mapping[str, Role]) -> Doubt | None:
    """Return the doubt that several folders claim one role which only one can have."""
    for role, what in (("train", "training"), ("val", "validation")):
        if len(names := sorted(name for name in roles if roles[name] == role)) > 1:
            return Doubt(
                "splits-as-classes",
                tuple(names),
                f"{listed(names)} could each be the {what} split.",
                f"Put their photos into one folder, DATASET/{role}, or name the training photos "
                f"as the data set and those to validate with --val.",
            )
    return None


def _with_splits_inside(top: _Folder) -> tuple[str, ...]:
    """Return the folders at the top, no splits themselves, that hold several splits each."""
    if _clearly_splits(top, roles_of(top.folders)):
        return ()
    return tuple(
        sorted(
            name
            for name, folder in top.folders.items()
            if not role_of(name) and len({*roles_of(folder.folders).values()} & {*ROLES}) > 1
        )
    )


def _clearly_splits(top: _Folder, roles: Mapping[str, Role]) -> bool:
    """Tell whether folders with roles are splits.

    They are if there is nothing beside them, or if there are two roles and class folders in a
    folder of them: a lone `train` among other folders may well be the vehicle.
    """
    if top.folders.keys() <= roles.keys():
        return True
    with_classes = any(top.folders[name].folders for name, role in roles.items() if role in ROLES)
    return with_classes and len(set(roles.values()) & set(ROLES)) > 1


def _splits(root: str, top: _Folder, roles: Mapping[str, Role]) -> tuple[Split, ...]:
    if not _clearly_splits(top, roles):
        return ()
    named = sorted((ROLES.index(role), name) for name, role in roles.items() if role in ROLES)
    insides = [_unwrapped("", top.folders[name])[1] for _, name in named]
    classes = {name for inside in insides if len(inside.folders) > 1 for name in inside.folders}
    return tuple(
        Split(roles[name], path, _class_root(path, top.folders[name], classes))
        for _, name in named
        for path in [_join(root, name)]
    )


def _class_root(top: str, folder: _Folder, classes: Collection[str]) -> str:
    """Return the folder of the class folders in a split: `seg_train/seg_train` for `seg_train`.

    `classes` are those of the splits. A lone folder that holds no two others is a class.
    """
    root, inside = _unwrapped(top, folder, classes.__contains__)
    several = len(inside.folders) > 1 or set(inside.folders) <= set(classes)
    return root if several or set(root.split("/")) == set(top.split("/")) else top


def _join(root: str, name: str) -> str:
    return f"{root}/{name}" if root else name


def _is_below(folder: str, top: str) -> bool:
    return folder == top or folder.startswith(f"{top}/")


def _first_below(folder: str, root: str) -> str:
    return (folder[len(root) :].lstrip("/") if root else folder).partition("/")[0]
