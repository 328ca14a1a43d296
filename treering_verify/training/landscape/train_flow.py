"""Recipe of a flow-matching model: `python -m treering_verify.training.landscape.train_flow --work DIR`.

A second diffusion network on the landscape autoencoder, of the same size as the first; the package does not contain it. It
starts from the weights of the first and learns the velocity noise - z_0 of straight paths (rectified flow, Liu et al., arXiv
2209.03003, eq. 1), on the same scenes. `--reflow` continues from it: pairs of noise and the latent that twenty steps make of
it are joined by straight lines (section 2.2 of that paper), and half of each batch is at the noisy end, so that one step
suffices.

Both are written as folders in the diffusers layout, `flow` and `reflow`, that `--model` of every command takes:
`UNet2DModel`, `FlowMatchEulerDiscreteScheduler` and the unchanged autoencoder. They have neither refiner nor estimator.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, UNet2DModel

from treering_verify.models import landscape
from treering_verify.models.class_conditional import ClassConditionalModel
from treering_verify.models.sampling import denoise
from treering_verify.training.example_store import ExampleStore
from treering_verify.training.landscape.recipe import autocast, export_pipeline, recipe_parser
from treering_verify.training.landscape.scenes import CLASSES
from treering_verify.training.landscape.train import cache_posteriors, draw_latents, draw_times, drop_labels
from treering_verify.training.trainer import Trainer

SCENES, STEPS, BATCH = 3200, 800, 16
PAIRS, REFLOW_STEPS, PAIR_STEPS = 640, 400, 20
_TIMES = 1000
_FROM = 3_000_000  # seeds of the noise start here, those of the pairs at the next million
_PAIRS_FROM = 4_000_000
_PAIR_BATCH = 64
_FROM_THE_NOISE = 0.5  # share of a reflow batch


def build_flow_scheduler() -> FlowMatchEulerDiscreteScheduler:
    """Return a scheduler whose sigma falls linearly from 1 to 0; the network's input is 1000 sigma."""
    return FlowMatchEulerDiscreteScheduler(num_train_timesteps=_TIMES, shift=1.0)


def velocity_error(
    unet: UNet2DModel, z: torch.Tensor, noise: torch.Tensor, t: torch.Tensor, label: torch.Tensor
) -> dict[str, torch.Tensor]:
    """Return the mean squared error of the velocity noise - z at (1 - t) z + t noise, for t (B,) in [0, 1]."""
    share = t.view(-1, 1, 1, 1)
    with autocast():
        velocity = unet((1 - share) * z + share * noise, t * _TIMES, class_labels=label).sample
    return {"loss": F.mse_loss(velocity.float(), noise - z)}


def train_velocity(
    unet: UNet2DModel, cache: dict[str, torch.Tensor], scale: float, work: Path, *, steps: int, batch: int
) -> UNet2DModel:
    """Train the velocity, or resume, starting from a diffusion network's weights; return the EMA."""

    def loss_of(step: int) -> dict[str, torch.Tensor]:
        g = torch.Generator().manual_seed(_FROM + step)
        z, label = draw_latents(cache, scale, batch, g)
        return velocity_error(trainer.model, z, torch.randn(z.shape, generator=g), draw_times(batch, g), label)

    trainer = _trainer("flow", unet, work, steps)
    trainer.run(loss_of)
    return trainer.model


def cache_pairs(model: ClassConditionalModel, work: Path, pairs: int) -> dict[str, torch.Tensor]:
    """Return noise, the latents that `PAIR_STEPS` steps make of it, and labels; float16, cached under the work folder."""

    @torch.no_grad()
    def compute() -> dict[str, torch.Tensor]:
        noises, latents = [], []
        labels = torch.arange(pairs) % len(CLASSES)
        for first, part in enumerate(labels.split(_PAIR_BATCH)):
            generator = torch.Generator().manual_seed(_PAIRS_FROM + first)
            noise = torch.randn((len(part), *model.latent_shape), generator=generator)
            names = [CLASSES[i] for i in part.tolist()]
            noises.append(noise.half())
            latents.append(denoise(model, noise, steps=PAIR_STEPS, conditions=names).half())
            print(f"pairs {first * _PAIR_BATCH + len(part)}/{pairs}", flush=True)
        return {"noise": torch.cat(noises), "latent": torch.cat(latents), "labels": labels}

    return ExampleStore(work).get("pairs", compute)


