"""The page at /: its headers, and the page itself in a real browser against a real server.

Screenshots are kept in the folder $REGNET_SCREENSHOTS, else in pytest's own.
"""

import base64
import csv
import io
import os
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from browser import Browser, browsing
from labelled_photos import write_labelled_photos
from PIL import Image

pytest.importorskip("starlette")

from serving_process import Served, serving
from starlette.applications import Starlette
from starlette.testclient import TestClient

import regnet
from regnet.calibration.calibrate import calibrate
from regnet.explanation.activation_maps import Explainer
from regnet.explanation.overlay import heat
from regnet.inference.writers import CSV_COLUMNS
from regnet.network.modules import RegNet
from regnet.network.spec import AnyNetSpec, Stage
from regnet.pixels.samples import sample_photos
from regnet.serving.app import page_files, page_routes

CAT, ESPRESSO, HOPPER = sample_photos()
TOKEN = "a-token-that-nobody-guesses"


@pytest.fixture(scope="module")
def client() -> TestClient:
    return TestClient(Starlette(routes=page_routes()))


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a calibrated copy of the bundled model."""
    folder = tmp_path_factory.mktemp("calibrated")
    write_labelled_photos(folder / "labelled")
    report = calibrate(
        "bundled",
        folder / "labelled",
        subset=True,
        folder=folder,
        force=True,
        cache_dir=folder,
        offline=True,
    )
    return report.written.path


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a checkpoint that does not say what its classes are called."""
    import torch

    path = tmp_path_factory.mktemp("bare") / "bare.pth"
    spec = AnyNetSpec(stages=(Stage(1, 16, 8), Stage(1, 16, 8)), stem_width=16, classes=3)
    torch.save(RegNet(spec).state_dict(), path)
    return path


@pytest.fixture(scope="module")
def server(
    tmp_path_factory: pytest.TempPathFactory, calibrated: Path, bare: Path
) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("server")
    with serving(folder, "bundled", f"sets={calibrated}", str(bare), "--offline") as served:
        yield served


@pytest.fixture(scope="module")
def downloads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("downloads")


@pytest.fixture(scope="module")
def chromium(downloads: Path) -> Iterator[Browser]:
    with browsing(downloads) as browser:
        yield browser


@pytest.fixture
def page(chromium: Browser, server: Served) -> Iterator[Browser]:
    """Give the page, freshly opened; at the end nothing has gone wrong or left the origin."""
    chromium.open(server.url)
    ready(chromium)
    yield chromium
    assert [line for line in chromium.errors() if "the server responded with" not in line] == []
    assert {url for url in chromium.requests() if not url.startswith(f"{server.url}/")} == set()


@pytest.fixture(scope="module")
def screenshots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = os.environ.get("REGNET_SCREENSHOTS")
    if folder is None:
        return tmp_path_factory.mktemp("screenshots")
    Path(folder).mkdir(parents=True, exist_ok=True)
    return Path(folder)


def ready(page: Browser) -> None:
    page.until(lambda: page.text("#model-facts"), "the models are there")


def answered(page: Browser, count: int) -> None:
    """Wait until so many photos have an answer or an error."""
    over = '.card:is([data-state="done"], [data-state="failed"])'
    page.until(lambda: len(page.every(over)) == count, f"{count} answers")


def choose(page: Browser, model: str) -> None:
    """Choose a model: typing its name would run into what was typed just before."""
    from selenium.webdriver.support.select import Select

    Select(page.one("#model")).select_by_visible_text(model)


def with_heat(page: Browser) -> None:
    page.until(lambda: page.run("return !document.getElementById('heat').hidden"), "a heat map")


def heat_pixels(page: Browser) -> np.ndarray:
    """Return the pixels (H, W, 4) of the canvas over the photo."""
    url = page.run(
        "const from = document.getElementById('heat'), to = document.createElement('canvas');"
        "to.width = from.width; to.height = from.height;"
        "to.getContext('2d', {willReadFrequently: true}).drawImage(from, 0, 0);"
        "return to.toDataURL()"
    )
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))))


