"""Models come, go and change while requests are under way."""

import asyncio
import shutil
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from regnet.conversion.store import Library
from regnet.inference.result import Wanted
from regnet.ir.graph import graph_metadata, read_graph, set_graph_metadata
from regnet.pixels.samples import sample_photos
from regnet.serving.limits import Limits
from regnet.serving.models import Models
from regnet.serving.refusals import NotFound, NotReady, TooMany
from regnet.serving.served_model import ServedModel
from regnet.system.errors import ModelError, UnknownModelError
from regnet.system.runtime import ov
from regnet.zoo.catalogue import bundled_path, card_by_name

BUNDLED = bundled_path(card_by_name("bundled"))
PHOTO = sample_photos()[0].read_bytes()
CAT = "Egyptian cat"


def serve(scenario: Callable[[Models], Coroutine[Any, Any, None]], folder: Path) -> None:
    async def run() -> None:
        models = Models(Library(folder=folder, offline=True))
        await scenario(models)
        await models.close()

    asyncio.run(run())


def labelled(label: str, path: Path) -> Path:
    """Write a copy of the bundled model that calls the cat by another name."""
    graph = read_graph(BUNDLED)
    metadata = graph_metadata(graph, source="")
    labels = [replace(one, name=label) if one.name == CAT else one for one in metadata.labels]
    set_graph_metadata(graph, replace(metadata, labels=tuple(labels)))
    ov.save_model(graph, path)
    return path


async def ask(model: ServedModel) -> str:
    """Return what a model calls the photo; it answers under the name it is served by."""
    deadline = asyncio.get_running_loop().time() + 60
    (found,), _ = await model.classify([PHOTO], sources=["a"], wanted=Wanted(), deadline=deadline)
    assert found.model == model.name
    return found.top.label


def test_models_are_there_by_name_the_first_without_one(tmp_path: Path) -> None:
    async def scenario(models: Models) -> None:
        assert (models.names, models.default, models.ready) == ((), None, False)
        with pytest.raises(NotReady, match="no model is loaded"):
            models.get()
        first = await models.load("a", "bundled")
        second = await models.load("b", f"{BUNDLED}:bf16")
        assert (first.precision, second.precision) == ("f32", "bf16")
        assert (models.names, models.default, models.ready) == (("a", "b"), "a", True)
        assert models.get() is models.get("a") is models.get("a", "1") is first
        assert models.get("b", "") is second
        assert models.states == {"a": "READY", "b": "READY"}
        with pytest.raises(NotFound, match="there is no model 'c'; there are: a, b"):
            models.get("c")
        with pytest.raises(NotFound, match="there is no version 2"):
            models.get("a", "2")
        for bad in (models.load("c"), models.unload("c")):
            with pytest.raises(NotFound):
                await bad
        assert await ask(first) == await ask(second) == CAT

    serve(scenario, tmp_path)


def test_what_is_unloaded_can_be_loaded_again_by_its_name(tmp_path: Path) -> None:
    async def scenario(models: Models) -> None:
        model = await models.load("a", "bundled")
        asked = asyncio.create_task(ask(model))
        await asyncio.sleep(0)
        await models.unload("a")
        assert asked.done()  # what was accepted has been finished
        assert models.states == {"a": "UNAVAILABLE"}
        assert not models.ready
        with pytest.raises(NotFound):
            models.get("a")
        with pytest.raises(NotReady, match="a is being unloaded"):
            await ask(model)
        await models.unload("a")
        await models.load("a")
        assert await ask(models.get("a")) == await asked

    serve(scenario, tmp_path)


def test_a_model_is_changed_without_a_request_dropped(tmp_path: Path) -> None:
    path = labelled("old", tmp_path / "m.xml")

    async def scenario(models: Models) -> None:
        await models.load("a", str(path))
        names: list[str] = []
        stop = asyncio.Event()

        async def client() -> None:
            while not stop.is_set():
                held = models.get("a")  # as a handler does that then reads a body
                await asyncio.sleep(0.02)
                names.append(await ask(held))

        clients = [asyncio.create_task(client()) for _ in range(6)]
        for name in ("new", "newer"):
            await asyncio.sleep(0.1)
            labelled(name, path)
            await models.load("a")
            assert await ask(models.get("a")) == name
        stop.set()
        await asyncio.gather(*clients)
        assert set(names) == {"old", "new", "newer"}
        assert models.names == ("a",)

    serve(scenario, tmp_path)


def test_what_cannot_be_loaded_leaves_the_old_one_serving(tmp_path: Path) -> None:
    path = tmp_path / "m.xml"
    for suffix in (".xml", ".bin"):
        shutil.copyfile(BUNDLED.with_suffix(suffix), path.with_suffix(suffix))

    async def scenario(models: Models) -> None:
        model = await models.load("a", str(path))
        path.write_text("no model")
        with pytest.raises(ModelError):
            await models.load("a")
        assert models.get("a") is model
        assert models.states == {"a": "READY"}
        assert await ask(model)
        with pytest.raises(ModelError):
            await models.load("b", str(path))
        assert models.states == {"a": "READY", "b": "UNAVAILABLE"}
        with pytest.raises(NotFound):
            models.get("b")
        with pytest.raises(UnknownModelError):
            await models.load("c", "no-such-card")

    serve(scenario, tmp_path)


def test_a_model_is_not_ready_while_it_is_loaded_for_the_first_time(tmp_path: Path) -> None:
    async def scenario(models: Models) -> None:
        loading = asyncio.create_task(models.load("a", "bundled"))
        await asyncio.sleep(0.01)
        with pytest.raises(NotReady, match="a: it is being loaded"):
            models.get("a")
        assert not models.ready
        model = await loading
        again = [asyncio.create_task(models.load("a")) for _ in range(2)]
        await asyncio.sleep(0)
        assert models.get("a") is model  # a change is seen when it is done
        first, second = await asyncio.gather(*again)
        assert models.get("a") is second is not first

    serve(scenario, tmp_path)


def test_closing_waits_for_loading_and_refuses_more(tmp_path: Path) -> None:
    async def scenario(models: Models) -> None:
        loading = asyncio.create_task(models.load("a", "bundled"))
        await asyncio.sleep(0.01)
        await models.close()
        model = await loading
        with pytest.raises(NotReady):
            await ask(model)
        with pytest.raises(NotReady, match="the server stops"):
            await models.load("b", "bundled")

    serve(scenario, tmp_path)


def test_loading_goes_on_when_the_one_who_asked_has_gone(tmp_path: Path) -> None:
    async def scenario(models: Models) -> None:
        loading = asyncio.create_task(models.load("a", "bundled"))
        await asyncio.sleep(0.01)
        loading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await loading
        model = await models.load("a", "bundled")
        assert models.get() is model
        assert await ask(model)

    serve(scenario, tmp_path)


def test_there_is_room_until_every_model_is_full(tmp_path: Path) -> None:
    async def run() -> None:
        limits = Limits(queue=2, batch=2)
        models = Models(Library(folder=tmp_path, offline=True), limits=limits)
        models.require_room()
        first, second = await models.load("a", "bundled"), await models.load("b", "bundled")
        tasks = [asyncio.create_task(ask(first)) for _ in range(2)]
        await asyncio.sleep(0)
        assert (first.full, second.full) == (True, False)
        models.require_room()
        tasks += [asyncio.create_task(ask(second)) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(TooMany, match="a: 2 images wait, the limit is 2"):
            models.require_room()
        await asyncio.gather(*tasks)
        models.require_room()
        await models.close()

    asyncio.run(run())
