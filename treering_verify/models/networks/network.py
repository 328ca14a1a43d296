"""What the toolkit's own networks share: a configuration, and files in the layout of diffusers (config.json, safetensors).

They are plain modules of torch: importing diffusers costs more time than importing torch and loading the embedded model.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

import torch

from treering_verify.models.networks.config import Config

CONFIG, WEIGHTS = "config.json", "diffusion_pytorch_model.safetensors"


class Network(torch.nn.Module):
    """A module that knows its configuration, and is written to and read from a folder.

    Parameters
    ----------
    **config
        What the subclass was made of; `load` calls it with these again.
    """

    def __init__(self, **config: Any) -> None:
        super().__init__()
        self.config = Config(config)

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        return next(self.parameters()).device

    def save(self, folder: Path) -> None:
        """Write config.json and the weights, as precise as they are, to a folder; diffusers uses the same layout."""
        from safetensors.torch import save_file

        folder.mkdir(parents=True, exist_ok=True)
        self.config.write(folder / CONFIG, type(self).__name__)
        save_file({name: tensor.contiguous() for name, tensor in self.state_dict().items()}, folder / WEIGHTS)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read a network from a folder, as float32, on the processor.

        Raises
        ------
        OSError, ValueError, TypeError, RuntimeError
            If files are missing or damaged, or the configuration is none of this network's, or the weights do not fit it.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        with torch.random.fork_rng(devices=[]):  # first weights are drawn at random and overwritten; on the meta device
            network = cls(**Config.read(folder / CONFIG))  # they would cost the import of torch._dynamo, a second
        try:
            weights = load_file(folder / WEIGHTS)
        except SafetensorError as error:
            raise ValueError(f"the weights of {folder.name} are damaged: {error}") from error
        if {name: tensor.shape for name, tensor in weights.items()} != {
            name: tensor.shape for name, tensor in network.state_dict().items()
        }:
            raise ValueError(f"the weights of {folder.name} do not fit its {CONFIG}")
        network.load_state_dict(weights)
        return network
