"""A look into downloaded weights of which nobody published a hash."""

from importlib.util import find_spec
from pathlib import Path

from regnet.checkpoints.file_kind import checked_kind
from regnet.system.errors import WeightsError
from regnet.zoo.card import Card


def look_into(path: Path, card: Card) -> str:
    """Return what a look into a card's file can vouch for.

    The names, shapes and finite values of its tensors, that is; without torch, that it is a
    checkpoint and where its format says so that it is whole. Raises `WeightsError`.
    """
    try:
        if find_spec("torch") is None:
            checked_kind(path)
            return "it was not looked into, because torch is not installed"
        from regnet.checkpoints.weights import read_checkpoint

        read_checkpoint(path, spec=card.build_spec())
    except WeightsError as exc:
        problem = str(exc).replace(f"{path}", "the file").partition("\n")[0]
        raise WeightsError(f"{problem} (nobody published its hash, so it was looked into)") from exc
    return f"its tensors are those of {card.spec if isinstance(card.spec, str) else card.name}"
