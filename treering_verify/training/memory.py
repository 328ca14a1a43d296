"""A model that remembers: images and latents that went through it before do not go through it again."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from treering_verify.models.protocol import Condition, LatentModel, Timestep

if TYPE_CHECKING:
    import torch


class Memory:
    """What networks returned, by what they were given, item by item."""

    def __init__(self) -> None:
        self._known: dict[bytes, tuple[torch.Tensor, ...]] = {}

    def clear(self) -> None:
        """Forget everything: it grows with each new item."""
        self._known.clear()

    def recall(
        self,
        batch: torch.Tensor,
        settings: Sequence[object],
        compute: Callable[[list[int]], tuple[torch.Tensor, ...]],
    ) -> tuple[torch.Tensor, ...]:
        """Return what a network makes of a batch.

        Parameters
        ----------
        batch : (B, ...)
        settings : sequence of B objects
            What the result depends on beside the item.
        compute : callable
            Rows of the batch -> tensors, the rows first. It is called with those that are not known.
        """
        import torch

        if batch.requires_grad and torch.is_grad_enabled():
            return compute(list(range(len(batch))))
        data = [row.contiguous().numpy().tobytes() for row in batch.detach().cpu()]
        names = [
            hashlib.sha256(repr(one).encode() + b"\0" + row).digest() for one, row in zip(settings, data, strict=True)
        ]
        new = [i for i, name in enumerate(names) if name not in self._known and name not in names[:i]]
        if new:
            made = compute(new)
            for k, i in enumerate(new):
                self._known[names[i]] = tuple(part[k].clone() for part in made)
        found = [self._known[name] for name in names]
        return tuple(torch.stack(parts) for parts in zip(*found, strict=True))


def remembering(model: LatentModel, memory: Memory) -> LatentModel:
    """Return a model that shares everything with another, and keeps what it computes in a memory.

    An item that is known is left out of its batch. So numbers may differ in their last bits. What needs a gradient is
    computed again.
    """
    other = copy.copy(model)

    def encode(image: torch.Tensor) -> torch.Tensor:
        (latent,) = memory.recall(image, ["encode"] * len(image), lambda rows: (model.encode(image[rows]),))
        return latent

    def decode(latent: torch.Tensor) -> torch.Tensor:
        (image,) = memory.recall(latent, ["decode"] * len(latent), lambda rows: (model.decode(latent[rows]),))
        return image

    def denoise(
        z: torch.Tensor, at: Timestep, conditions: Sequence[Condition], guidance: float = 1.0
    ) -> tuple[torch.Tensor, torch.Tensor]:
        latent, noise = memory.recall(
            z,
            [(at, condition, guidance) for condition in conditions],
            lambda rows: model.denoise(z[rows], at, [conditions[i] for i in rows], guidance),
        )
        return latent, noise

    for one in (encode, decode, denoise):
        setattr(other, one.__name__, one)
    return other
