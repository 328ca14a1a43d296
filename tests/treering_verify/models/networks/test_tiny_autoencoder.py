"""`AutoencoderTiny` as its author releases it: other names, other layers, any number of channels."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from helpers.models import pipelines
from safetensors.torch import load_file, save_file

import treering_verify as tv
from treering_verify.errors import ModelError

WEIGHTS = "diffusion_pytorch_model.safetensors"
CONFIG = {
    "_class_name": "AutoencoderTiny",
    "latent_channels": 5,
    "encoder_block_out_channels": [8, 8],
    "decoder_block_out_channels": [8, 8],
    "num_encoder_blocks": [1, 1],
    "num_decoder_blocks": [1, 1],
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return the folder of an autoencoder in the layout of diffusers, with random weights."""
    from diffusers import AutoencoderTiny

    with pipelines.seeded():
        AutoencoderTiny.from_config(CONFIG).save_pretrained(tmp_path)
    return tmp_path


def _released(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return weights under the author's names: no "layers", and the decoder's clamp is a layer."""
    found = {}
    for name, tensor in state.items():
        half, _, layer, rest = name.split(".", 3)
        found[f"{half}.{int(layer) + (half == 'decoder')}.{rest}"] = tensor
    return found


def test_the_authors_names_are_read_as_those_of_diffusers(folder: Path) -> None:
    image = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    expected = tv.load_model(folder, image_size=(32, 32))
    save_file(_released(load_file(folder / WEIGHTS)), folder / WEIGHTS)
    found = tv.load_model(folder, image_size=(32, 32))
    assert found.latent_shape == (5, 16, 16)
    latent = expected.encode(image)
    torch.testing.assert_close(found.encode(image), latent)
    torch.testing.assert_close(found.decode(latent), expected.decode(latent))


@pytest.mark.parametrize("released", [True, False])
def test_blocks_that_normalise_over_the_image_are_read(folder: Path, released: bool) -> None:
    plain, state = tv.load_model(folder, image_size=(32, 32)), load_file(folder / WEIGHTS)
    place = max(int(name.split(".")[2]) for name in state if name.startswith("encoder.") and ".conv." in name)
    draw = torch.Generator().manual_seed(1)
    widen, narrow = (0.3 * torch.randn(*shape, 1, 1, generator=draw) for shape in ((32, 8), (8, 32)))
    scale, shift = (torch.randn(32, generator=draw) for _ in range(2))
    pool = {"0.weight": widen, "1.weight": scale, "1.bias": shift, "3.weight": narrow}
    state |= {f"encoder.layers.{place}.pool.{name}": tensor for name, tensor in pool.items()}
    save_file(_released(state) if released else state, folder / WEIGHTS)
    found = tv.load_model(folder, image_size=(32, 32))
    image = torch.rand(2, 3, 32, 32, generator=draw) * 2 - 1

    # The same by hand: what enters the block is widened, normalised in four groups over the whole image, and added.
    layers = plain._vae.encoder.layers  # type: ignore[attr-defined]
    with torch.inference_mode():
        x = layers[:place]((image + 1) / 2)
        wide = torch.einsum("oc,bchw->bohw", widen[:, :, 0, 0], x).unflatten(1, (4, 8))
        mean, variance = (
            getattr(wide, name)(dim=(2, 3, 4), keepdim=True, **more)
            for name, more in (("mean", {}), ("var", {"unbiased": False}))
        )
        normal = ((wide - mean) / (variance + 1e-5).sqrt()).flatten(1, 2)
        active = (normal * scale[:, None, None] + shift[:, None, None]).relu()
        expected = layers[place:](x + torch.einsum("oc,bchw->bohw", narrow[:, :, 0, 0], active))
    torch.testing.assert_close(found.encode(image), expected)
    assert not torch.allclose(found.encode(image), plain.encode(image))


@pytest.mark.parametrize("what", ["a weight is missing", "another width"])
def test_weights_that_do_not_fit_are_refused(folder: Path, what: str) -> None:
    state = _released(load_file(folder / WEIGHTS))
    if what == "a weight is missing":
        del state["decoder.1.weight"]
    else:
        (folder / "config.json").write_text(json.dumps({**CONFIG, "latent_channels": 7}))
    save_file(state, folder / WEIGHTS)
    with pytest.raises(ModelError, match="cannot load"):
        tv.load_model(folder, image_size=(32, 32))
