"""Video files: what is read is what was written, in order, at a model's length and size; hostile files become errors."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

from treering_verify.audit.inputs.reading import read_encoded, read_path
from treering_verify.errors import ImageError, UsageError
from treering_verify.media import frame_folders
from treering_verify.media import videos as video_files
from treering_verify.media.conversion import encode_png, to_tensor
from treering_verify.media.images import CODES
from treering_verify.media.videos import encode_video, read_video
from treering_verify.media.videos import video_files as files_of

SIZE = (48, 64)


@pytest.fixture(scope="module")
def frames() -> list[Image.Image]:
    grid = np.random.default_rng(0).normal(size=(5, 6, 8, 3))
    levels = np.clip(128 + 40 * grid, 0, 255).astype(np.uint8)
    return [Image.fromarray(level).resize(SIZE[::-1], Image.Resampling.BICUBIC) for level in levels]


@pytest.fixture(scope="module")
def mp4(frames: list[Image.Image]) -> bytes:
    return encode_video(frames, "mp4", 8)


def tensor(frames: list[Image.Image]) -> torch.Tensor:
    return torch.cat([to_tensor(frame) for frame in frames], dim=1)


def levels_off(video: torch.Tensor, frames: list[Image.Image]) -> float:
    """Root mean square error in grey levels."""
    return float((video - tensor(frames)).square().mean().sqrt()) * 127.5


def video(frames: list[Image.Image], codec: str, container: str, sound: bool = False) -> bytes:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container) as opened:
        stream = opened.add_stream(codec, rate=8)
        stream.width, stream.height, stream.pix_fmt = *frames[0].size, "yuv420p"
        heard = opened.add_stream("aac", rate=44100, layout="mono") if sound else None
        for frame in frames:
            opened.mux(stream.encode(av.VideoFrame.from_image(frame)))
        opened.mux(stream.encode(None))
        if heard:
            silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            silence.sample_rate, silence.pts = 44100, 0
            opened.mux(heard.encode(silence))
            opened.mux(heard.encode(None))
    return buffer.getvalue()


def code_of(source: object, count: int = 5) -> str:
    with pytest.raises(ImageError) as caught:
        read_video(source, count, SIZE)  # type: ignore[arg-type]
    assert caught.value.code in CODES
    return caught.value.code


# --- round trips --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("style", "worst"), [("mp4", 6), ("gif", 10)])
def test_a_codec_loses_little_and_keeps_the_order(frames: list[Image.Image], style: str, worst: float) -> None:
    video, note = read_video(encode_video(frames, style, 8), len(frames), SIZE)
    assert note == "" and video.shape == (1, 15, *SIZE)
    assert levels_off(video, frames) < worst
    assert levels_off(video, frames[::-1]) > 20


def test_a_folder_of_frames_loses_nothing(frames: list[Image.Image], tmp_path: Path) -> None:
    for ending, content in files_of(frames, "png", 8):
        path = Path(f"{tmp_path}/video{ending}")
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    (tmp_path / "video" / "notes.txt").write_text("not a frame")
    video, note = read_video(tmp_path / "video", len(frames), SIZE)
    assert note == "" and torch.equal(video, tensor(frames))


def test_numbers_in_names_count_as_numbers(frames: list[Image.Image], tmp_path: Path) -> None:
    for number, frame in zip((1, 2, 3, 10, 20), frames, strict=True):
        (tmp_path / f"frame-{number}.png").write_bytes(encode_png(frame))
    assert torch.equal(read_video(str(tmp_path), 5, SIZE)[0], tensor(frames))


def test_pillow_images_are_a_video(frames: list[Image.Image]) -> None:
    assert torch.equal(read_video(tuple(frames), 5, SIZE)[0], tensor(frames))


def test_a_video_is_fitted_to_the_models_length_and_size_and_says_so(frames: list[Image.Image]) -> None:
    video, note = read_video(frames, 3, SIZE)
    assert note == "cut to its first 3 frames" and torch.equal(video, tensor(frames[:3]))
    video, note = read_video(frames, 7, SIZE)
    assert note == "5 of 7 frames, the last repeated" and torch.equal(video, tensor([*frames, *frames[-1:] * 2]))
    video, note = read_video(frames[0], 1, (24, 32))
    assert note == "resized 64x48 -> 32x24" and video.shape == (1, 3, 24, 32)


@pytest.mark.parametrize(("codec", "container"), [("libx264", "mov"), ("libx264", "matroska"), ("libvpx-vp9", "webm")])
def test_other_containers_are_read(frames: list[Image.Image], codec: str, container: str) -> None:
    assert levels_off(read_video(video(frames, codec, container), 5, SIZE)[0], frames) < 12


def test_sound_is_left_alone(frames: list[Image.Image]) -> None:
    assert read_video(video(frames, "libx264", "mp4", sound=True), 5, SIZE)[1] == ""


def test_no_more_frames_are_decoded_than_are_wanted_and_one(
    frames: list[Image.Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[object] = []
    plain = video_files.open_image
    monkeypatch.setattr(video_files, "open_image", lambda source: opened.append(source) or plain(source))
    read_video(frames, 2, SIZE)
    assert len(opened) == 3


# --- what is refused ----------------------------------------------------------------------------------------------------


def test_what_is_not_a_video_is_an_error(frames: list[Image.Image], tmp_path: Path) -> None:
    assert code_of(tmp_path / "missing.mp4") == "not_found"
    assert code_of(tmp_path) == "not_a_video"
    assert code_of(b"#EXTM3U\nhttp://example.invalid/a.ts\n") == "not_a_video"  # a playlist would fetch other files
    assert code_of(b"ffconcat version 1.0\nfile /etc/passwd\n") == "not_a_video"
    assert code_of(b"") in ("empty", "not_a_video")
    assert code_of(video(frames, "ffv1", "matroska")) == "not_a_video"  # a codec that untrusted bytes must not reach
    assert code_of([]) == "not_a_video"


def test_a_video_of_too_many_pixels_is_refused(
    mp4: bytes, frames: list[Image.Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(video_files, "MAX_PIXELS", SIZE[0] * SIZE[1] - 1)
    assert code_of(mp4) in ("too_many_pixels", "corrupt")  # libav says the latter of what it refuses itself
    small = encode_video([frame.resize((4, 4)) for frame in frames], "gif", 8)
    assert code_of(small) == "too_small"


def test_a_folder_of_too_many_files_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frame_folders, "MAX_LISTED", 2)
    for number in range(3):
        (tmp_path / f"{number}.txt").touch()
    assert code_of(tmp_path) == "too_many_frames"


@pytest.mark.parametrize("style", ["mp4", "gif"])
def test_damaged_files_are_values(frames: list[Image.Image], style: str) -> None:
    sound, rng = encode_video(frames, style, 8), np.random.default_rng(0)
    codes = []
    for trial in range(60):
        data = bytearray(sound)
        for _ in range(rng.integers(1, 8)):
            data[rng.integers(len(data))] = rng.integers(256)
        damaged = bytes(data[: rng.integers(len(data))] if trial % 3 == 0 else data)
        try:
            video, _ = read_video(damaged, 5, SIZE)
            assert bool(video.isfinite().all()) and video.shape == (1, 15, *SIZE)
            codes.append("ok")
        except ImageError as error:
            assert error.code in CODES
            codes.append(error.code)
    assert {"ok", "corrupt"} <= set(codes)


def test_without_pyav_the_message_says_what_to_install(
    mp4: bytes, frames: list[Image.Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(UsageError, match=r"treering-verify\[video\]"):
        read_video(mp4, 5, SIZE)
    with pytest.raises(UsageError, match=r"treering-verify\[video\]"):
        encode_video(frames, "mp4", 8)
    assert read_video(encode_video(frames, "gif", 8), 5, SIZE)[1] == ""


def test_odd_sides_are_not_for_mp4(frames: list[Image.Image]) -> None:
    with pytest.raises(UsageError, match="even sides"):
        encode_video([frame.resize((31, 32)) for frame in frames], "mp4", 8)


def test_an_audit_reads_videos_as_verification_does(frames: list[Image.Image], mp4: bytes) -> None:
    for data, mode in ((mp4, None), (encode_video(frames, "gif", 8), "P")):
        reading = read_encoded("video", data, (4, *SIZE))
        assert (reading.status, reading.width, reading.height, reading.mode) == ("ok", *SIZE[::-1], mode)
        video, note = read_video(data, 4, SIZE)
        assert reading.note == note == "cut to its first 4 frames"
        assert reading.pixels is not None and reading.pixels.shape == (4, *SIZE, 3)
        judged = torch.from_numpy(reading.pixels[None].copy()).movedim(-1, -3).flatten(1, -3) / 127.5 - 1
        assert torch.allclose(judged, video, atol=1e-6)
    short = read_encoded("video", mp4, (9, *SIZE))
    assert short.pixels is not None and np.array_equal(short.pixels[4], short.pixels[8])


def test_what_is_not_a_video_gets_its_row_in_an_audit_of_videos(
    frames: list[Image.Image], mp4: bytes, tmp_path: Path
) -> None:
    shape = (5, *SIZE)
    files = {"still": encode_png(frames[0]), "not_a_video_file": b"text", "corrupt": mp4[:200], "empty": b""}
    for code, data in files.items():
        (tmp_path / code).write_bytes(data)
        for reading in (read_encoded(code, data, shape), read_path(str(tmp_path / code), shape)):
            assert reading.code == code and reading.pixels is None, reading
    assert read_encoded("mp4", mp4, SIZE).code == "video_file", "nor is a video an image"
