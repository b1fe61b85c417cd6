"""Debian's Chromium, driven through its own protocol, for tests of the page."""

import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
_OPTIONS = (
    "--headless=new",
    "--no-sandbox",  # containers run tests as root
    "--disable-dev-shm-usage",
    "--disable-gpu",
    "--hide-scrollbars",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
)
_WAIT = 60.0


class Browser:
    """One window with a page; what went wrong in it is in `errors`, where it went in `requests`."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver
        self._log: list[dict[str, Any]] = []

    def open(self, url: str, *, width: int = 1280, height: int = 860, dark: bool = False) -> None:
        """Show a page at a size and in a scheme of colours, once it knows its models."""
        self.command(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=width < 600,
        )  # fmt: skip
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        still = {"name": "prefers-reduced-motion", "value": "reduce"}
        self.command("Emulation.setEmulatedMedia", features=[scheme, still])
        self.driver.get(url)

    def command(self, name: str, **values: Any) -> Any:
        """Run a command of the browser's own protocol."""
        return self.driver.execute_cdp_cmd(name, values)

    def run(self, script: str, *arguments: Any) -> Any:
        """Run JavaScript in the page and return what it returns."""
        return self.driver.execute_script(script, *arguments)

    def one(self, selector: str) -> Any:
        """Return the first element of a CSS selector."""
        return self.driver.find_element("css selector", selector)

    def every(self, selector: str) -> list[Any]:
        """Return all elements of a CSS selector."""
        return list(self.driver.find_elements("css selector", selector))

    def text(self, selector: str) -> str:
        """Return the text in all elements of a CSS selector, also where it is out of sight."""
        return str(
            self.run(
                "return [...document.querySelectorAll(arguments[0])]"
                ".map(e => e.textContent.trim()).join(' ')",
                selector,
            )
        )

    def until(self, holds: Callable[[], Any], what: str) -> Any:
        """Wait until something holds and return it."""
        end = time.monotonic() + _WAIT
        while not (found := holds()):
            assert time.monotonic() < end, f"never: {what}; {self.text('main')}; {self.errors()}"
            time.sleep(0.05)
        return found

    def focused(self) -> str:
        """Return the id, else the text, of the element that has the focus."""
        return str(
            self.run("const e = document.activeElement; return e.id || e.textContent.trim()")
        )

    def drop(self, *paths: Path) -> None:
        """Drop files on the page, as a mouse does."""
        for kind in ("dragEnter", "dragOver", "drop"):
            data = {"items": [], "files": [str(path) for path in paths], "dragOperationsMask": 1}
            self.command("Input.dispatchDragEvent", type=kind, x=150, y=300, data=data)

    def save(self, path: Path, *, whole: bool = True) -> Path:
        """Write a PNG of the page, `whole` or what is in the window."""
        import base64

        found = self.command("Page.captureScreenshot", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(found["data"]))
        return path

    def errors(self) -> list[str]:
        """Return what the console has said since the last time."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def requests(self) -> list[str]:
        """Return the addresses of all requests so far that leave the browser."""
        self._log += self.driver.get_log("performance")
        found = []
        for entry in self._log:
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                found.append(message["params"]["request"]["url"])
        return [url for url in found if urlsplit(url).scheme not in ("blob", "data")]

    def forget(self) -> None:
        """Forget the errors and requests so far."""
        self.errors()
        self.requests()
        self._log.clear()


@contextmanager
def browsing(folder: Path) -> Iterator[Browser]:
    """Give a browser whose downloads go to a folder; skips where there is no Chromium."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium")
    if CHROMIUM is None or DRIVER is None:
        pytest.skip("needs Chromium: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for option in _OPTIONS:
        options.add_argument(option)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    service = webdriver.ChromeService(DRIVER)
    driver = webdriver.Chrome(options=options, service=service)
    try:
        browser = Browser(driver)
        browser.command("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(folder))
        yield browser
    finally:
        driver.quit()
