"""Compile the networks of a loaded model by torch.compile; a caller's pipeline is never compiled."""

from __future__ import annotations

import os
import shutil
import sys
from typing import TYPE_CHECKING

from treering_verify.errors import UsageError
from treering_verify.models.protocol import LatentModel

if TYPE_CHECKING:
    import torch


def compile_networks(model: LatentModel) -> LatentModel:
    """Set a model's networks to be compiled in place when they first run, and return the model.

    A network is compiled again for another image size or precision, and for another batch size until torch makes that
    dynamic. On a processor that takes minutes, so it pays for very many images of one size. Weights and their fingerprint
    do not change; results differ by rounding.

    Raises
    ------
    UsageError
        If there is no C++ compiler for a model on the processor.
    """
    networks = list(_networks(model))
    on_processor = any(tensor.device.type == "cpu" for network in networks for tensor in network.parameters())
    compiler = os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")
    if on_processor and shutil.which(compiler) is None:
        raise UsageError(
            f"torch.compile needs a C++ compiler, and there is no {compiler}: install one, or leave out --compiled"
        )
    for network in networks:
        network.compile()
    return model


def _networks(model: LatentModel) -> list[torch.nn.Module]:
    """Return the modules that are called directly; for an autoencoder these are encoder and decoder."""
    import torch

    parts = [part for part in vars(model).values() if isinstance(part, torch.nn.Module)]
    return [half for part in parts for half in _halves(part)]


def _halves(part: torch.nn.Module) -> list[torch.nn.Module]:
    import torch

    halves = [getattr(part, name, None) for name in ("encoder", "decoder")]
    return [half for half in halves if isinstance(half, torch.nn.Module)] or [part]
