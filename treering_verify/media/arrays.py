"""Turn arrays, tensors and open files into what `images.open_image` reads."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from treering_verify.errors import ImageError, UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

TAKEN = (
    "a path, a file's bytes, an open binary file, a Pillow image, a NumPy array (height, width, 3) of uint8 or of float in "
    "[0, 1], or a PyTorch tensor (3, height, width) of float in [0, 1]"
)
_SLACK = 1e-3  # float16 pipelines leave [0, 1] by less


def is_array(source: object) -> bool:
    """Return whether an object is a NumPy array or a PyTorch tensor; neither library is imported for that."""
    return any(
        module is not None and isinstance(source, getattr(module, name))
        for module, name in ((sys.modules.get("numpy"), "ndarray"), (sys.modules.get("torch"), "Tensor"))
    )


def is_closed(source: object) -> bool:
    """Return whether an object is a Pillow image that was closed before its pixels were decoded."""
    module = sys.modules.get("PIL.ImageFile")
    if module is None or not isinstance(source, module.ImageFile) or not source.tile:
        return False
    return source.fp is None or bool(source.fp.closed)


def image_of_array(source: Any) -> Image.Image:
    """Return the RGB image in an array or tensor, as diffusers returns them (`output_type` "np" and "pt").

    Parameters
    ----------
    source : (H, W, 3) or (1, H, W, 3) array, or (3, H, W) or (1, 3, H, W) tensor
        uint8, or float in [0, 1]; any device. Of a batch of several, what takes many images takes each.

    Raises
    ------
    UsageError
        If the shape, the type or the range is another.
    """
    import numpy as np
    from PIL import Image

    is_tensor = hasattr(source, "detach")
    pixels: NDArray[Any]
    if is_tensor:
        try:
            tensor = source.detach().cpu()
            pixels = (tensor.float() if tensor.is_floating_point() else tensor).numpy()
        except (TypeError, RuntimeError) as error:  # sparse, or without data
            raise UsageError(
                f"a tensor of {source.layout} on {source.device} is not an image: give a dense one"
            ) from error
    else:
        pixels = np.asarray(source)
    if pixels.ndim == 4 and len(pixels) == 1:
        pixels = pixels[0]
    if pixels.ndim == 3 and is_tensor:
        pixels = np.moveaxis(pixels, 0, -1)
    if pixels.ndim != 3 or pixels.shape[-1] != 3:
        kind, axes = ("a tensor", "(3, height, width)") if is_tensor else ("an array", "(height, width, 3)")
        shape = tuple(source.shape)
        if pixels.ndim == 4 and 3 in (shape[1], shape[-1]):
            raise UsageError(
                f"{kind} of shape {shape} holds {len(pixels)} images: verify takes one of them, verify_many all"
            )
        turned = ""
        if pixels.ndim == 3 and 3 in (shape[0], shape[-1]):
            turned = ": use .movedim(-1, 0)" if is_tensor else ": use np.moveaxis(array, 0, -1)"
        raise UsageError(f"{kind} of shape {shape} is not an image: give {axes}, one image at a time{turned}")
    return Image.fromarray(_levels(pixels))


def _levels(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    import numpy as np

    if pixels.dtype == np.uint8:
        return np.ascontiguousarray(pixels)
    if not np.issubdtype(pixels.dtype, np.floating):
        raise UsageError(f"pixels of type {pixels.dtype} are not supported: give uint8, or float in [0, 1]")
    if not pixels.size:
        return np.zeros(pixels.shape, np.uint8)  # too small, and is told so
    low, high = float(pixels.min()), float(pixels.max())
    if not np.isfinite([low, high]).all():
        raise UsageError("pixels hold NaN or infinity: run the model's decoder in float32")
    if not (low >= -_SLACK and high <= 1 + _SLACK):
        raise UsageError(
            f"pixels lie in [{low:.3g}, {high:.3g}] and not in [0, 1]: scale them, (x + 1) / 2 from [-1, 1] or x / 255 from "
            "[0, 255]"
        )
    return np.rint(np.clip(pixels, 0.0, 1.0) * 255.0).astype(np.uint8)


def read_open_file(file: Any, most: int) -> bytes:
    """Read an open binary file from where it stands, at most one byte more than `most`.

    One that stands at its end, as a buffer does into which an image was saved, is read from its beginning.

    Raises
    ------
    UsageError
        If it gives no bytes, is closed, or cannot be read at all.
    ImageError
        With code not_readable, if reading fails.
    """
    pieces: list[bytes] = []
    left = most + 1
    try:
        while left > 0:  # a raw file, or one of a network, may give less than it is asked for
            data = file.read(left)
            if not isinstance(data, bytes):
                given = "text" if isinstance(data, str) else f"a {type(data).__name__}"
                raise UsageError(f"the open file gives {given} and not bytes: open it with mode 'rb'")
            if not data and not pieces and _rewound(file):
                continue
            if not data:
                break
            pieces.append(data)
            left -= len(data)
    except UsageError:
        raise
    except (TypeError, ValueError) as error:
        raise UsageError(f"the open file cannot be read ({type(error).__name__}): open it with mode 'rb'") from error
    except Exception as error:  # each file system has exceptions of its own
        raise ImageError("not_readable", f"the open file cannot be read ({type(error).__name__})") from error
    return b"".join(pieces)


def _rewound(file: Any) -> bool:
    """Set a file back to its beginning; False if it stands there, or does not say where it stands."""
    if not getattr(file, "seekable", lambda: False)() or not file.tell():
        return False
    file.seek(0)
    return True
