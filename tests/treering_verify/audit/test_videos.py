"""Folders of frames in an audit under a model that makes videos: one input, one row, whatever is among them."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
import torch
from helpers.audits import essence, fill, noisy_image, stored
from PIL import Image

from treering_verify.audit.folder import audit_folder
from treering_verify.audit.inputs.reader_pool import Limits
from treering_verify.audit.inputs.reading import read_path
from treering_verify.audit.inputs.sources import Inputs
from treering_verify.audit.options import Options
from treering_verify.audit.output.rows import Row
from treering_verify.benchmark.speed.null_model import NULL_INVERSION, NullModel
from treering_verify.media.videos import encode_video, read_video
from treering_verify.models.diffusers.video import by_frame
from treering_verify.watermark.keys.key import Key

FRAMES, SIZE = 3, (128, 128)
SHAPE = (FRAMES, *SIZE)


class NullClips(NullModel):
    """The null engine on videos of three frames."""

    name = "null-videos"
    latent_shape = (4 * FRAMES, 32, 32)
    frames, latent_frames, fps = FRAMES, FRAMES, 8

    def encode(self, image: torch.Tensor) -> torch.Tensor:
        return by_frame(super().encode, 3)(image)

    def decode(self, latent: torch.Tensor) -> torch.Tensor:
        return by_frame(super().decode, 4)(latent)


KEY = Key.generate(NullClips.latent_shape, name="canary", seed=5)


def audited(paths: object, output: Path | None = None, shard_rows: int = 1000, seconds: float = 30.0) -> list[Row]:
    options = Options(batch_size=2, limits=Limits(time_limit=seconds, readers=1), shard_rows=shard_rows)
    return list(
        audit_folder(paths, KEY, model=NullClips(), inversion=NULL_INVERSION, output=output, options=options)  # type: ignore[arg-type]
    )


def test_a_folder_of_frames_is_read_as_verification_reads_it(tmp_path: Path) -> None:
    for number in (2, 3, 10, 11):  # numbers count as numbers
        noisy_image(number).save(tmp_path / f"{number}.png")
    (tmp_path / "notes.txt").write_text("not a frame")
    (tmp_path / "1.png").symlink_to("10.png")
    reading = read_path(str(tmp_path), SHAPE)
    (tmp_path / "1.png").unlink()  # which an audit does not follow
    video, note = read_video(tmp_path, FRAMES, SIZE)
    assert (reading.status, reading.note) == ("ok", note) == ("ok", "cut to its first 3 frames")
    assert reading.pixels is not None and reading.pixels.shape == (*SHAPE, 3)
    judged = torch.from_numpy(reading.pixels[None].copy()).movedim(-1, -3).flatten(1, -3) / 127.5 - 1
    assert torch.allclose(judged, video, atol=1e-6)
    contents = [(tmp_path / f"{number}.png").read_bytes() for number in (2, 3, 10, 11)]
    digests = b"".join(hashlib.sha256(data).digest() for data in contents)
    assert (reading.sha256, reading.bytes) == (hashlib.sha256(digests).hexdigest(), sum(map(len, contents)))
    assert (reading.width, reading.height, reading.mode) == (128, 128, "RGB")
    assert read_path(str(tmp_path), SIZE).code == "folder", "nor is it a video under a model that makes images"


def test_a_digest_says_where_each_frame_ends(tmp_path: Path) -> None:
    """Trailing bytes are no part of a PNG's image: the same bytes in a row can be another video."""
    first, second, third = (Path(path).read_bytes() for path in fill(tmp_path / "video", 3))
    (tmp_path / "other").mkdir()
    for name, data in {"0.png": first + second, "1.png": third}.items():
        (tmp_path / "other" / name).write_bytes(data)
    assert read_path(str(tmp_path / "video"), SHAPE).sha256 != read_path(str(tmp_path / "other"), SHAPE).sha256


def test_what_is_no_folder_of_frames_costs_its_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "text").write_text("text")
    fill(tmp_path / "single", 1)
    cut = Path(fill(tmp_path / "cut", 2)[1])
    cut.write_bytes(cut.read_bytes()[:300])
    codes = {p.name: (r.status, r.code) for p in tmp_path.iterdir() if (r := read_path(str(p), SHAPE))}
    assert codes == {"bare": ("skipped", "folder"), "single": ("skipped", "still"), "cut": ("error", "cut_short")}
    monkeypatch.setattr("treering_verify.media.frame_folders.MAX_LISTED", 1)
    assert read_path(str(tmp_path / "cut"), SHAPE).code == "too_many_frames"


def test_an_audit_has_a_row_for_a_folder_of_frames_and_none_for_its_frames(tmp_path: Path) -> None:
    root = tmp_path / "in"
    fill(root / "b", 3)
    (root / "b" / "sidecar.json").write_text("{}")
    fill(root / "b" / "deeper", 3, first=9)
    fill(root / "copy of b", 3)
    (root / "a.gif").write_bytes(encode_video([noisy_image(i) for i in range(3)], "gif", 8))
    Image.new("RGB", SIZE).save(tmp_path / "alone.png")
    (tmp_path / "list").write_text(f"{root / 'b'}\n{tmp_path / 'alone.png'}\n")
    inputs = Inputs((str(root),), files_from=(str(tmp_path / "list"),))
    rows = audited(inputs, tmp_path / "out", shard_rows=2)
    said = [(os.path.relpath(row.path, tmp_path), row.status, row.code) for row in rows]
    assert said == [
        ("in/a.gif", "ok", ""),
        ("in/b", "ok", ""),
        ("in/b/deeper", "ok", ""),
        ("in/b/sidecar.json", "skipped", "not_a_video_file"),
        ("in/copy of b", "ok", ""),
        ("alone.png", "skipped", "still"),
    ]
    by_name = {Path(row.path).name: row for row in rows}
    twins = [by_name[name] for name in ("b", "copy of b")]
    assert twins[0].sha256 == twins[1].sha256 != by_name["deeper"].sha256
    assert twins[0].log10_pvalue == twins[1].log10_pvalue != by_name["deeper"].log10_pvalue
    # It goes on where it ended: a shard that is gone is done again, from a plan that does not look at the folders.
    (tmp_path / "out" / "rows-000001.parquet").unlink()
    fill(root / "c", 3)
    assert (
        essence(audited(inputs, tmp_path / "out", shard_rows=2)) == essence(rows) == essence(stored(tmp_path / "out"))
    )


def test_frames_that_harm_their_reader_cost_their_folder_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("treering_verify.audit.inputs.reader_pool._MODULE", "helpers.hostile.reader")
    for name in ("crash", "hang", "hungry", "once", "sound"):
        fill(tmp_path / "in" / name, 2)
        noisy_image(len(name)).save(tmp_path / "in" / name / f"{name}.png")
    rows = audited(tmp_path / "in", seconds=2)
    assert {Path(row.path).name: row.code for row in rows} == {
        "crash": "reader_crashed",
        "hang": "reader_timeout",
        "hungry": "reader_memory",
        "once": "",  # one strike is forgiven
        "sound": "",
    }
