"""What the recipes share: precision, losses, options, and the layout of exported models."""

from __future__ import annotations

import argparse
import copy
import json
import os
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from treering_verify.files import write_atomic
from treering_verify.training.landscape.scenes import CLASSES

STEPS = 20  # of the images that the inversion's networks learn from


def autocast() -> torch.autocast:
    """Return bfloat16 autocast where the processor has units for it; emulated it would be three times slower.

    AVX-512's dot products suffice: with them convolutions of 16 to 96 channels and their gradients run 1.3 to 1.8 times as
    fast as in float32 (EPYC of 2026-11-30, one core).
    """
    native = torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
    return torch.autocast("cpu", torch.bfloat16, enabled=native)


def pixel_loss(error: torch.Tensor) -> torch.Tensor:
    """Return L1 and L2 of pixels (L2 keeps the stars), L1 of gradients, and L1 of 8 x 8 means (keeps the colours)."""
    edges = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
    colours = F.avg_pool2d(error, 8).abs().mean()
    return error.abs().mean() + 16 * error.pow(2).mean() + edges + 4 * colours


def psnr(error: torch.Tensor) -> torch.Tensor:
    """Return the peak signal-to-noise ratio in dB of an error of images in [-1, 1], without gradient."""
    return -10 * torch.log10(error.detach().pow(2).mean() / 4)


def export_pipeline(name: str, parts: dict[str, Any], output: Path) -> None:
    """Write a model's folder as diffusers reads it: networks as float16 safetensors, the scheduler, and the index.

    Parameters
    ----------
    name : str
        Class name in the index.
    parts : dict
        Subfolder -> scheduler or network; the networks are not changed.
    output : Path
    """
    index: dict[str, Any] = {"_class_name": name, "_diffusers_version": "0.42.1", "classes": list(CLASSES)}
    for folder, part in parts.items():
        half: Any = copy.deepcopy(part).to(torch.float16) if isinstance(part, torch.nn.Module) else part
        half.save_pretrained(output / folder)
        index[folder] = ["diffusers", type(part).__name__]
    write_atomic(output / "model_index.json", (json.dumps(index, indent=2) + "\n").encode())


def recipe_parser(description: str | None, keeps: str, part: str = "") -> argparse.ArgumentParser:
    """Return a parser with the options of all recipes; `part` is the subfolder that a recipe adds to an existing model."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help=f"folder of {keeps}")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    if part:
        parser.add_argument("--model", default="landscape", help=f"folder of the model that {part}/ is trained for")
        parser.add_argument("--output", type=Path, help=f"model folder to write {part}/ into; default WORK")
    return parser
