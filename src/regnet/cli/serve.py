"""`regnet serve`: models over HTTP."""

import re
import sys
from collections.abc import Sequence
from pathlib import Path

import typer

from regnet.cli.console import in_utf8, say, signals_wait
from regnet.cli.options import AS_OPTION, Execution, Store
from regnet.inference.predictors import parse_ir_choice, split_choice
from regnet.serving.access import read_token
from regnet.serving.limits import Limits
from regnet.system.errors import StartError
from regnet.system.option import Options, argument, option
from regnet.zoo.catalogue import DEFAULT_MODEL

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_TAKEN = ("stats",)  # /v2/models/stats has the figures of all models
_LOOPBACK = ("127.0.0.1", "::1", "localhost")


class _Served(Execution):
    models: tuple[str, ...] = argument(
        f"Models, see above [{DEFAULT_MODEL}]", "[[NAME=]MODEL]...", (), *AS_OPTION
    )
    model_control: bool = option(False, "Let clients load and unload these models")
    no_page: bool = option(False, "Serve no page at /")


class _Access(Options):
    host: str = option("127.0.0.1", "Address to listen on; 0.0.0.0: all", "ADDRESS")
    port: int = option(8000, "Port; 0 = any free one", "PORT", min=0, max=65535)
    token_file: Path | None = option(
        None, "Require the bearer token in FILE [$REGNET_TOKEN]", "FILE"
    )
    allow_host: tuple[str, ...] = option(
        (), "Without a token, also answer to this host name; repeatable", "NAME"
    )


def serve(models: _Served, access: _Access, limits: Limits, store: Store) -> None:
    """Serve models over HTTP.

    MODEL is a model card, `bundled`, an IR, ONNX or a checkpoint; bundled:int8 has a precision of
    its own, NAME=MODEL names it. The first is the default model. Prints its URL when ready: a page
    to open, POST /v1/classify and /v1/embed for photos, the Open Inference Protocol under /v2,
    metrics under /metrics, documentation under /docs. The log, one JSON line per request, is on
    standard error. SIGTERM or Ctrl-C stop the server once it has answered the requests it accepted.

    Exit status: 0 stopped, 2 could not start, 130 interrupted before it was ready.

      regnet serve
      regnet serve bundled
      regnet serve regnetx-3.2gf cats=my-cats.xml --port 9000
      regnet serve bundled --host 0.0.0.0 --token-file token.txt
      curl -s --data-binary @cat.jpg http://127.0.0.1:8000/v1/classify
    """
    token, sources = read_token(access.token_file), named_models(models.models or (DEFAULT_MODEL,))
    for source in sources.values():
        parse_ir_choice(source, "serve", device=models.device, precision=models.precision)
    with signals_wait():
        from regnet.serving.run import ServerSetup
        from regnet.serving.run import serve as run

    if token is None and access.host not in _LOOPBACK:
        say(f"regnet: {access.host} is open to all who reach it: --token-file requires a token")
    in_utf8(sys.stderr)  # its log is JSON
    with store.library() as library:
        setup = ServerSetup(
            models=sources,
            library=library,
            host=access.host,
            port=access.port,
            device=models.device,
            precision=models.precision,
            limits=limits,
            token=token,
            allow_hosts=access.allow_host,
            model_control=models.model_control,
            page=not models.no_page,
        )
        run(setup, on_ready=lambda address: typer.echo(f"regnet serves {address}"))


def named_models(models: Sequence[str]) -> dict[str, str]:
    """Return the sources of `[NAME=]MODEL`s by name: without one a card's, or a file's stem.

    Raises `StartError` for a name that does not fit into a URL, or is given twice.
    """
    sources: dict[str, str] = {}
    for text in models:
        name, equals, source = text.partition("=")
        if not equals or "/" in name or Path(text).exists():
            path, source = Path(split_choice(text)[0]), text
            is_file = path.suffix in (".xml", ".onnx", ".pyth", ".pth", ".pt", ".bin")
            name = path.stem if is_file else path.name
        if not _NAME.fullmatch(name) or name in _TAKEN or not source:
            raise StartError(f"{text}: {name!r} cannot be a model's name; NAME=MODEL gives another")
        if name in sources:
            raise StartError(f"{text}: there is a model {name} already; NAME=MODEL gives another")
        sources[name] = source
    return sources
