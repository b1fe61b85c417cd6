"""Nested tensors of torch as the arrays that regnet reads them as."""

from collections.abc import Mapping
from typing import Any

import torch

from regnet.checkpoints.plain_types import Record


def to_arrays(content: Any, known: dict[int, Any] | None = None) -> Any:
    """Return nested containers with arrays for tensors; what is shared stays shared."""
    known = {} if known is None else known
    if isinstance(content, torch.Tensor):
        plain = content.detach()
        return (plain.float() if plain.dtype == torch.bfloat16 else plain).numpy()
    if isinstance(content, Record):
        content.items = to_arrays(content.items, known)
    if not isinstance(content, Mapping | list | tuple):
        return content
    if id(content) not in known:
        made: Any = known.setdefault(id(content), {} if isinstance(content, Mapping) else [])
        if isinstance(content, Mapping):
            made |= {key: to_arrays(each, known) for key, each in content.items()}
        else:
            made += [to_arrays(each, known) for each in content]
    return known[id(content)]