def train_reflow(
    unet: UNet2DModel, pairs: dict[str, torch.Tensor], work: Path, *, steps: int, batch: int
) -> UNet2DModel:
    """Train the velocity between the two ends of pairs, or resume; return the EMA."""

    def loss_of(step: int) -> dict[str, torch.Tensor]:
        g = torch.Generator().manual_seed(_FROM + step)
        pick = torch.randint(0, len(pairs["labels"]), (batch,), generator=g)
        t = torch.where(torch.rand(batch, generator=g) < _FROM_THE_NOISE, 1.0, draw_times(batch, g))
        noise, latent = pairs["noise"][pick].float(), pairs["latent"][pick].float()
        return velocity_error(trainer.model, latent, noise, t, drop_labels(pairs["labels"][pick], g))

    trainer = _trainer("reflow", unet, work, steps)
    trainer.run(loss_of)
    return trainer.model


def _trainer(name: str, unet: UNet2DModel, work: Path, steps: int) -> Trainer:
    begun = copy.deepcopy(unet).requires_grad_(True).to(memory_format=torch.channels_last)
    return Trainer(name, begun, work, steps=steps, peak=3e-4, decay=0.01)


def wrap(name: str, vae: AutoencoderKL, unet: UNet2DModel) -> ClassConditionalModel:
    """Return the model of a trained network, as `load_model` returns it from the folder."""
    return ClassConditionalModel(name, vae, unet.requires_grad_(False), build_flow_scheduler(), CLASSES)


def export(vae: AutoencoderKL, unet: UNet2DModel, output: Path) -> None:
    """Write weights and configurations as diffusers reads them (float16 safetensors)."""
    parts = {"scheduler": build_flow_scheduler(), "unet": unet, "vae": vae}
    export_pipeline("LandscapeFlowPipeline", parts, output)


def _read(kind: Any, folder: Path, part: str) -> Any:
    network = kind.from_pretrained(folder, subfolder=part, use_safetensors=True, local_files_only=True)
    return network.float().eval().requires_grad_(False)


def main(argv: list[str] | None = None) -> None:
    """Train the flow, and its reflow with `--reflow`, and export them."""
    parser = recipe_parser(__doc__, "checkpoints, caches, and of the folders flow and reflow")
    parser.add_argument(
        "--model", type=Path, default=Path(landscape.__file__).parent, help="folder of the model to start from"
    )
    parser.add_argument("--scenes", type=int, default=SCENES)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--reflow", action="store_true", help="also train the one-step model")
    parser.add_argument("--pairs", type=int, default=PAIRS)
    parser.add_argument("--reflow-steps", type=int, default=REFLOW_STEPS)
    options = parser.parse_args(argv)
    torch.set_num_threads(options.threads)
    work: Path = options.work
    vae, unet = _read(AutoencoderKL, options.model, "vae"), _read(UNet2DModel, options.model, "unet")
    cache = cache_posteriors(vae, work, options.scenes)
    flow = train_velocity(unet, cache, vae.config.scaling_factor, work, steps=options.steps, batch=BATCH)
    export(vae, flow, work / "flow")
    if options.reflow:
        pairs = cache_pairs(wrap("flow", vae, flow), work, options.pairs)
        export(vae, train_reflow(flow, pairs, work, steps=options.reflow_steps, batch=BATCH), work / "reflow")


if __name__ == "__main__":
    main()
