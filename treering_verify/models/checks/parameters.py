"""Compare the networks that configurations ask for with the weights that are there, before memory is reserved."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import chain
from typing import TYPE_CHECKING

from treering_verify.errors import ModelError

if TYPE_CHECKING:
    import torch

_FACTOR, _SLACK = 2, 2**22  # tied weights are stored once; tables of positions are computed, not stored


def check_parameters(build: Callable[[], torch.nn.Module], held: Iterable[int], where: str) -> None:
    """Check that a network has about as many numbers as its weights.

    Parameters
    ----------
    build : callable
        Makes the network. It is called where tensors take no memory.
    held : iterable of int
        How many numbers each set of weights has.
    where : str
        Printable name of the network's configuration, for messages.

    Raises
    ------
    ModelError
        If the network has more than twice as many numbers, or fewer than half. 4 million numbers are always allowed.
    """
    import torch

    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        network = build()
    asked = sum(tensor.numel() for tensor in chain(network.parameters(), network.buffers()))
    for numbers in held:
        if asked > _FACTOR * numbers + _SLACK or numbers > _FACTOR * asked + _SLACK:
            raise ModelError(
                f"{where} asks for a network of {asked} numbers, and its weights have {numbers}: they do not belong "
                "together; fetch or export the folder again"
            )
