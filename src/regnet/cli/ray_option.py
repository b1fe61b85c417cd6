"""The option `--ray [ADDRESS]`, whose address may be left out."""

from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from regnet.cluster.ray_address import LOCAL, is_address

_NAME = "--ray"

Ray = Annotated[
    str | None,
    typer.Option(
        _NAME,
        metavar="[ADDRESS]",
        help="Spread the work with Ray: alone over this machine's cores, or over the cluster at "
        "auto (the one that runs here), host:port or ray://host:port",
        show_default=False,
    ),
]


class RayCommand(TyperCommand):
    """A command with `--ray`: alone it means "local".

    The word after it is its value only where it looks like an address, else it is an argument.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments once the address that was left out is there."""
        return super().parse_args(ctx, _completed(args))


def _completed(args: list[str]) -> list[str]:
    """Return the arguments with an address after every `--ray`."""
    whole: list[str] = []
    for number, word in enumerate(args):
        if word == "--":
            return whole + args[number:]
        whole.append(word)
        if word == _NAME and not (number + 1 < len(args) and is_address(args[number + 1])):
            whole.append(LOCAL)
    return whole
