"""The diffusion network of `landscape-sd`: a U-Net that reads prompts by cross-attention, trained by v-prediction."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextModel

from treering_verify.training.example_store import ExampleStore
from treering_verify.training.landscape.recipe import autocast
from treering_verify.training.landscape.train import build_scheduler, detail_times, draw_times, latent_scale
from treering_verify.training.landscape_sd.captions import captions
from treering_verify.training.landscape_sd.scenes import SIZE, render
from treering_verify.training.landscape_sd.text import WIDTH, build_tokenizer, tokens
from treering_verify.training.trainer import Trainer

DROPPED = 0.12  # share of captions that are replaced by the empty prompt, from which guidance extrapolates
_SHARD = 250  # scenes in one file of the cache
_HELD_OUT = 64
_ENCODED = 10  # scenes at once
_SCENES_FROM = 10_000_000  # scenes of the diffusion network start at this index of a stream
_DETAIL_FROM = 0.4  # of the steps: from then on most times are those at which detail forms


class Latents(NamedTuple):
    """Posteriors of scenes, float16: `moments` (N, 8, h, w), mean and log-variance; and their `attributes`."""

    moments: torch.Tensor
    attributes: torch.Tensor


def build_unet() -> UNet2DConditionModel:
    """Return an untrained U-Net of 5.5 M parameters on (B, 4, 32, 32) latents and (B, tokens, WIDTH) states."""
    return UNet2DConditionModel(
        sample_size=SIZE // 8,
        block_out_channels=(64, 96, 128),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        cross_attention_dim=WIDTH,
        attention_head_dim=4,  # in this class the number of heads
        norm_num_groups=16,
    )


@torch.no_grad()
def cache_latents(autoencoder: AutoencoderKL, work: Path, stream: str, scenes: int) -> Latents:
    """Return posteriors of `scenes` scenes of a stream, cached under the work folder in files of `_SHARD`."""

    def compute(first: int, count: int) -> dict[str, torch.Tensor]:
        moments, attributes = [], []
        for start in range(first, first + count, _ENCODED):
            images, rows = render(min(_ENCODED, first + count - start), stream=stream, index=_SCENES_FROM + start)
            with autocast():
                posterior = autoencoder.encode(images * 2 - 1).latent_dist
            moments.append(torch.cat([posterior.mean, posterior.logvar], dim=1).half())
            attributes.append(rows)
        print(f"latents of {stream} {first + count}/{scenes}", flush=True)
        return {"moments": torch.cat(moments), "attributes": torch.cat(attributes)}

    parts, store = [], ExampleStore(work / "latents")
    for first in range(0, scenes, _SHARD):
        count = min(_SHARD, scenes - first)
        parts.append(store.get(f"{stream}-{first:06d}-{count}", partial(compute, first, count)))
    return Latents(*(torch.cat([part[name] for part in parts]) for name in Latents._fields))


def scale_of(latents: Latents) -> float:
    """Return the factor that gives the latents unit standard deviation."""
    return latent_scale({"moments": latents.moments})


class DiffusionData:
    """Batches for the diffusion network: noisy latents, times, states of captions, and the velocity.

    Parameters
    ----------
    latents : Latents
    encoder : CLIPTextModel
        Fixed.
    scale : float
        Scale of the latents.
    """

    def __init__(self, latents: Latents, encoder: CLIPTextModel, scale: float) -> None:
        self.latents, self.encoder, self.scale = latents, encoder, scale
        self.tokenizer = build_tokenizer()
        self.alphas = build_scheduler().alphas_cumprod

    def batch(self, count: int, g: torch.Generator, *, detail: bool, ordered: bool = False) -> dict[str, torch.Tensor]:
        """Return `count` rows; the first ones of the latents if `ordered`, else random ones, some without caption."""
        number = len(self.latents.attributes)
        pick = torch.arange(count) % number if ordered else torch.randint(0, number, (count,), generator=g)
        mean, logvar = self.latents.moments[pick].float().chunk(2, dim=1)
        z = (mean + torch.exp(0.5 * logvar) * torch.randn(mean.shape, generator=g)) * self.scale
        prompts = captions(self.latents.attributes[pick], g)
        dropped = (torch.rand(count, generator=g) < (0.0 if ordered else DROPPED)).tolist()
        prompts = ["" if drop else prompt for prompt, drop in zip(prompts, dropped, strict=True)]
        uniform = draw_times(count, g)
        t = ((detail_times(uniform) if detail else uniform) * len(self.alphas)).long()
        a = self.alphas[t].view(-1, 1, 1, 1)
        noise = torch.randn(z.shape, generator=g)
        with torch.no_grad():
            states = self.encoder(input_ids=tokens(self.tokenizer, prompts)).last_hidden_state
        noisy, velocity = a.sqrt() * z + (1 - a).sqrt() * noise, a.sqrt() * noise - (1 - a).sqrt() * z
        return {"noisy": noisy, "times": t, "states": states, "velocity": velocity}


def velocity_loss(unet: Any, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the mean squared error of the velocity (Salimans and Ho, arXiv 2202.00512)."""
    with autocast():
        noisy = batch["noisy"].contiguous(memory_format=torch.channels_last)
        predicted = unet(noisy, batch["times"], encoder_hidden_states=batch["states"]).sample
    return {"loss": F.mse_loss(predicted.float(), batch["velocity"])}


def train_diffusion(
    train: DiffusionData, test: DiffusionData, work: Path, *, steps: int, batch: int
) -> UNet2DConditionModel:
    """Train the U-Net, or resume, and return the EMA; `test` gives the held-out loss, at times spread evenly."""
    torch.manual_seed(1)
    model = build_unet().to(memory_format=torch.channels_last)
    trainer = Trainer("diffusion", model, work, steps=steps, peak=5e-4, decay=0.01)
    judged = test.batch(_HELD_OUT, torch.Generator().manual_seed(0), detail=False, ordered=True)

    def loss_of(step: int) -> dict[str, torch.Tensor]:
        g = torch.Generator().manual_seed(_SCENES_FROM + step)
        return velocity_loss(trainer.model, train.batch(batch, g, detail=step >= _DETAIL_FROM * steps))

    trainer.run(loss_of, held_out=lambda unet: velocity_loss(unet, judged))
    return trainer.model
