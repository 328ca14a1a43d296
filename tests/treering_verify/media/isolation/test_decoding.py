"""Decoding apart: the same pixels, in a process that starts when it is needed, and that a file cannot take further."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from helpers.hostile.files import samples
from helpers.hostile.slow_files import lying_videos, resized_jxl, slow, tiled_tiff
from helpers.images import encoded, smooth
from helpers.places import ROOT
from PIL import Image

from treering_verify.errors import ImageError
from treering_verify.media.animations import distinct_frames
from treering_verify.media.decoder_limits import MAX_PIXELS
from treering_verify.media.formats import decoded_formats, register
from treering_verify.media.headers.declared_sizes import declared_pixels
from treering_verify.media.images import open_image
from treering_verify.media.isolation import child_process, decoding
from treering_verify.media.isolation.decoding import decode_frames, decode_image, decode_video, is_cheap
from treering_verify.media.videos import encode_video, open_video

CHEAP = {"png", "jpeg", "jpeg progressive", "webp", "webp lossless", "gif", "bmp"}


def animation() -> bytes:
    frames = [smooth(64, 48).rotate(90 * i) for i in range(3)]
    return encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Start decoder processes that fail as a file says, and end them afterwards."""
    started = child_process.ChildProcess

    def start(module: str, facts: object) -> child_process.ChildProcess:
        assert module == "treering_verify.media.isolation.decoder_process"
        return started("helpers.hostile.decoder", facts)

    decoding._decoder.close()
    monkeypatch.setattr(child_process, "ChildProcess", start)
    monkeypatch.setattr(decoding, "SECONDS", 3.0)
    yield
    decoding._decoder.close()


def test_pixels_are_the_same_here_and_there() -> None:
    whole = encoded(smooth(64, 64), "JPEG")
    cut = whole[: len(whole) * 4 // 5]
    for name, data in (samples() | {"jp2": encoded(smooth(40, 24), "JPEG2000"), "cut": cut}).items():
        plain, found = open_image(data), decode_image(data)
        assert np.array_equal(np.asarray(found), np.asarray(plain)), name
        assert found.info == plain.info, name
    moving = animation()
    plain, found = distinct_frames(moving), decode_frames(moving)
    assert plain is not None and found.total == plain.total == 3
    for one, other in zip(found.frames, plain.frames, strict=True):
        assert one.number == other.number and np.array_equal(np.asarray(one.image), np.asarray(other.image))
    for count in (2, 5):
        video, plain_video = decode_video(moving, count, (32, 32)), open_video(moving, count, (32, 32))
        assert (video.note, video.size, video.given) == (plain_video.note, plain_video.size, plain_video.given)
        assert [f.tobytes() for f in video.frames] == [f.tobytes() for f in plain_video.frames]


def test_a_size_that_was_written_into_a_jpeg_xl_is_refused() -> None:
    if "JXL" not in decoded_formats():
        pytest.skip("pillow-jxl-plugin is not installed")
    register()
    sound = encoded(smooth(128, 128), "JXL")
    for height, width in ((7990, 7990), (4000, 4000), (8, 7_900_000), (1 << 29, 1 << 29)):
        data = resized_jxl(sound, height, width)
        assert declared_pixels(data) == height * width
        with pytest.raises(ImageError) as caught:
            decode_frames(data)
        assert caught.value.code == ("too_many_pixels" if height * width > MAX_PIXELS else "corrupt")


def test_videos_that_say_what_is_untrue_are_read_or_refused() -> None:
    frames = [smooth(64, 64).rotate(90 * i) for i in range(4)]
    video = encode_video(frames * 50, "mp4", 25)
    assert decode_video(video, 8, (64, 64)).note == "cut to its first 8 frames"
    codes = set()
    for name, data in lying_videos(video):
        try:
            found = decode_video(data, 8, (64, 64))
        except ImageError as error:
            codes.add(error.code)
            continue
        assert len(found.frames) == 8 and found.size == (64, 64), name
    assert codes == {"corrupt", "not_a_video"}  # the process survived


def test_a_damaged_file_has_the_same_code_here_and_there() -> None:
    for data in (b"text " * 20, samples()["tiff"][:100], samples()["avif"][:60], encoded(smooth(8, 4), "TIFF")):
        with pytest.raises(ImageError) as here, quiet():
            open_image(data)
        with pytest.raises(ImageError) as there:
            decode_image(data)
        assert (here.value.code, here.value.reason) == (there.value.code, there.value.reason)


def quiet() -> object:
    from treering_verify.media.decoder_limits import quiet_decoders

    return quiet_decoders()


def test_only_still_images_of_usual_sizes_in_five_formats_are_cheap() -> None:
    assert {name for name, data in samples().items() if is_cheap(data)} == CHEAP
    assert not is_cheap(animation())
    frames = [smooth(16, 16), smooth(16, 16).rotate(90)]
    for kind in ("PNG", "WEBP"):
        assert not is_cheap(encoded(frames[0], kind, save_all=True, append_images=frames[1:]))
    assert not is_cheap(encoded(Image.new("1", (8000, 4000)), "PNG"))
    assert not is_cheap(samples()["png"][:40])
    assert all(is_cheap(case.data) for case in slow() if "too_many_parts" in case.codes)  # they are refused at once


def test_a_sound_image_starts_no_process_and_a_tiff_starts_one(tmp_path: Path) -> None:
    code = """
import sys
from treering_verify.media.isolation import decoding
decoding.decode_frames(sys.argv[1])
assert decoding._decoder._child is None
decoding.decode_frames(sys.argv[2])
first = decoding._decoder._child.process.pid
decoding.decode_frames(sys.argv[2])
assert decoding._decoder._child.process.pid == first
print(first)
"""
    (tmp_path / "a.tiff").write_bytes(samples()["tiff"])
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, str(ROOT / "samples" / "marked-0.png"), str(tmp_path / "a.tiff")],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "detectors")])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0 and not done.stderr, done.stderr
    with pytest.raises(ProcessLookupError):  # it ended with its parent
        time.sleep(0.2)
        os.kill(int(done.stdout), 0)


