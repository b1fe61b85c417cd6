"""Videos to predictions: which frames, at which times, in which colours, and what goes wrong."""

import gc
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Generator, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("av")

import av
import typer
from av.video.reformatter import ColorRange, Colorspace
from clips import SIZE, scene, steady, write_clip
from rtsp_server import RtspServer, rtp_packets

import regnet.video.frames
from regnet.cli import build_app
from regnet.data.photo_files import is_live, is_video
from regnet.data.sources import Video, count_items, iter_items
from regnet.inference.classify import Classifier
from regnet.pixels.samples import sample_photos
from regnet.system.errors import ImageError, MissingExtraError
from regnet.video.frames import (
    Intervals,
    Shot,
    camera,
    frames,
    newest,
    rgb,
    shots,
    square_size,
)
from regnet.video.sampling import Sampling, Smoothing
from regnet.zoo.catalogue import bundled_path, card_by_name

CAT, ESPRESSO, HOPPER = sample_photos()
LABELS = ["Egyptian cat", "espresso", "academic gown, academic robe, judge's robe"]
LOSSLESS: dict[str, Any] = {"codec": "ffv1", "pix_fmt": "bgr0"}


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    return Classifier(bundled_path(card_by_name("bundled")))


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a clip of 6 seconds in H.264, a sample photo a second."""
    return write_clip(tmp_path_factory.mktemp("clip") / "clip.mp4", steady(6))


def times(path: Path, every: float) -> list[float | None]:
    return [frame.timestamp for frame in frames(str(path), Sampling(every=every))]


def decoded(path: Path) -> list[np.ndarray[Any, Any]]:
    return [np.asarray(frame.read()) for frame in frames(str(path), Sampling(every=0))]


def errors(path: Path | str, sampling: Sampling = Sampling(every=0)) -> list[str]:  # noqa: B008
    found = []
    for frame in frames(str(path), sampling):
        try:
            frame.read()
        except ImageError as exc:
            found.append(str(exc))
    return found


# What is in them


def test_each_second_of_a_clip_is_what_was_put_there(classifier: Classifier, clip: Path) -> None:
    found = list(classifier.stream(clip))
    assert [p.timestamp for p in found] == [0, 1, 2, 3, 4, 5]
    assert [p.top.label for p in found] == LABELS * 2
    assert {p.source for p in found} == {str(clip)}
    assert found[0].to_dict()["timestamp"] == 0.0


@pytest.mark.parametrize(
    ("suffix", "codec", "pix_fmt"),
    [(".mkv", "ffv1", "bgr0"), (".avi", "ffv1", "bgr0"), (".mov", "png", "rgb24")],
)
def test_pixels_of_a_lossless_clip_are_those_put_in(
    tmp_path: Path, suffix: str, codec: str, pix_fmt: str
) -> None:
    put = steady(2, rate=5)
    path = write_clip(tmp_path / f"clip{suffix}", put, codec=codec, pix_fmt=pix_fmt)
    for found, (_, put) in zip(decoded(path), steady(2, rate=5), strict=True):
        np.testing.assert_array_equal(found, put)


def test_a_frame_is_classified_as_the_same_photo(classifier: Classifier, tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mkv", [(0, scene(0)), (1000, scene(1))], **LOSSLESS)
    for frame, photo in zip(
        classifier.stream(path, top_k=200),
        classifier.classify([scene(0), scene(1)], top_k=200),
        strict=True,
    ):
        assert [s.index for s in frame.predictions[:5]] == [s.index for s in photo.predictions[:5]]
        for ours, theirs in zip(frame.predictions, photo.predictions, strict=True):
            assert ours.probability == pytest.approx(theirs.probability, abs=1e-5)


# Which frames


def test_every_is_the_first_frame_of_each_interval(clip: Path, tmp_path: Path) -> None:
    assert times(clip, 2) == [0, 2, 4]
    assert times(clip, 2.5) == [0, 2.52, 5]
    assert times(clip, 0) == [round(0.04 * n, 6) for n in range(150)]
    assert times(clip, 100) == [0]
    tenths = write_clip(tmp_path / "tenths.mkv", [(100 * n, scene(0)) for n in range(12)])
    assert times(tenths, 0.1) == [round(0.1 * n, 6) for n in range(12)]
    assert times(tenths, 0.3) == [0, 0.3, 0.6, 0.9]


def test_frames_at_uneven_times(classifier: Classifier, tmp_path: Path) -> None:
    shown = [(0, 0), (40, 1), (990, 1), (1010, 1), (1500, 0), (4700, 2), (4990, 0), (5000, 1)]
    path = write_clip(tmp_path / "uneven.mp4", [(ms, scene(number)) for ms, number in shown])
    found = list(classifier.stream(path))
    assert [p.timestamp for p in found] == [0, 1.01, 4.7, 5]
    assert [p.top.label for p in found] == [LABELS[n] for n in (0, 1, 2, 1)]


def test_time_begins_with_the_first_frame(tmp_path: Path) -> None:
    late = write_clip(tmp_path / "late.ts", [(7000 + ms, scene(0)) for ms in (0, 400, 1200)])
    assert times(late, 0) == [0, 0.4, 1.2]


def test_frames_without_times_come_at_the_usual_distance() -> None:
    class Stream:
        guessed_rate, average_rate = Fraction(10), None

    clock = regnet.video.frames._Clock(Stream())
    given = [None, 5, None, 8]
    found = []
    for pts in given:
        frame = av.VideoFrame(16, 16, "rgb24")
        frame.pts, frame.time_base = pts, Fraction(1, 20)
        found.append(clock.time(frame))
    assert found == [0, Fraction(1, 10), Fraction(2, 10), Fraction(1, 10) + Fraction(3, 20)]


@pytest.mark.parametrize("values", [{"every": -1}, {"every": float("nan")}, {"smooth": -0.1}])
def test_impossible_samplings_are_refused(
    classifier: Classifier, clip: Path, values: dict[str, float]
) -> None:
    with pytest.raises(ValueError, match="must be seconds, 0 or more"):
        classifier.stream(clip, **values)  # type: ignore[arg-type]


# Smoothing


def test_smoothing_is_the_mean_over_a_window() -> None:
    rows = np.eye(4, dtype=np.float32)
    smoothing = Smoothing(2)
    assert smoothing(rows[0], 0).tolist() == [1, 0, 0, 0]
    assert smoothing(rows[1], 1).tolist() == [0.5, 0.5, 0, 0]
    assert smoothing(rows[2], 2).tolist() == [0, 0.5, 0.5, 0]
    assert smoothing(rows[3], 10).tolist() == [0, 0, 0, 1]
    assert smoothing(rows[0], 3).tolist() == [1, 0, 0, 0]  # the clock went back
    assert Smoothing(0)(rows, 0) is rows


def test_a_smoothed_clip(classifier: Classifier, clip: Path) -> None:
    def cats(smooth: float) -> list[float]:
        found = classifier.stream(clip, top_k=200, every=0.5, smooth=smooth)
        return [next(s.probability for s in p.predictions if s.label == LABELS[0]) for p in found]

    plain, smooth = cats(0), cats(1)
    assert smooth[0] == plain[0]
    for number in range(1, 12):
        expected = (plain[number - 1] + plain[number]) / 2
        assert smooth[number] == pytest.approx(expected, abs=1e-6)


# Colours, shape, orientation


def yuv_to_rgb(
    yuv: list[np.ndarray[Any, Any]], red: float, blue: float, *, full: bool
) -> np.ndarray[Any, Any]:
    """Return what the standards say, from the weights of red and blue in luma."""
    y, cb, cr = (plane.astype(float) for plane in yuv)
    if full:
        y, cb, cr = y / 255, (cb - 128) / 255, (cr - 128) / 255
    else:
        y, cb, cr = (y - 16) / 219, (cb - 128) / 224, (cr - 128) / 224
    r, b = y + 2 * (1 - red) * cr, y + 2 * (1 - blue) * cb
    g = (y - red * r - blue * b) / (1 - red - blue)
    return np.clip(np.rint(255 * np.stack([r, g, b], axis=-1)), 0, 255)


BT601, BT709, BT2020 = (0.299, 0.114), (0.2126, 0.0722), (0.2627, 0.0593)


@pytest.mark.parametrize(
    ("size", "named", "range", "weights"),
    [
        ((64, 48), 1, 0, BT709),
        ((64, 48), 5, 1, BT601),
        ((64, 48), 6, 2, BT601),
        ((64, 48), 9, 1, BT2020),
        ((64, 48), 2, 0, BT601),
        ((720, 576), 2, 1, BT601),
        ((1280, 16), 2, 1, BT709),
        ((16, 720), 2, 2, BT709),
        ((1280, 16), 6, 1, BT601),
    ],
)
def test_colours_are_those_of_the_standard(
    size: tuple[int, int], named: int, range: int, weights: tuple[float, float]
) -> None:
    frame = av.VideoFrame(*size, "yuv444p")
    chance = np.random.default_rng(0)
    yuv = []
    for plane in frame.planes:
        # Not 0 to 255: outside of what the standards allow, swscale overflows.
        values = chance.integers(16, 240, (plane.height, plane.line_size), dtype=np.uint8)
        plane.update(values.tobytes())
        yuv.append(values[:, : plane.width])
    frame.colorspace, frame.color_range = named, range
    expected = yuv_to_rgb(yuv, *weights, full=range == 2)
    assert np.abs(rgb(frame) - expected).max() <= 1


@pytest.mark.parametrize(("matrix", "weights"), [("ITU601", BT601), ("ITU709", BT709)])
def test_a_file_says_which_colours_it_has(tmp_path: Path, matrix: str, weights: Any) -> None:
    """In a lossless file whose header names the matrix, decoded without any help."""
    path = tmp_path / "clip.mkv"
    pixels = scene(2)
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv444p"
        stream.codec_context.colorspace = 1 if matrix == "ITU709" else 6
        stream.codec_context.color_range = 1
        frame = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(
            format="yuv444p",
            dst_colorspace=Colorspace[matrix],
            dst_color_range=ColorRange.MPEG,
        )
        container.mux([*stream.encode(frame), *stream.encode()])
    (found,) = decoded(path)
    assert np.abs(found.astype(int) - pixels).mean() < 1
    wrong = BT709 if weights is BT601 else BT601
    (shot,) = shots(str(path))
    assert shot.frame.colorspace == (1 if matrix == "ITU709" else 6)
    planes = [
        np.frombuffer(p, np.uint8).reshape(p.height, -1)[:, : p.width] for p in shot.frame.planes
    ]
    assert np.abs(found - yuv_to_rgb(planes, *weights, full=False)).max() <= 1
    assert np.abs(found - yuv_to_rgb(planes, *wrong, full=False)).max() > 10


@pytest.mark.parametrize(
    ("degrees", "hflip", "turned"),
    [
        (0, False, lambda p: p),
        (90, False, lambda p: np.rot90(p)),
        (180, False, lambda p: np.rot90(p, 2)),
        (-90, False, lambda p: np.rot90(p, -1)),
        (0, True, np.fliplr),
    ],
)
def test_rotated_clips_are_shown_upright(
    tmp_path: Path, degrees: int, hflip: bool, turned: Any
) -> None:
    options = {"rotation": (degrees, hflip)} if degrees or hflip else {}
    path = write_clip(
        tmp_path / "clip.mov", [(0, scene(0))], codec="png", pix_fmt="rgb24", **options
    )
    (found,) = decoded(path)
    np.testing.assert_array_equal(found, turned(scene(0)))


def test_frames_are_freed_at_once(clip: Path) -> None:
    """PyAV ties frames in circles where their side data is asked for: not for each."""
    gc.collect()
    gc.disable()
    try:
        for shot in shots(str(clip)):
            rgb(shot.frame, shot.pixel_aspect, shot.matrix)
        del shot
        kept = sum(type(thing) is av.VideoFrame for thing in gc.get_objects())
    finally:
        gc.enable()
    assert kept <= 2


def test_pixels_that_are_not_square_are_made_so(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mp4", [(0, scene(0))], aspect=Fraction(3, 2))
    (found,) = decoded(path)
    assert found.shape == (SIZE[1], SIZE[0] * 3 // 2, 3)
    assert square_size(100, 100, Fraction(1, 2)) == (100, 200)
    assert square_size(100, 100, Fraction(0)) == (100, 100)


# Sources


def test_videos_mix_with_photos_in_their_order(classifier: Classifier, clip: Path) -> None:
    found = list(classifier.stream([CAT, clip, clip, ESPRESSO, HOPPER], every=3))
    expected = [(CAT, None), *[(clip, 0), (clip, 3)] * 2, (ESPRESSO, None), (HOPPER, None)]
    assert [(p.source, p.timestamp) for p in found] == [(str(a), b) for a, b in expected]


@pytest.mark.parametrize(
    ("name", "video", "live"),
    [
        ("clip.mp4", True, False),
        ("a/B.MOV", True, False),
        ("*.webm", True, False),
        ("clip.gif", False, False),
        ("mp4", False, False),
        ("https://example.org/clip.mp4", False, False),
        ("camera:0", True, True),
        ("camera:", False, False),
        ("/dev/video0", True, True),
        ("/dev/video0.jpg", False, False),
        ("rtsp://host/x", True, True),
        ("RTSPS://host/x", True, True),
        ("rtsp:", False, False),
    ],
)
def test_videos_are_told_by_their_names(name: str, video: bool, live: bool) -> None:
    assert (is_video(name), is_live(name)) == (video, live)


def test_videos_are_taken_where_they_are_named_and_not_in_folders(tmp_path: Path) -> None:
    (tmp_path / "cat.png").write_bytes(CAT.read_bytes())
    (tmp_path / "clip.mp4").touch()

    def found(source: str) -> list[tuple[str, bool]]:
        return [(Path(i.source).name, isinstance(i, Video)) for i in iter_items([source])]

    assert found(f"{tmp_path}") == [("cat.png", False)]
    assert found(f"{tmp_path}/*") == [("cat.png", False)]
    assert found(f"{tmp_path}/clip.mp4") == [("clip.mp4", True)]
    assert found(f"{tmp_path}/*.mp4") == [("clip.mp4", True)]
    assert count_items([tmp_path]) == 1
    assert count_items([tmp_path, f"{tmp_path}/*.mp4"]) is None


def test_passwords_of_streams_are_not_shown() -> None:
    (item,) = iter_items(["rtsp://user:secret@127.0.0.1:1/x"])
    assert isinstance(item, Video)
    assert item.source == "rtsp://127.0.0.1:1/x"
    assert "secret" in item.address
    with pytest.raises(ImageError, match="regnet classify"):
        item.read()
    assert errors(item.address) == ["cannot be opened: Connection refused"]


@pytest.mark.skipif(sys.platform != "linux", reason="names of devices on Linux")
def test_cameras_by_number_and_name() -> None:
    assert camera("camera:2") == ("video4linux2", "/dev/video2")
    assert camera("/dev/video1") == ("video4linux2", "/dev/video1")
    assert errors("camera:97") == ["cannot be opened: No such file or directory"]


def test_an_rtsp_stream_is_classified(classifier: Classifier, tmp_path: Path) -> None:
    options = {"tune": "zerolatency", "g": "10"}
    packets = rtp_packets(write_clip(tmp_path / "clip.ts", steady(3), **options))
    server = RtspServer(packets)
    try:
        found = list(classifier.stream(server.url, realtime=False))
        newest = list(classifier.stream(server.url))
    finally:
        server.close()
    assert [(p.timestamp, p.top.label) for p in found] == list(enumerate(LABELS))
    assert {p.source for p in found} == {server.url}
    assert server.asked == ["OPTIONS", "DESCRIBE", "SETUP", "PLAY"] * 2
    assert newest
    assert all(p.error is None for p in newest)
    assert sorted({int(p.timestamp or 0) for p in newest}) == [
        int(p.timestamp or 0) for p in newest
    ]


# In real time


def endless(step: Fraction = Fraction(1, 10)) -> Iterator[Shot]:
    number = 0
    while True:
        yield Shot(number * step, av.VideoFrame(16, 16, "rgb24"))
        number += 1


def test_the_newest_frame_is_taken_and_those_before_it_are_dropped() -> None:
    go = threading.Event()
    made: list[Fraction] = []

    def source() -> Generator[Shot]:
        for shot in endless():
            if len(made) == 50:
                go.set()
                return
            made.append(shot.time)
            yield shot

    found = newest(source(), Intervals(0), paced=False)
    assert go.wait(0) is False  # nothing is read before it is asked for
    first = next(found)
    go.wait(60)
    rest = list(found)
    assert len(made) == 50
    assert [shot.time for shot in rest] in ([], [made[-1]])  # [] where it was first already
    assert (rest or [first])[-1].time == made[-1]


def test_in_real_time_too_one_frame_is_taken_an_interval() -> None:
    def source() -> Generator[Shot]:
        for shot in endless():
            if shot.time > 3:
                return
            yield shot

    found = [shot.time for shot in newest(source(), Intervals(1), paced=True)]
    assert len(found) == 4
    assert [int(time) for time in found] == [0, 1, 2, 3]


def test_files_in_real_time_take_as_long_as_they_are_shown(
    classifier: Classifier, tmp_path: Path
) -> None:
    path = write_clip(tmp_path / "clip.mp4", steady(1))
    start = time.monotonic()
    found = list(classifier.stream(path, every=0, realtime=True))
    assert time.monotonic() - start >= 0.96
    assert 1 <= len(found) <= 25
    assert found[0].timestamp is not None
    assert all(p.error is None for p in found)


def test_who_stops_early_stops_the_reader() -> None:
    closed = threading.Event()

    def source() -> Generator[Shot]:
        try:
            yield from endless()
        finally:
            closed.set()

    found: Any = newest(source(), Intervals(0), paced=False)
    next(found)
    found.close()
    assert closed.wait(60)


def test_errors_of_the_reader_come_after_its_frames() -> None:
    def source() -> Generator[Shot]:
        yield next(iter(endless()))
        raise ImageError("the plug was pulled")

    found: Any = newest(source(), Intervals(0), paced=False)
    assert next(found).time == 0
    with pytest.raises(ImageError, match="plug"):
        next(found)


def test_memory_does_not_grow_with_the_length(
    classifier: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = 0

    def many(address: str) -> Generator[Shot]:
        nonlocal read
        for shot in endless(Fraction(1)):
            read += 1
            yield shot

    monkeypatch.setattr("regnet.video.frames.shots", many)
    found: Any = classifier.stream("camera:0", realtime=False)
    for taken in range(1, 30):
        assert next(found).error is None
        assert read <= taken + 4 * (os.cpu_count() or 1) + 4
    found.close()


# What goes wrong


def broken(clip: Path, folder: Path, *, end: float = 1.0, zeros: int = 0) -> Path:
    data = bytearray(clip.read_bytes())
    data[len(data) // 2 : len(data) // 2 + zeros] = bytes(zeros)
    path = folder / f"broken{clip.suffix}"
    path.write_bytes(data[: int(end * len(data))])
    return path


def test_damaged_clips_give_what_is_there_and_an_error(
    classifier: Classifier, tmp_path: Path
) -> None:
    path = broken(write_clip(tmp_path / "clip.mkv", steady(4)), tmp_path, end=0.6)
    *found, last = classifier.stream([path, CAT])
    assert last.top.label == LABELS[0]
    *found, problem = found
    assert [p.top.label for p in found] == LABELS[: len(found)]
    assert found
    assert problem.error is not None
    assert problem.error.startswith("damaged: ends at ")
    assert problem.timestamp is not None


def test_frames_that_cannot_be_decoded_are_left_out(tmp_path: Path) -> None:
    path = broken(write_clip(tmp_path / "clip.mp4", steady(4)), tmp_path, zeros=3000)
    assert 50 < len(times(path, 0)) < 101
    (error,) = errors(path)
    assert error.startswith("damaged: ")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "it is damaged or no video of a known kind"),
        (b"hello", "it is damaged or no video of a known kind"),
        (CAT.read_bytes(), "it is damaged or no video of a known kind"),
        (b"ffconcat version 1.0\nfile 'clip.mp4'\n", "it is damaged or no video of a known kind"),
        (
            b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nclip.ts\n#EXT-X-ENDLIST\n",
            "it is damaged or no video of a known kind",
        ),
    ],
)
def test_what_is_no_video_says_so(tmp_path: Path, content: bytes, reason: str) -> None:
    write_clip(tmp_path / "clip.ts", [(0, scene(0))])
    (tmp_path / "bad.mp4").write_bytes(content)
    assert errors(tmp_path / "bad.mp4") == [f"cannot be opened: {reason}"]


def test_names_that_look_like_protocols_are_files(tmp_path: Path) -> None:
    odd = write_clip(tmp_path / "clip.mp4", [(0, scene(0))]).rename(tmp_path / "http:x%d\udcff.mp4")
    assert errors(odd) == []


def test_sound_alone_is_no_video(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        stream: Any = container.add_stream("aac", rate=48000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        frame.sample_rate = 48000
        container.mux([*stream.encode(frame), *stream.encode()])
    assert errors(tmp_path / "sound.mp4") == ["holds no video"]


def test_frames_over_the_limit_are_not_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_clip(tmp_path / "clip.mp4", [(0, scene(0))])
    monkeypatch.setattr("regnet.video.frames.MAX_FRAME_PIXELS", 98303)
    assert errors(path) == ["frames of 384 x 256 are over the limit of 98,303 pixels"]


def test_a_missing_file_is_a_row(classifier: Classifier) -> None:
    (found,) = classifier.stream("no/such.mp4")
    assert (found.error, found.timestamp) == ("no such file or folder", None)


def test_without_the_extra_the_error_names_it(
    classifier: Classifier, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MissingExtraError, match="extra 'video'"):
        next(classifier.stream(clip))


# The command


def run(*arguments: object, code: int = 0) -> str:
    command = [sys.executable, "-m", "regnet", "classify", "-m", "bundled", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == code, done.stderr
    return done.stdout


def test_the_command_writes_timestamps(clip: Path) -> None:
    lines = run("-k", 1, "--every", 2, "--smooth", 1, "-f", "csv", CAT, clip).splitlines()
    assert lines[0].endswith(",error,model,timestamp")
    assert [line.rpartition(",")[2] for line in lines[1:]] == ["", "0.0", "2.0", "4.0"]
    assert f"{clip} at 3.000 s\n" in run("-k", 1, "--every", 3, clip)


@pytest.mark.parametrize("arguments", [("--every", "-1"), ("--every", "inf"), ("--smooth", "nan")])
def test_the_command_refuses_impossible_seconds(clip: Path, arguments: tuple[str, str]) -> None:
    with pytest.raises(typer.BadParameter):
        build_app(["classify"])(["classify", *arguments, str(clip)], standalone_mode=False)


def test_photos_do_not_import_what_reads_videos() -> None:
    code = (
        "import sys; from regnet.cli import build_app; "
        "build_app(['classify'])(sys.argv[1:], standalone_mode=False); "
        "assert not {'av', 'fractions'} & set(sys.modules)"
    )
    command = [sys.executable, "-c", code, "classify", "-m", "bundled", str(HOPPER)]
    subprocess.run(command, check=True, capture_output=True, timeout=60)


def test_ctrl_c_ends_a_running_video_with_what_is_there(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mp4", [(ms, scene(0)) for ms in range(0, 100_000, 500)])
    out = tmp_path / "out.jsonl"
    command = [sys.executable, "-m", "regnet", "classify", "-m", "bundled", "--realtime"]
    command += ["--every", "0.5", "-o", str(out), str(path)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE)
    part = out.with_name("out.jsonl.part")
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not (part.exists() and part.stat().st_size):
        time.sleep(0.05)
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    _, message = process.communicate(timeout=60)
    assert process.returncode == 130, message
    found = [json.loads(line) for line in out.read_text().splitlines()]
    assert 0 < len(found) < 200
    assert all(row["error"] is None for row in found)
