"""Fixtures shared by all tests."""

import signal
from pathlib import Path

import pytest
from hypothesis import settings

# How long an example takes says more about the machine than about the code. Examples are the same
# in every run, so that a change is judged by what it changed; the profile "explore" draws new ones:
# pytest --hypothesis-profile explore
settings.register_profile("regnet", deadline=None, derandomize=True)
settings.register_profile("explore", deadline=None)
settings.load_profile("regnet")

# In the background a shell lets its commands ignore Ctrl-C, and they would pass that on.
signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).parent.parent

# What `pytest --quick` leaves out: files (training, Ray, a browser, a long corpus), which it does
# not even import, and single tests of others.
SLOW_FILES = frozenset((ROOT / "tests" / "slow_files.txt").read_text().split())
SLOW_TESTS = frozenset((ROOT / "tests" / "slow_tests.txt").read_text().split())


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add --quick."""
    parser.addoption("--quick", action="store_true", help="leave out the slow tests")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out the slow files."""
    return True if config.getoption("quick") and collection_path.name in SLOW_FILES else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the slow tests of other files."""
    if config.getoption("quick"):
        names = [f"{item.path.name}::{item.name.partition('[')[0]}" for item in items]
        items[:] = [i for i, name in zip(items, names, strict=True) if name not in SLOW_TESTS]


@pytest.fixture(scope="session")
def shared() -> Path:
    """Return the folder of reference data beside the checkout; skips where it is absent."""
    folder = ROOT.parent / "shared"
    if not (folder / "reference").is_dir():
        pytest.skip("needs the reference data in ../shared, which is not here")
    return folder


@pytest.fixture(scope="session")
def photos(shared: Path) -> list[Path]:
    """Return the 200 real photos in the reference data."""
    return sorted((shared / "data" / "photos").glob("*.JPEG"))


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep every test away from the user's own cache."""
    monkeypatch.setenv("REGNET_CACHE", str(tmp_path_factory.getbasetemp() / "regnet-cache"))
