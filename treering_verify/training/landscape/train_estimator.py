"""Recipe of the noise estimator and the screen: `python -m treering_verify.training.landscape.train_estimator --work DIR`.

The model generates images from noise N(0, I), which is the distribution of marked noise over keys. They are attacked,
rounded to 8 bits and inverted as suspect images are. The estimator learns to predict the noise from the points of the
inversion. No image is marked: all of the noise is normal, so all of it teaches what a key's part would. Inputs are computed
once, cached under the work folder in parts, and held in memory (about 66 kB each in float16).

`--part screen` trains the same kind of network for the screening pass, from the same images: its input is the encoder's
latent alone, as in use.
"""

from __future__ import annotations

import random
from pathlib import Path

import torch

from treering_verify.generation.generator import generate
from treering_verify.inversion import noise as noise_inversion
from treering_verify.inversion.decoder import invert
from treering_verify.inversion.noise import trajectory
from treering_verify.inversion.recovery import problem_of
from treering_verify.models import LatentModel, load_model
from treering_verify.models.networks.estimator import Estimator
from treering_verify.training.attack_table import drawn_attack
from treering_verify.training.band import band_error, band_weights
from treering_verify.training.example_store import ExampleStore
from treering_verify.training.examples import Examples, attacked
from treering_verify.training.landscape.recipe import STEPS, recipe_parser
from treering_verify.training.trainer import Trainer

IMAGES, COPIES, BATCH = 512, 3, 16
POINTS = (0, 1, 2, 4, 7, 10)  # of each example
_SEEDS = 13 << 32
_CHUNK = 16


# The inputs, among those of the examples, and the training steps.
PARTS = {"estimator": ("points", 2500), "screen": ("encoded", 1600)}


def examples(
    model: LatentModel, chunk: int, copies: int, points: tuple[int, ...], steps: int
) -> dict[str, torch.Tensor]:
    """Generate a chunk of images, each attacked `copies` times, and return the tensors to train on, all float16.

    Returns
    -------
    points : (n, len(points) C, h, w)
        Points of the noise inversion, after the default decoder inversion.
    encoded : (n, C, h, w)
        The encoder's latent, without decoder inversion.
    noise : (n, C, h, w)
        Initial noise of the images.
    """
    seeds = range(_SEEDS + chunk * _CHUNK, _SEEDS + (chunk + 1) * _CHUNK)
    made = Examples.of(
        generate(model, None, seeds=seeds, steps=STEPS, guidance=float(1 + chunk % 3), batch_size=_CHUNK)
    )
    noise = made.noise
    assert noise is not None
    passed: list[torch.Tensor] = []
    encoded: list[torch.Tensor] = []
    with torch.inference_mode():
        for copy in range(copies):
            draw = random.Random(chunk * copies + copy)
            suspect = attacked(made.images, [drawn_attack(draw) for _ in seeds], seeds[0])
            path = trajectory(model, invert(problem_of(model, suspect)).latent, steps=steps, most=points[-1])
            passed.append(torch.cat([path[point] for point in points], dim=1).half())
            encoded.append(model.encode(suspect).half())
    return {"points": torch.cat(passed), "encoded": torch.cat(encoded), "noise": noise.half().repeat(copies, 1, 1, 1)}


def train(
    model: LatentModel,
    work: Path,
    name: str = "estimator",
    *,
    count: int = IMAGES,
    copies: int = COPIES,
    steps: int | None = None,
    batch: int = BATCH,
    points: tuple[int, ...] = POINTS,
    width: int = 32,
    blocks: int = 4,
) -> Estimator:
    """Train one of `PARTS`, or resume its training, and return the EMA."""
    (read, usual), grid = PARTS[name], noise_inversion.DEFAULT_STEPS
    parts = ExampleStore(work / "estimator-examples").parts(
        count // _CHUNK, lambda chunk: examples(model, chunk, copies, points, grid)
    )
    data = {name: torch.cat([part[name] for part in parts]) for name in (read, "noise")}
    torch.manual_seed(4)
    estimator = Estimator(model.latent_shape[0], grid, points if name == "estimator" else points[:1], width, blocks)
    estimator.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # which torch's types do not know
    trainer = Trainer(name, estimator, work, steps=steps or usual, peak=1e-3, decay=0.01)
    weights = band_weights(*model.latent_shape[1:])

    def loss_of(step: int) -> dict[str, torch.Tensor]:
        generator = torch.Generator().manual_seed(step)
        pick = torch.randint(0, len(data["noise"]), (batch,), generator=generator)
        inputs, noise = data[read][pick].float(), data["noise"][pick].float()
        if step % 2:  # mirrored images have, nearly, mirrored noise
            inputs, noise = inputs.flip(-1), noise.flip(-1)
        return {"loss": band_error(estimator.estimate(inputs), noise, weights).mean()}

    trainer.run(loss_of)
    return estimator


def main(argv: list[str] | None = None) -> None:
    """Train a part and export it as float16 safetensors."""
    parser = recipe_parser(__doc__, "examples and checkpoints", "PART")
    parser.add_argument("--part", choices=sorted(PARTS), default="estimator")
    parser.add_argument("--images", type=int, default=IMAGES)
    parser.add_argument("--steps", type=int, help="steps of training; default: 2500, or 1600 for the screen")
    options = parser.parse_args(argv)
    torch.set_num_threads(options.threads)
    model = load_model(options.model)
    estimator = train(model, options.work, options.part, count=options.images, steps=options.steps)
    estimator.half().save((options.output or options.work) / options.part)


if __name__ == "__main__":
    main()
