"""Identify a model's weights by a digest."""

from __future__ import annotations

import hashlib
from collections.abc import Collection

from treering_verify.models.protocol import LatentModel


def fingerprint(
    model: LatentModel, *, without: Collection[str] = ("screen",), only: Collection[str] | None = None
) -> str:
    """Return a digest of a model's weights, 16 hexadecimal digits.

    Parameters
    ----------
    model : LatentModel
    without : collection of str
        Networks to leave out ("refine", ...).
    only : collection of str, optional
        Networks to take; all when left out.
    """
    import torch

    digest = hashlib.sha256()
    for name, part in sorted(vars(model).items()):
        if isinstance(part, torch.nn.Module) and name not in without and (only is None or name in only):
            for label, tensor in sorted(part.state_dict().items()):
                digest.update(f"{name}.{label}".encode())
                digest.update(tensor.detach().cpu().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def dtypes(model: LatentModel) -> str:
    """Return the precisions of a model's weights, such as ``bfloat16, float32``; "" if it has none."""
    import torch

    parts = [part for part in vars(model).values() if isinstance(part, torch.nn.Module)]
    found = {str(tensor.dtype).removeprefix("torch.") for part in parts for tensor in part.parameters()}
    return ", ".join(sorted(found))