@pytest.mark.parametrize(
    "begins, code",
    [
        ("crash", "reader_crashed"),
        ("hang", "reader_timeout"),
        ("hungry", "reader_memory"),
        ("odd", "reader_crashed"),
        ("many", "reader_crashed"),
        ("huge", "reader_crashed"),
        ("lying", "reader_crashed"),
        ("silent", "reader_crashed"),
    ],
)
def test_a_file_costs_its_process_and_the_next_gets_another(failing: None, begins: str, code: str) -> None:
    with pytest.raises(ImageError) as caught:
        decode_image(begins.encode() * 10)
    assert caught.value.code == code and caught.value.reason.isprintable()
    assert decode_image(samples()["tiff"]).size == (32, 24)


def test_a_file_is_named_in_its_error(tmp_path: Path) -> None:
    (tmp_path / "a.tiff").write_bytes(samples()["tiff"][:90])
    with pytest.raises(ImageError, match=r"a\.tiff: "):
        decode_image(tmp_path / "a.tiff")
    with pytest.raises(ImageError, match=r"none\.tiff: "):
        decode_image(tmp_path / "none.tiff")


def test_threads_get_their_own_images() -> None:
    wanted = [Image.new("RGB", (16, 16), (i, 0, 255 - i)) for i in range(12)]
    found: dict[int, Image.Image] = {}

    def decode(number: int) -> None:
        found[number] = decode_image(encoded(wanted[number], "TIFF"))

    threads = [threading.Thread(target=decode, args=(i,)) for i in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(found[i].tobytes() == wanted[i].tobytes() for i in range(12))


def test_a_folder_of_frames_is_decoded_apart(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"{number}.tiff").write_bytes(encoded(smooth(32, 32).rotate(90 * number), "TIFF"))
    video, plain = decode_video(tmp_path, 3, (32, 32)), open_video(tmp_path, 3, (32, 32))
    assert [frame.tobytes() for frame in video.frames] == [frame.tobytes() for frame in plain.frames]
    assert encode_video(video.frames, "gif", 8)


def test_the_tiff_of_64_million_tiles_is_refused_at_once() -> None:
    started = time.process_time()
    for data in (tiled_tiff(8000, 1, 16), tiled_tiff(2048, 1, 4 << 20)):
        with pytest.raises(ImageError) as caught:
            decode_image(data)
        assert caught.value.code == "too_many_parts"
    assert time.process_time() - started < 5
