"""`regnet cache`: what is in the cache, and removing it."""

from typing import Literal

from regnet.cli.console import print_json, print_table, say
from regnet.cli.options import Cache, Json
from regnet.conversion.cache_folder import KINDS, CacheFolder
from regnet.system.cache import cache_dir
from regnet.system.option import argument
from regnet.system.text import counted, megabytes

Action = Literal["show", "clear", "prune"]


class _Cache(Cache, Json):
    action: Action = argument("What to do, see above", "[ACTION]", "show")


def cache(options: _Cache) -> None:
    """Show what is in the cache, or remove it.

    ACTION is `show` (its size by kind), `prune` (remove what this version of regnet cannot use any
    more: conversions by others, models compiled by another OpenVINO) or `clear` (remove everything
    that can be made or downloaded again). What another process has locked is left.

      regnet cache
      regnet cache prune
      regnet cache clear
    """
    found = CacheFolder(cache_dir(options.cache_dir))
    actions = {"clear": found.clear, "prune": found.prune}
    removed = actions[options.action]() if options.action in actions else None
    if options.json:
        print_json(found.to_dict() | ({"removed": vars(removed)} if removed else {}), indent=1)
        return
    if removed:
        left = f"; {counted(removed.in_use, 'entry', 'entries')} in use left"
        what = f"{counted(removed.files, 'file')}, {megabytes(removed.bytes)} MB, removed"
        say(what + (left if removed.in_use else ""))
    kinds = found.kinds()
    rows = [(k.name, f"{k.files:,}", megabytes(k.bytes), KINDS[k.name]) for k in kinds]
    total = [sum(k.files for k in kinds), sum(k.bytes for k in kinds)]
    rows.append(("all", f"{total[0]:,}", megabytes(total[1]), str(found.folder)))
    print_table([("kind", "files", "MB", "what"), *rows], left=(0, 3))