def set_opacity(page: Browser, value: int) -> None:
    page.run(
        "const o = document.getElementById('opacity'); o.value = arguments[0];"
        "o.dispatchEvent(new Event('input'))",
        value,
    )


# --- without a browser ---


def test_policy(client: TestClient) -> None:
    for path in ("/", "/page/page.js", "/page/icon.svg", "/page/samples/cat.png"):
        headers = client.get(path).headers
        policy = headers["content-security-policy"].split("; ")
        for rule in (
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "img-src 'self' blob: data:",
            "connect-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        ):
            assert rule in policy
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert "camera=(self)" in headers["permissions-policy"]


def test_types(client: TestClient) -> None:
    expected = {
        "/": "text/html; charset=utf-8",
        "/page/page.js": "text/javascript; charset=utf-8",
        "/page/page.css": "text/css; charset=utf-8",
        "/page/icon.svg": "image/svg+xml",
        "/page/samples/grace_hopper.jpg": "image/jpeg",
    }
    assert {path: client.get(path).headers["content-type"] for path in expected} == expected
    assert client.get("/page/samples/cat.png").content == CAT.read_bytes()


def test_what_is_known_is_not_sent_again(client: TestClient) -> None:
    first = client.get("/page/page.css")
    assert first.headers["cache-control"] == "no-cache"
    again = client.get("/page/page.css", headers={"If-None-Match": f'"x", {first.headers["etag"]}'})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["etag"] == first.headers["etag"]
    assert client.get("/page/page.css", headers={"If-None-Match": '"x"'}).content == first.content
    head = client.head("/")
    assert (head.status_code, head.headers["etag"]) == (200, client.get("/").headers["etag"])


def test_only_known_names(client: TestClient) -> None:
    for path in ("/page/", "/page/x.js", "/page/..%2fpage.py", "/page/samples/README.md"):
        assert client.get(path).status_code == 404
    assert client.post("/").status_code == 405


def test_files_name_no_other_site_and_hold_nothing_inline() -> None:
    for name, file in page_files().items():
        if name.startswith("samples/"):
            continue
        text = file.content.decode()
        found = set(re.findall(r"(?:https?:)?//[\w.-]+\.\w+", text))
        assert found <= {"http://www.w3.org"}, name
        assert not re.search(r"innerHTML|insertAdjacentHTML|eval\(|document\.write", text)
        if name.endswith(".html"):
            assert not re.search(r'\sstyle=|\son\w+=|<style|<script(?! type="module" src=)', text)


def channel(value: int) -> float:
    part = value / 255
    return part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4


def luminance(colour: str) -> float:
    red, green, blue = (channel(int(colour[at : at + 2], 16)) for at in (1, 3, 5))
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_contrast(scheme: int) -> None:
    """Every pair of text and ground has the contrast of WCAG's level AA."""
    css = page_files()["page.css"].content.decode()
    colours = dict(
        re.findall(r"--([\w-]+): (#\w{6})", re.findall(r":root \{(.*?)\}", css, re.S)[scheme])
    )
    pairs = [("on-accent", "accent"), ("bad", "bad-soft"), ("good", "good-soft"), ("bad", "card")]
    pairs += [("warm", "warm-soft"), ("ink", "soft"), ("accent", "paper"), ("accent", "card")]
    pairs += [(text, ground) for text in ("ink", "muted") for ground in ("paper", "card", "softer")]
    pairs += [("muted", "soft")]
    for text, ground in pairs:
        light, dark = sorted((luminance(colours[text]), luminance(colours[ground])), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5, (text, ground)


# --- in the browser ---


def test_dropped_photo(page: Browser) -> None:
    page.drop(ESPRESSO)
    answered(page, 1)
    assert page.text(".verdict strong") == "espresso"
    expected = regnet.load("bundled").classify(ESPRESSO)
    shown = [(bar.text.split("\n")[0], bar.text.split("\n")[-1]) for bar in page.every(".bars li")]
    assert shown == [
        (score.label.split(", ")[0], f"{100 * score.probability:.1f} %")
        for score in expected.predictions
    ]
    assert re.search(r"Decode[\d.]+ msQueue[\d.]+ msInfer[\d.]+ msRound trip", page.text(".times"))
    assert page.text("#status") == f"espresso.png: espresso, {shown[0][1]}"
    assert page.one("#photo").get_attribute("alt") == f"espresso.png: espresso, {shown[0][1]}"


def test_heat_map_and_its_slider(page: Browser) -> None:
    page.drop(ESPRESSO)
    with_heat(page)
    assert page.text("#heat-text") == "Where it sees espresso"
    set_opacity(page, 100)
    full = heat_pixels(page)
    set_opacity(page, 30)
    assert page.text("#opacity-value") == "30 %"
    less = heat_pixels(page)
    assert full.shape == less.shape == (400, 600, 4)
    assert less[..., 3].mean() < 0.5 * full[..., 3].mean()
    set_opacity(page, 0)
    assert not heat_pixels(page)[..., 3].any()


def test_heat_map_is_that_of_the_command(page: Browser) -> None:
    """Where the canvas is most opaque is where `regnet explain` has the largest values."""
    page.drop(CAT)
    with_heat(page)
    set_opacity(page, 100)
    (explanation,) = Explainer.load("bundled").explain(CAT)
    left, top, width, height = map(round, explanation.box)
    found = heat_pixels(page)[top : top + height, left : left + width, 3].astype(float)
    expected = heat(explanation)
    inner = np.s_[4:-4, 4:-4]  # without the line around it
    assert np.abs((found[inner] - 80) / 165 - expected[inner]).max() < 0.05


def test_several_photos_and_csv(page: Browser, downloads: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken, not whole.jpg"
    broken.write_bytes(HOPPER.read_bytes()[:9000])
    words = tmp_path / "words.txt"
    words.write_text("no photo")
    page.drop(CAT, broken, ESPRESSO, words)
    answered(page, 4)
    states = [card.get_attribute("data-state") for card in page.every(".card")]
    assert states == ["done", "failed", "done", "failed"]
    assert "truncated" in page.every(".card")[1].text
    assert "Not an image" in page.every(".card")[3].text
    page.every(".card")[1].click()
    assert "truncated" in page.text("#said .error")
    assert not page.every("#said button")  # it would be no better the next time
    assert page.text("#status") == "4 photos are done, 2 of them without an answer."

    page.one("#csv").click()
    file = downloads / "regnet.csv"
    page.until(file.exists, "the CSV")
    rows = list(csv.DictReader(io.StringIO(file.read_text())))
    file.unlink()
    assert tuple(rows[0]) == CSV_COLUMNS
    sources = [row["source"] for row in rows]
    assert sources == ["cat.png"] * 5 + [broken.name] + ["espresso.png"] * 5 + ["words.txt"]
    for photo in (CAT, ESPRESSO):
        found = [row for row in rows if row["source"] == photo.name]
        expected = regnet.load("bundled").classify(photo).predictions
        assert [(row["rank"], row["label"], row["wnid"]) for row in found] == [
            (str(rank), score.label, score.wnid) for rank, score in enumerate(expected, start=1)
        ]
        shown = [float(row["probability"]) for row in found]
        assert shown == pytest.approx([score.probability for score in expected], abs=1e-5)
    assert {row["model"] for row in rows} == {"bundled"}
    assert [bool(row["error"]) for row in rows].count(True) == 2


def test_assumptions_about_a_model_are_shown(page: Browser) -> None:
    assert not page.run("return document.getElementById('assumed').checkVisibility()")
    choose(page, "bare")
    page.until(lambda: "3 classes" in page.text("#model-facts"), "the model")
    assert "Assumed about this model: names: its classes are numbered" in page.text("#assumed")
    choose(page, "bundled")


def test_prediction_sets(page: Browser, calibrated: Path) -> None:
    page.drop(CAT)
    answered(page, 1)
    assert not page.every(".set")
    choose(page, "sets")
    page.until(lambda: page.every(".set"), "the set")
    assert "calibrated for 90 %" in page.text("#model-facts")
    expected = regnet.load(calibrated).classify(CAT, sets=True).set
    assert expected is not None
    assert len(page.every(".chips li")) == len(expected) > 1
    assert (
        f"set of {len(expected)} classes contains the true class with probability 90 %"
        in page.text(".set")
    )
    assert page.text("#said .badge") == "Unknown"
    choose(page, "bundled")
    page.until(lambda: page.every(".bars") and not page.every(".set"), "no set")


def test_keyboard_alone(page: Browser, downloads: Path) -> None:
    from selenium.webdriver import ActionChains, Keys

    def press(*keys: str) -> None:
        for key in keys:
            ActionChains(page.driver).send_keys(key).perform()

    def tab_to(name: str) -> None:
        for _ in range(20):
            press(Keys.TAB)
            if page.focused() == name:
                return
        raise AssertionError(f"Tab does not reach {name}")

    tab_to("model")
    tab_to("choose")
    tab_to("Try the cat")
    press(Keys.ENTER)
    answered(page, 1)
    press(Keys.TAB, Keys.SPACE)
    answered(page, 2)
    with_heat(page)
    tab_to("opacity")
    before = heat_pixels(page)
    press(*[Keys.ARROW_LEFT] * 5)
    assert page.text("#opacity-value") == "55 %"
    assert (heat_pixels(page) != before).any()
    tab_to("csv")
    press(Keys.ENTER)
    page.until((downloads / "regnet.csv").exists, "the CSV")
    (downloads / "regnet.csv").unlink()
    tab_to("clear")
    press(Keys.TAB, Keys.ARROW_LEFT)
    assert page.text("#file") == "cat.png"
    press(Keys.END)
    assert page.text("#file") == "espresso.png"
    assert page.one(".card[aria-selected=true]").get_attribute("tabindex") == "0"
    press(Keys.TAB)
    tab_to("Skip to the answer")
    press(Keys.ENTER)
    assert page.focused() == "answer"
    page.one("#clear").send_keys(Keys.ENTER)
    assert page.focused() == "choose"
    assert not page.every(".card")


def test_pasted_photo(page: Browser) -> None:
    page.run(
        "return fetch('page/samples/espresso.png').then(r => r.blob()).then(b => {"
        "const d = new DataTransfer(); d.items.add(new File([b], 'image.png', {type: b.type}));"
        "dispatchEvent(new ClipboardEvent('paste', {clipboardData: d}))})"
    )
    answered(page, 1)
    assert page.text(".verdict strong") == "espresso"


def test_camera(page: Browser) -> None:
    page.one("#camera").click()
    page.until(lambda: page.every("#live-answer .bars li"), "a live answer")
    page.one("#keep").click()
    answered(page, 1)
    page.one("#stop").click()
    assert page.run("return document.getElementById('video').srcObject") is None
    assert not page.one("#live").is_displayed()
    assert page.focused() == "camera"


def test_everything_has_a_name(page: Browser) -> None:
    """What a screen reader stops at says what it is."""
    page.drop(CAT, ESPRESSO)
    answered(page, 2)
    with_heat(page)
    stops = {"button", "link", "textbox", "slider", "combobox", "option", "listbox", "image",
             "heading"}  # fmt: skip
    nodes = page.command("Accessibility.getFullAXTree")["nodes"]
    found = [
        (node["role"]["value"], node.get("name", {}).get("value", ""))
        for node in nodes
        if not node["ignored"] and node["role"]["value"] in stops
    ]
    assert {role for role, _ in found} >= {"button", "slider", "combobox", "option", "listbox"}
    assert [role for role, name in found if not name.strip()] == []
    ids = page.run("return [...document.querySelectorAll('[id]')].map(e => e.id)")
    assert len(ids) == len(set(ids))
    assert page.run("return document.documentElement.lang") == "en"


@pytest.mark.parametrize("width", [320, 390, 768, 1280])
def test_nothing_is_wider_than_the_page(page: Browser, server: Served, width: int) -> None:
    page.open(server.url, width=width)
    ready(page)
    page.drop(CAT, HOPPER)
    answered(page, 2)
    with_heat(page)
    assert page.run("return document.documentElement.scrollWidth") <= width


def test_token(chromium: Browser, tmp_path: Path) -> None:
    with serving(tmp_path, "bundled", "--offline", environ={"REGNET_TOKEN": TOKEN}) as served:
        chromium.open(served.url)
        chromium.until(lambda: chromium.one("#token").is_displayed(), "it asks for the token")
        chromium.one("#token").send_keys("wrong-token-of-some-length\n")
        chromium.until(lambda: chromium.one("#token-wrong").is_displayed(), "it says wrong")
        chromium.one("#token").send_keys(f"{TOKEN}\n")
        ready(chromium)
        chromium.drop(ESPRESSO)
        answered(chromium, 1)
        assert chromium.text(".verdict strong") == "espresso"
        assert chromium.run("return Object.values(sessionStorage)") == [TOKEN]
        assert chromium.run("return localStorage.length + document.cookie.length") == 0
        served.stop()
        chromium.drop(CAT)
        answered(chromium, 2)
        assert "cannot be reached" in chromium.every(".card")[1].text
        assert chromium.text("#said button") == "Try again"
        chromium.forget()  # the refusals, and another origin: that is what this test is about


def test_a_photo_over_the_limit_says_so_in_megabytes(chromium: Browser, tmp_path: Path) -> None:
    large = tmp_path / "large.jpg"
    large.write_bytes(HOPPER.read_bytes() + bytes(2 << 20))
    with serving(tmp_path, "bundled", "--offline", "--max-body", "1") as served:
        chromium.open(served.url)
        ready(chromium)
        chromium.drop(large)
        said = "The photo is over the limit of 1 MB"
        chromium.until(lambda: said in chromium.text("main"), "what is wrong")
        assert "bytes" not in chromium.text("main")
    chromium.forget()


@pytest.mark.parametrize("width", [390, 1280])
def test_the_reference_fits_the_window_and_takes_a_photo(page: Browser, width: int) -> None:
    page.open(page.run("return location.origin") + "/docs", width=width)
    assert page.run("return document.documentElement.scrollWidth") <= width
    page.one("input[type=file]").send_keys(str(CAT))
    page.one("form button").click()
    page.until(lambda: "Egyptian cat" in page.text("body"), "the answer")


def test_screenshots(page: Browser, server: Served, screenshots: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(HOPPER.read_bytes()[:9000])
    shots = {}
    for name, width, dark in (("light", 1280, False), ("dark", 1280, True), ("phone", 390, False)):
        page.open(server.url, width=width, dark=dark)
        ready(page)
        page.drop(ESPRESSO)
        answered(page, 1)
        with_heat(page)
        shots[name] = page.save(screenshots / f"{name}.png")
    page.open(server.url)
    ready(page)
    page.drop(CAT, broken, ESPRESSO, HOPPER)
    answered(page, 4)
    with_heat(page)
    page.save(screenshots / "several.png")
    light, dark, phone = (grey(shots[name]) for name in ("light", "dark", "phone"))
    assert np.median(light) > 200
    assert np.median(dark) < 60
    assert phone.shape[1] == 390


def grey(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("L"))
