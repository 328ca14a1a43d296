"""Recipe of the restorer of over-exposed images: `python -m treering_verify.training.landscape.train_restorer --work DIR`.

The model generates images, which are brightened as `attacks` does it and cut off at white. The first network learns the
latent of the image before that, from these and from scenes that the autoencoder has coded, which cost less; the second
learns the noise, from the noise inversion of the image that the first has completed. No image is marked, and no key is
read. Images and examples are computed once and cached under the work folder.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from treering_verify.attacks import ATTACKS
from treering_verify.generation.generator import generate
from treering_verify.inversion.brightness import clipped_values, divided
from treering_verify.inversion.noise import trajectory
from treering_verify.inversion.over_exposure import complete
from treering_verify.inversion.recovery import InversionOptions, recover_latent
from treering_verify.media.conversion import to_pil, to_tensor
from treering_verify.models import LatentModel, load_model
from treering_verify.models.networks.correction import Correction
from treering_verify.models.restorer import STEPS, Restorer, latent_inputs, mirrored, noise_inputs
from treering_verify.training.band import band_error, band_weights
from treering_verify.training.example_store import ExampleStore
from treering_verify.training.examples import Examples
from treering_verify.training.landscape.recipe import autocast, recipe_parser
from treering_verify.training.landscape.scenes import render
from treering_verify.training.trainer import Trainer

IMAGES, SCENES, BATCH = 960, 640, 16
_FEWER = 320  # of the images, that the first network learns from: the scenes are more of the same
_COPIES = {"images": 3, "scenes": 2}  # how often each is brightened for the first network
_DRAWS = 2  # how often each image is brightened for the second network
_FAR = 100_000  # between the seeds of these draws
_SEEDS = 9_000_064
_CHUNK = 32
_STEPS, _GUIDANCE = 12, 2.0  # of the generation
_FACTORS, _MILDER = (1.1, 7.0), (1.1, 2.5)
_MOST_WHITE = 0.97  # share of white pixels from which on a milder factor is drawn
_SIZES = {"latent": (48, 5, 1700), "noise": (32, 4, 3200)}  # width, blocks, training steps
_FIRST_SCENES = 1_000_000  # index of the batch

Tensors = dict[str, torch.Tensor]


def generated(model: LatentModel, chunk: int) -> Tensors:
    """Return noise, latents and images (uint8) of a chunk."""
    seeds = range(_SEEDS + chunk * _CHUNK, _SEEDS + (chunk + 1) * _CHUNK)
    made = Examples.of(generate(model, None, seeds=seeds, steps=_STEPS, guidance=_GUIDANCE, batch_size=_CHUNK))
    assert made.noise is not None
    image = _levels(torch.cat([to_tensor(one) for one in made.images]))
    return {"noise": made.noise.half(), "latent": made.latents.half(), "image": image}


def _levels(image: torch.Tensor) -> torch.Tensor:
    return ((image.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def coded(model: LatentModel, chunk: int) -> Tensors:
    """Return latents of scenes and their images (uint8), a chunk."""
    pixels, _ = render(_CHUNK, index=_FIRST_SCENES + chunk, size=model.image_size[0])
    with torch.inference_mode():
        latent = model.encode(2 * pixels - 1)
        return {"latent": latent.half(), "image": _levels(model.decode(latent))}


def brightened(image: torch.Tensor, draw: random.Random) -> tuple[torch.Tensor, float]:
    """Brighten an image (3, H, W) of levels by a drawn factor; return (1, 3, H, W) in [-1, 1] and the factor."""
    source, factor, attacked = to_pil(image / 127.5 - 1), 1.0, torch.empty(0)
    for span in (_FACTORS, _MILDER):
        factor = draw.uniform(*span)
        attacked = to_tensor(ATTACKS["brightness"](source, factor=factor))
        if clipped_values(attacked).all(dim=1).float().mean() < _MOST_WHITE:
            break
    return attacked, factor


def latent_examples(model: LatentModel, made: Tensors, copies: int, chunk: int) -> Tensors:
    """Return what the latent network reads, E of it, and the clean latent, float16."""
    parts: dict[str, list[torch.Tensor]] = {"read": [], "start": [], "latent": []}
    draw, cell = random.Random(chunk), model.image_size[0] // model.latent_shape[1]
    for number in [*range(len(made["image"]))] * copies:
        attacked, factor = brightened(made["image"][number], draw)
        clipped, told = clipped_values(attacked), torch.tensor([factor])
        least = divided(attacked, told, clipped)
        with torch.inference_mode():
            parts["start"].append(model.encode(least).half().clone())
        parts["read"].append(latent_inputs(least, clipped, told, cell).half())
        parts["latent"].append(made["latent"][number : number + 1])
    return {name: torch.cat(some) for name, some in parts.items()}


def noise_examples(model: LatentModel, restorer: Restorer, made: Tensors, chunk: int, turn: int = 0) -> Tensors:
    """Return what the noise network reads, and the model's own estimate, float16; one example of each image, a turn."""
    parts: dict[str, list[torch.Tensor]] = {"read": [], "estimate": []}
    draw, batch = random.Random(-1 - chunk - _FAR * turn), 8
    for first in range(0, len(made["image"]), batch):
        some = [brightened(image, draw) for image in made["image"][first : first + batch]]
        attacked, factors = torch.cat([one for one, _ in some]), [factor for _, factor in some]
        with torch.inference_mode():
            completed, known = complete(model, restorer, attacked, factors)
            points = trajectory(model, recover_latent(model, completed, InversionOptions()).latent, steps=STEPS)
            estimate = points[-1] if model.estimate is None else model.estimate(points)
            parts["read"].append(noise_inputs(points, known).half().clone())
            parts["estimate"].append(estimate.half().clone())
    return {name: torch.cat(some) for name, some in parts.items()}


