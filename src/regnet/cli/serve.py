"""`regnet serve`: models behind HTTP."""

import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from regnet.cli.console import in_utf8, say, signals_wait
from regnet.cli.options import MaxDecode, MaxMemory, Store, grouped
from regnet.ir.metadata import InferencePrecision
from regnet.serving.auth import read_token
from regnet.serving.limits import Limits
from regnet.system.errors import StartError

HELP = """Serve models over HTTP: to standard clients, to scripts, and to people as a page.

A MODEL is a card's name, `bundled`, an IR (.xml) or a checkpoint; NAME=MODEL names it. The \
first is the default one; without any it is `bundled`.

It prints its address when it is ready: a page to open, POST /v1/classify for photos, the Open \
Inference Protocol under /v2, figures under /metrics, all of it described under /docs. Its log is \
on standard error, one line of JSON a request.

SIGTERM or Ctrl-C stop it: it finishes what it has accepted.

Exit status: 0 stopped, 2 could not start, 130 stopped before it was ready.

Examples:

  regnet serve

  regnet serve regnetx-3.2gf cats=my-cats.xml --port 9000

  regnet serve --host 0.0.0.0 --token-file token.txt

  curl -s --data-binary @cat.jpg http://127.0.0.1:8000/v1/classify
"""

_DEFAULT = "bundled"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_TAKEN = ("stats",)  # /v2/models/stats has the figures of all models
_LOOPBACK = ("127.0.0.1", "::1", "localhost")


def register(app: typer.Typer) -> None:
    """Add the command to an application."""
    app.command("serve", help=HELP)(grouped(serve))


@dataclass(frozen=True, kw_only=True)
class LimitOptions:
    """What a server takes at most."""

    max_body: Annotated[int, typer.Option(min=1, help="MiB of one request, else 413")] = 32
    max_pixels: Annotated[
        float, typer.Option(min=0.001, help="Millions of pixels of one image, else 422")
    ] = 50
    max_request_pixels: Annotated[
        float, typer.Option(min=0.001, help="Millions of pixels of one request, else 413")
    ] = 200
    max_decode: MaxDecode = 10
    max_memory: MaxMemory = 2000
    max_batch: Annotated[int, typer.Option(min=1, help="Images in one request, else 413")] = 64
    queue: Annotated[
        int, typer.Option(min=1, help="Images of a model waiting or running, else 429")
    ] = 128
    queue_mib: Annotated[
        int, typer.Option(min=1, help="MiB that the requests under way may hold, else 429")
    ] = 512
    timeout: Annotated[float, typer.Option(min=0.01, help="Seconds for one request, else 504")] = 30

    def values(self) -> Limits:
        """Return them in the units of the server."""
        return Limits(
            body=self.max_body << 20,
            pixels=round(self.max_pixels * 1e6),
            request_pixels=round(self.max_request_pixels * 1e6),
            decode_memory=self.max_memory * 1_000_000,
            decode_seconds=self.max_decode,
            batch=self.max_batch,
            queue=self.queue,
            queue_bytes=self.queue_mib << 20,
            seconds=self.timeout,
        )


def serve(
    models: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME=]MODEL...", help="Models, see above", show_default=False),
    ] = None,
    host: Annotated[
        str, typer.Option(help="Address to listen on; 0.0.0.0 is reached by other machines")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 finds a free one")] = 8000,
    precision: Annotated[
        InferencePrecision,
        typer.Option(
            help="f32 is exact; bf16 is faster where the CPU has it; int8: see `regnet quantize`"
        ),
    ] = "f32",
    *,
    limits: LimitOptions,
    token_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Ask for the token in this file (or in $REGNET_TOKEN) as bearer"
        ),
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Also answer under this name, where there is no token"),
    ] = None,
    model_control: Annotated[
        bool, typer.Option("--model-control", help="Clients may load and unload these models")
    ] = False,
    no_page: Annotated[bool, typer.Option("--no-page", help="Without the page at /")] = False,
    store: Store,
) -> None:
    """Serve until a signal, then exit with 0."""
    token, sources = read_token(token_file), named_models(models or [_DEFAULT])
    most = limits.values()
    with signals_wait():
        from regnet.serving.run import ServerSetup, serve

    setup = ServerSetup(
        models=sources,
        library=store.library(),
        host=host,
        port=port,
        precision=precision,
        limits=most,
        token=token,
        allow_hosts=allow_host or (),
        model_control=model_control,
        page=not no_page,
    )
    if token is None and host not in _LOOPBACK:
        say(f"regnet: whoever reaches {host} may use this server: --token-file asks for a token")
    in_utf8(sys.stderr)  # its log is JSON
    serve(setup, on_ready=lambda address: typer.echo(f"regnet serves {address}"))


def named_models(models: list[str]) -> dict[str, str]:
    """Return the sources of `[NAME=]MODEL`s by name: without one a card's, or a file's stem.

    Raises `StartError` where a name is not fit for an address, or given twice.
    """
    found: dict[str, str] = {}
    for text in models:
        name, equals, source = text.partition("=")
        if not equals or "/" in name or Path(text).exists():
            name, source = _own_name(text), text
        if not _NAME.fullmatch(name) or name in _TAKEN or not source:
            raise StartError(f"{text}: {name!r} is no name for a model; NAME=MODEL gives another")
        if name in found:
            raise StartError(f"{text}: there is a model {name} already; NAME=MODEL gives another")
        found[name] = source
    return found


def _own_name(model: str) -> str:
    path = Path(model)
    return path.stem if path.suffix in (".xml", ".pyth", ".pth", ".pt", ".bin") else path.name
