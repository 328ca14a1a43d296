"""Recipe of the held-out autoencoder: `python -m treering_verify.training.landscape.train_tiny --work DIR`.

An `AutoencoderTiny` whose encoder and decoder are trained separately, on the same pairs (latent, scene) of the model's own
autoencoder: the encoder predicts the latent of a scene, the decoder the scene of a latent. So E is not trained to be the
inverse of D, and no setting that was tuned on the model's own autoencoder was tuned on this one.

The pairs are computed once and cached under the work folder (about 58 kB each).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from diffusers import AutoencoderTiny

from treering_verify.models import LatentModel, load_model
from treering_verify.training.example_store import ExampleStore
from treering_verify.training.landscape.recipe import pixel_loss, psnr, recipe_parser
from treering_verify.training.landscape.scenes import render
from treering_verify.training.trainer import Trainer

SCENES, BATCH = 3200, 4
ENCODER_STEPS, DECODER_STEPS = 2400, 2000
SCALE = 4.0  # latents reach 18, and the decoder begins with 3 tanh(x / 3), which a fourth of them passes
_FIRST = 30_000_000  # scenes of this autoencoder start at this index of the training stream
_CHUNK = 40


def build_tiny(encoder_width: int = 24, decoder_width: int = 24) -> AutoencoderTiny:
    """Return an untrained autoencoder, (B, 3, 128, 128) <-> (B, 4, 32, 32), with 0.12 M parameters in each half."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = AutoencoderTiny(
            latent_channels=4,
            encoder_block_out_channels=(encoder_width,) * 3,
            decoder_block_out_channels=(decoder_width,) * 3,
            num_encoder_blocks=(1, 2, 4),
            num_decoder_blocks=(3, 3, 1),
            scaling_factor=SCALE,
        )
    return model.to(memory_format=torch.channels_last)


@torch.no_grad()
def cache_pairs(model: LatentModel, work: Path, scenes: int) -> dict[str, torch.Tensor]:
    """Return scenes (n, 3, H, W) uint8 and their latents (n, C, h, w) float16, as the diffusion model sees them."""

    def compute() -> dict[str, torch.Tensor]:
        images, latents = [], []
        for i in range(-(-scenes // _CHUNK)):
            count = min(_CHUNK, scenes - i * _CHUNK)
            image = (render(count, stream="train", index=_FIRST + i)[0] * 255).round().byte()
            images.append(image)
            latents.append(model.encode(_pixels(image)).half())
            if i % 10 == 0:
                print(f"pairs {i * _CHUNK}/{scenes}", flush=True)
        return {"images": torch.cat(images), "latents": torch.cat(latents)}

    return ExampleStore(work).get(f"pairs-{scenes}", compute)


def _pixels(image: torch.Tensor) -> torch.Tensor:
    """Return bytes as float32 in [-1, 1]."""
    return image.float() / 127.5 - 1


def _pick(pairs: dict[str, torch.Tensor], step: int, batch: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the images and latents of one training step, drawn from its number."""
    chosen = torch.randint(0, len(pairs["images"]), (batch,), generator=torch.Generator().manual_seed(step))
    image = _pixels(pairs["images"][chosen]).contiguous(memory_format=torch.channels_last)
    return image, pairs["latents"][chosen].float()


def train_encoder(tiny: AutoencoderTiny, pairs: dict[str, torch.Tensor], work: Path, *, steps: int, batch: int) -> None:
    """Train the encoder alone, or resume, on the squared error of the latents; its weights become the EMA."""
    scale, power = tiny.config.scaling_factor, float(pairs["latents"].float().pow(2).mean())

    def loss_of(step: int) -> dict[str, torch.Tensor]:
        image, latent = _pick(pairs, step, batch)
        loss = (tiny.encoder(image) * scale - latent).pow(2).mean() / power
        return {"loss": loss, "db": 10 * torch.log10(loss.detach())}

    _train("tiny-encoder", tiny.encoder, work, steps, loss_of)


def train_decoder(tiny: AutoencoderTiny, pairs: dict[str, torch.Tensor], work: Path, *, steps: int, batch: int) -> None:
    """Train the decoder alone, or resume, on the pixels; its weights become the EMA."""
    scale = tiny.config.scaling_factor

    def loss_of(step: int) -> dict[str, torch.Tensor]:
        image, latent = _pick(pairs, step, batch)
        error = tiny.decoder(latent / scale) - image
        return {"loss": pixel_loss(error), "psnr": psnr(error)}

    _train("tiny-decoder", tiny.decoder, work, steps, loss_of)


def _train(
    name: str, half: torch.nn.Module, work: Path, steps: int, loss_of: Callable[[int], dict[str, torch.Tensor]]
) -> None:
    # The trainer holds this half only: its optimiser, EMA and checkpoint cannot reach the other.
    Trainer(name, half, work, steps=steps, peak=1e-3, decay=0.0).run(loss_of)


def train(
    model: LatentModel, work: Path, tiny: AutoencoderTiny, *, scenes: int, encoder: int, decoder: int, batch: int
) -> AutoencoderTiny:
    """Train both halves of `tiny`, one after the other, for `encoder` and `decoder` steps; return it."""
    pairs = cache_pairs(model, work, scenes)
    train_encoder(tiny, pairs, work, steps=encoder, batch=batch)
    train_decoder(tiny, pairs, work, steps=decoder, batch=batch)
    return tiny.eval()


def main(argv: list[str] | None = None) -> None:
    """Train the held-out autoencoder and export it as float16 safetensors."""
    parser = recipe_parser(__doc__, "checkpoints and pairs", "tiny")
    parser.add_argument("--scenes", type=int, default=SCENES)
    parser.add_argument("--encoder-steps", type=int, default=ENCODER_STEPS)
    parser.add_argument("--decoder-steps", type=int, default=DECODER_STEPS)
    options = parser.parse_args(argv)
    torch.set_num_threads(options.threads)
    tiny = train(
        load_model(options.model),
        options.work,
        build_tiny(),
        scenes=options.scenes,
        encoder=options.encoder_steps,
        decoder=options.decoder_steps,
        batch=BATCH,
    )
    tiny.half().save_pretrained((options.output or options.work) / "tiny")


if __name__ == "__main__":
    main()