def train(name: str, work: Path, read: torch.Tensor, estimate: torch.Tensor, target: torch.Tensor) -> Correction:
    """Train one of the two networks, or resume its training, and return the average of its weights."""
    width, blocks, steps = _SIZES[name]
    torch.manual_seed(4)
    network = Correction(read.shape[1], target.shape[1], width, blocks)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # which torch's types do not know
    trainer = Trainer(name, network, work, steps=steps, peak=2e-3, decay=0.01)
    weights = band_weights(*target.shape[2:])

    def loss_of(step: int) -> Tensors:
        pick = torch.randint(0, len(read), (BATCH,), generator=torch.Generator().manual_seed(step))
        known, base, wanted = (part[pick].float() for part in (read, estimate, target))
        if step % 2:  # mirrored images have, nearly, mirrored latents and mirrored noise
            known, base, wanted = mirrored(known), base.flip(-1), wanted.flip(-1)
        with autocast():
            found = network(known.contiguous(memory_format=torch.channels_last), base)
        if name == "latent":
            return {"loss": (base + found.float() - wanted).square().mean()}
        return {"loss": band_error(base + found.float(), wanted, weights).mean()}

    trainer.run(loss_of)
    return network


def make(model: LatentModel, work: Path, images: int = IMAGES, scenes: int = SCENES) -> Restorer:
    """Train both networks, from what is cached under the work folder where it is."""

    def cached(kind: str, count: int, compute: Callable[[int], Tensors]) -> list[Tensors]:
        return ExampleStore(work / kind).parts(count // _CHUNK, compute)

    made = cached("images", images, partial(generated, model))
    parts, fewer = [], min(images, _FEWER)
    for kind, count, some in (
        ("images", fewer, made),
        ("scenes", scenes, cached("scenes", scenes, partial(coded, model))),
    ):

        def compute(chunk: int, some: list[Tensors] = some, copies: int = _COPIES[kind]) -> Tensors:
            return latent_examples(model, some[chunk], copies, chunk)

        parts += cached(f"latent-examples-{kind}", count, compute)
    latent = train("latent", work, *(torch.cat([part[name] for part in parts]) for name in ("read", "start", "latent")))
    half = Restorer.of(latent, latent)
    parts = []
    for turn in range(_DRAWS):

        def compute_noise(chunk: int, turn: int = turn) -> Tensors:
            return noise_examples(model, half, made[chunk], chunk, turn)

        parts += cached(f"noise-examples-{turn}", images, compute_noise)
    read, estimate = (torch.cat([part[name] for part in parts]) for name in ("read", "estimate"))
    noise = train("noise", work, read, estimate, torch.cat([one["noise"] for one in made] * _DRAWS))
    return Restorer.of(latent, noise)


def main(argv: list[str] | None = None) -> None:
    """Train both networks and export them as float16 safetensors."""
    parser = recipe_parser(__doc__, "images, examples and checkpoints", "restorer_*")
    parser.add_argument("--images", type=int, default=IMAGES)
    parser.add_argument("--scenes", type=int, default=SCENES)
    options = parser.parse_args(argv)
    torch.set_num_threads(options.threads)
    model = load_model(options.model)
    make(model, options.work, options.images, options.scenes).save(options.output or options.work)


if __name__ == "__main__":
    main()
