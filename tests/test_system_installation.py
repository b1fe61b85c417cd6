"""The command that adds an extra, by the record of how regnet was installed."""

from pathlib import Path

import pytest

from regnet.system import installation
from regnet.system.errors import MissingExtraError
from regnet.system.installation import Installation, this_installation

EXTRAS = {"torch": ("onnx>=1.17", "torch>=2.6"), "heif": ("pi-heif>=1.0",)}
CPU = "--extra-index-url https://download.pytorch.org/whl/cpu"


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """Return a folder with a checkout, a wheel, and an installed package."""
    for name in ("a checkout/constraints.txt", "package/constraints.txt", "regnet.whl"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def commands(made: Path, record: dict[str, object], **more: object) -> list[str]:
    found = Installation(record=record, extras=EXTRAS, package=made / "package", **more)  # type: ignore[arg-type]
    shown = [found.command("heif"), found.command("torch"), found.again()]
    return [command.replace(str(made), "DIR") for command in shown]


def test_a_checkout_is_named_with_its_constraints(made: Path) -> None:
    record = {"url": (made / "a checkout").as_uri(), "dir_info": {"editable": True}}
    assert commands(made, record, cpu_index=True) == [
        "pip install -c 'DIR/a checkout/constraints.txt' -e 'DIR/a checkout[heif]'",
        f"pip install -c 'DIR/a checkout/constraints.txt' -e 'DIR/a checkout[torch]' {CPU}",
        "pip install --force-reinstall --no-deps -e 'DIR/a checkout'",
    ]
    assert commands(made, record | {"dir_info": {}})[0].endswith(" 'DIR/a checkout[heif]'")
    assert "-e" not in commands(made, record | {"dir_info": {}})[0]


def test_a_wheel_is_named_by_its_file(made: Path) -> None:
    record = {"url": (made / "regnet.whl").as_uri(), "archive_info": {}}
    assert commands(made, record) == [
        "pip install 'regnet-vision[heif] @ file://DIR/regnet.whl'",
        "pip install -c DIR/package/constraints.txt 'regnet-vision[torch] @ file://DIR/regnet.whl'",
        "pip install --force-reinstall --no-deps 'regnet-vision @ file://DIR/regnet.whl'",
    ]


def test_of_a_source_that_is_gone_the_packages_are_named(made: Path) -> None:
    for record in ({"url": "file:///gone.whl"}, {"url": "file:///gone", "dir_info": {}}):
        heif, torch, _ = commands(made, record)
        assert heif == "pip install 'pi-heif>=1.0'"
        assert torch.endswith("constraints.txt 'onnx>=1.17' 'torch>=2.6'")


def test_an_index_needs_no_more_than_the_name(made: Path) -> None:
    constraints = "-c DIR/package/constraints.txt"
    assert commands(made, {}, cpu_index=True, install="uv pip install") == [
        "uv pip install 'regnet-vision[heif]'",
        f"uv pip install {constraints} 'regnet-vision[torch]' {CPU}",
        "uv pip install --force-reinstall --no-deps regnet-vision",
    ]


def test_repositories_and_addresses_are_named(made: Path) -> None:
    git = {
        "url": "https://host/regnet.git",
        "vcs_info": {"vcs": "git", "commit_id": "ab12"},
        "subdirectory": "python",
    }
    (heif, *_) = commands(made, git)
    assert heif.endswith(
        "'regnet-vision[heif] @ git+https://host/regnet.git@ab12#subdirectory=python'"
    )
    (heif, *_) = commands(made, {"url": "https://host/r.whl", "archive_info": {}})
    assert heif == "pip install 'regnet-vision[heif] @ https://host/r.whl'"


class Record:
    """An installation's files, as `importlib.metadata` gives them."""

    requires = (
        "numpy>=2",
        "pi-heif>=1.0; extra == 'heif'",
        "uvloop>=0.21; (sys_platform != 'linux') and extra == 'serve'",
        "uvicorn<0.55,>=0.34; extra == 'serve'",
    )

    def __init__(self, **files: str) -> None:
        self.files = files

    def read_text(self, name: str) -> str | None:
        return self.files.get(name.partition(".")[0])


@pytest.mark.parametrize("record", ["", "no JSON", "[]", '{"url": "file:///gone.whl"}'])
def test_the_record_of_an_installation_is_read(
    record: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = Record(direct_url=record, INSTALLER="uv\n")
    monkeypatch.setattr(installation, "distribution", lambda name: files)
    monkeypatch.setattr(installation.sys, "platform", "linux")
    found = this_installation.__wrapped__()
    assert found.origin == ("/gone.whl" if "url" in record else "a package index")
    assert found.install.startswith("uv pip install --python ")
    assert found.extras == {"heif": ("pi-heif>=1.0",), "serve": ("uvicorn<0.55,>=0.34",)}


def test_the_error_names_the_command_of_this_installation() -> None:
    error = str(MissingExtraError("serving", "serve"))
    assert error == f"serving needs the extra 'serve': {this_installation().command('serve')}"
