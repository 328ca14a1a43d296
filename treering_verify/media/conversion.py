"""Convert images to a model's tensors and back, and write them as PNG files.

Outside, an image is a Pillow image, as `media.images` decodes it. Inside, it is a (1, 3, H, W) float32 tensor in [-1, 1],
sRGB. Every command converts by `open_image`, `fit` and `to_tensor`, so all agree on the pixels of a file.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from treering_verify.errors import ModelError, UsageError
from treering_verify.files import printable, write_atomic
from treering_verify.media.truncated.notes import note_of

if TYPE_CHECKING:
    import torch
    from PIL import Image


def to_tensor(image: Image.Image) -> torch.Tensor:
    """Convert an RGB image to the library's tensor, x = v / 127.5 - 1.

    Returns
    -------
    torch.Tensor
        (1, 3, H, W), float32, in [-1, 1], on the CPU.

    Raises
    ------
    UsageError
        If the image's mode is not RGB.
    """
    import numpy as np
    import torch

    if image.mode != "RGB":
        raise UsageError(f"to_tensor needs an RGB image, got mode {image.mode}; pass it through open_image first")
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None]
    return pixels.to(torch.float32).contiguous() / 127.5 - 1.0


def to_pil(tensor: torch.Tensor) -> Image.Image:
    """Convert the library's tensor to an RGB image, v = (clamp(x, -1, 1) + 1) * 127.5, rounded half to even.

    The inverse of `to_tensor` on all 256 values.

    Parameters
    ----------
    tensor
        (1, 3, H, W) or (3, H, W), any floating dtype and device, nominally in [-1, 1].

    Raises
    ------
    UsageError
        If the shape is another.
    ModelError
        If a value is NaN or infinite, which an image would hide.
    """
    import torch
    from PIL import Image

    shape = tuple(tensor.shape)
    if tensor.ndim == 4 and shape[0] == 1:
        tensor = tensor[0]
    if tensor.ndim != 3 or tensor.shape[0] != 3:
        raise UsageError(f"to_pil needs a tensor of shape (1, 3, H, W) or (3, H, W), got {shape}; pass one image")
    x = tensor.detach().to("cpu", torch.float32)
    if not bool(torch.isfinite(x).all()):
        raise ModelError("the image holds NaN or infinite values; run the model's decoder in float32")
    levels = ((x.clamp(-1.0, 1.0) + 1.0) * 127.5).round().to(torch.uint8)
    return Image.fromarray(levels.permute(1, 2, 0).contiguous().numpy())


def fit(image: Image.Image, size: tuple[int, int]) -> tuple[Image.Image, str]:
    """Crop an image to a model's aspect ratio, at its centre, and scale it to the model's size (antialiased Lanczos).

    Parameters
    ----------
    image
        RGB image.
    size
        (height, width) in pixels.

    Returns
    -------
    image : PIL.Image.Image
        An image of exactly that size: the given object if it has that size already.
    note : str
        What was done, for the record, such as "resized 1024x768 -> 512x384" (width x height); "" if nothing.

    Raises
    ------
    UsageError
        If a side of `size` is below 1.
    """
    from PIL import Image

    height, width = size
    if height < 1 or width < 1:
        raise UsageError(f"fit needs a (height, width) of at least (1, 1), got {size}")
    steps = []
    if file_note := note_of(image):
        steps.append(file_note)
    if image.size == (width, height):
        return image, ", ".join(steps)
    # The largest box of the wanted aspect ratio, in whole pixels: less than one pixel off counts as the same ratio.
    box = (
        max(1, min(image.width, round(image.height * width / height))),
        max(1, min(image.height, round(image.width * height / width))),
    )
    if box != image.size:
        left, top = (image.width - box[0]) // 2, (image.height - box[1]) // 2
        steps.append(f"cropped {image.width}x{image.height} -> {box[0]}x{box[1]}")
        image = image.crop((left, top, left + box[0], top + box[1]))
    if box != (width, height):
        steps.append(f"resized {box[0]}x{box[1]} -> {width}x{height}")
        image = image.resize((width, height), Image.Resampling.LANCZOS)
    return image, ", ".join(steps)


def encode_png(image: Image.Image, metadata: Mapping[str, str] | None = None) -> bytes:
    """Return the bytes of the file that `save_png` writes; parameters and errors are the same."""
    from PIL import PngImagePlugin

    chunks = PngImagePlugin.PngInfo()
    for key, value in (metadata or {}).items():
        if not (1 <= len(key) <= 79 and key.isprintable() and max(key) <= "\xff"):
            raise UsageError(f"PNG metadata keys are 1 to 79 printable Latin-1 characters, got {printable(key)!r}")
        if "\0" in value:
            raise UsageError(f"PNG metadata cannot hold a NUL character, as {key!r} does; remove it")
        chunks.add_text(key, value)
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", pnginfo=chunks)
    return buffer.getvalue()


def save_png(image: Image.Image, path: str | Path, metadata: Mapping[str, str] | None = None) -> None:
    """Save an image as PNG, atomically (see `files.write_atomic`).

    Parameters
    ----------
    image
        The image to save.
    path
        The file; it is replaced if it exists.
    metadata
        Text chunks to store. Keys: 1 to 79 printable Latin-1 characters. Values: any text.

    Raises
    ------
    UsageError
        If a metadata key has another form, or from `files.write_atomic`.
    OSError
        If the file cannot be written.
    """
    write_atomic(path, encode_png(image, metadata))
