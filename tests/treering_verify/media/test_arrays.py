"""Arrays, tensors and open files as images."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.images import array, encoded, smooth
from PIL import Image

from treering_verify.errors import ImageError, UsageError
from treering_verify.media.images import open_image

LEVELS = array(smooth()).astype(np.uint8)


@pytest.mark.parametrize(
    "source",
    [
        LEVELS,
        LEVELS[None],
        LEVELS / np.float32(255),
        (LEVELS / 255.0).astype(np.float64)[None],
        np.asfortranarray(LEVELS),
        torch.from_numpy(LEVELS.copy()).movedim(-1, 0),
        torch.from_numpy(LEVELS / 255.0).movedim(-1, 0)[None],
        torch.from_numpy(LEVELS / 255.0).movedim(-1, 0).float().requires_grad_(),
        io.BytesIO(encoded(smooth(), "PNG")),
        bytearray(encoded(smooth(), "PNG")),
        memoryview(encoded(smooth(), "PNG")),
    ],
)
def test_whatever_diffusers_and_numpy_give_is_the_same_image(source: object) -> None:
    assert (array(open_image(source)) == LEVELS).all()  # type: ignore[arg-type]


def test_half_precision_is_the_same_image_to_a_level() -> None:
    half = torch.from_numpy(LEVELS / 255.0).movedim(-1, 0)
    for dtype, most in ((torch.float16, 1), (torch.bfloat16, 1)):
        assert abs(array(open_image(half.to(dtype))).astype(int) - LEVELS).max() <= most


def test_an_open_file_is_read_from_where_it_stands(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(b"head" + encoded(smooth(), "PNG"))
    with open(tmp_path / "x.png", "rb") as file:
        file.seek(4)
        assert (array(open_image(file)) == LEVELS).all()
    buffer = io.BytesIO()
    smooth().save(buffer, format="PNG")  # it stands at its end now
    for _ in range(2):
        assert (array(open_image(buffer)) == LEVELS).all()
    with pytest.raises(ImageError, match="no bytes"):
        open_image(io.BytesIO())
    with open(tmp_path / "x.png", encoding="latin-1") as text, pytest.raises(UsageError, match="mode 'rb'"):
        open_image(text)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (LEVELS / 127.5 - 1, r"\(x \+ 1\) / 2"),
        (LEVELS.astype(float), "x / 255"),
        (np.full((16, 16, 3), np.nan), "hold NaN or infinity: run the model's decoder in float32"),
        (LEVELS.astype(np.int64), "int64"),
        (LEVELS[..., 0], r"not an image: give \(height, width, 3\)"),
        (np.stack([LEVELS, LEVELS]), r"holds 2 images: verify takes one of them, verify_many all"),
        (torch.zeros(16, 16, 3), r"give \(3, height, width\), one image at a time: use \.movedim\(-1, 0\)"),
        (np.moveaxis(LEVELS, -1, 0), r"use np\.moveaxis\(array, 0, -1\)"),
        (torch.zeros(3, 16, 16, device="meta"), "give a dense one"),
        (torch.zeros(3, 16, 16).to_sparse(), "give a dense one"),
        (3, "a int is none of these"),
        (None, "a NoneType is none of these"),
        ({"image": 1}, "a dict is none of these"),
    ],
)
def test_everything_else_is_refused_with_what_is_taken(source: object, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        open_image(source)  # type: ignore[arg-type]


class Slow(io.BytesIO):
    """A file that gives a few bytes at a time, as those of a network do."""

    def read(self, size: int | None = -1) -> bytes:
        return super().read(min(100, 100 if size is None or size < 0 else size))


class Lost(io.BytesIO):
    """A file whose reading fails."""

    def read(self, size: int | None = -1) -> bytes:
        raise RuntimeError("connection lost, token abc")


def test_a_file_that_gives_less_than_it_is_asked_for_is_read_to_its_end() -> None:
    assert (array(open_image(Slow(encoded(smooth(), "PNG")))) == LEVELS).all()


def test_files_that_cannot_be_read_are_told_by_what_is_wrong(tmp_path: Path) -> None:
    closed = io.BytesIO(b"x")
    closed.close()
    with open(tmp_path / "out", "wb") as written:
        for file in (closed, written, io.StringIO(""), os):
            with pytest.raises(UsageError, match="mode 'rb'"):
                open_image(file)  # type: ignore[arg-type]
    with pytest.raises(ImageError, match="RuntimeError") as caught:
        open_image(Lost())
    assert caught.value.code == "not_readable" and "token" not in str(caught.value)


def test_an_image_without_pixels_is_too_small() -> None:
    for nothing in (np.zeros((0, 0, 3)), torch.zeros(3, 0, 0)):
        with pytest.raises(ImageError, match="side") as caught:
            open_image(nothing)
        assert caught.value.code == "too_small"


def test_a_pillow_image_that_was_closed_is_not_called_damaged(tmp_path: Path) -> None:
    smooth().save(tmp_path / "x.png")
    with Image.open(tmp_path / "x.png") as image:
        pass
    with pytest.raises(UsageError, match="closed: open it again"):
        open_image(image)
    with Image.open(tmp_path / "x.png") as image:
        image.load()
    assert (array(open_image(image)) == LEVELS).all()  # its pixels are there


@pytest.mark.parametrize(
    "address", ["https://example.org/a.png", Path("https://example.org/a.png"), "data:image/png;base64,AA"]
)
def test_a_url_for_a_path_is_called_one(address: str | Path) -> None:
    with pytest.raises(ImageError, match="this is a URL, and no path") as caught:
        open_image(address)
    assert caught.value.code == "not_found"
