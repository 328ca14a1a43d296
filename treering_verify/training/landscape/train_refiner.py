"""Recipe of the refiner: `python -m treering_verify.training.landscape.train_refiner --work DIR`.

Latents are decoded, attacked and brought to 8 bits, as suspect images are; the refiner learns to say what a forward step
leaves to be done. First round: latents of training scenes, at z = E(x). Second round: latents that the diffusion part
generates (every fourth batch: scenes), also at the point that the refiner reaches itself. The others: the same, and
the refiner is shown what the diffusion part's denoiser makes of z. The images' inputs are computed once per round and
kept in memory (about 240 kB each in float16).
"""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from treering_verify.attacks import Attack
from treering_verify.generation.generator import initial_noise
from treering_verify.media.images import to_pil, to_tensor
from treering_verify.models import LatentModel, load_model
from treering_verify.models.class_conditional import ClassConditionalModel
from treering_verify.models.networks.refiner import Refiner, features
from treering_verify.models.sampling import denoise
from treering_verify.training.landscape.scenes import render
from treering_verify.training.landscape.train import Trainer, recipe_parser

BATCH = 32
LEVELS = (21, 81)  # of 1000: noise of .14 and .30 of the signal
_FIRST = 20_000_000  # scenes of the refiner start at this index of the training stream
_SEEDS = 11 << 32  # and of the generated latents, whose noise is N(0, I), as marked noise is over keys
_STEPS = 20
_CHUNK = 16


@dataclass(frozen=True)
class Round:
    """Latents, images made of each, training steps, steps of the refiner's own path, and whether the denoiser is shown."""

    latents: int
    steps: int
    copies: int = 1
    path: int = 0
    guided: bool = False


ROUNDS = (
    Round(3200, 600),
    Round(1024, 800, path=1),
    Round(640, 1000, copies=2, path=1, guided=True),
    Round(512, 800, copies=4, path=1, guided=True),
    Round(384, 500, copies=4, path=1, guided=True),
)


def draw_attack(generator: random.Random) -> Attack | None:
    """Draw a distortion: none for a third of the images, a codec for another, the rest by chance."""
    roll = generator.random()
    if roll < 0.35:
        return None
    if roll < 0.65:
        return Attack("jpeg", {"quality": 10 + int(85 * generator.random() ** 1.5)})  # half of them below 40
    if roll < 0.72:
        return Attack("webp", {"quality": generator.randint(10, 90)})
    if roll < 0.82:
        return Attack("noise", {"sigma": generator.uniform(0.01, 0.1)})
    if roll < 0.90:
        return Attack("blur", {"radius": generator.uniform(0.5, 3.0)})
    if roll < 0.96:
        return Attack("resize", {"share": generator.uniform(0.4, 0.9)})
    return Attack("brightness", {"factor": generator.uniform(0.6, 1.5)})


def _scenes(model: LatentModel, index: int) -> torch.Tensor:
    """Return latents of training scenes."""
    return model.encode(render(_CHUNK, stream="train", index=index)[0] * 2 - 1)


def _generated(model: LatentModel, index: int) -> torch.Tensor:
    """Return latents that the model generates, all classes in turn, guidance 1 to 3."""
    seeds = range(_SEEDS + index * _CHUNK, _SEEDS + (index + 1) * _CHUNK)
    conditions = [model.classes[s % len(model.classes)] for s in seeds]
    noise = initial_noise(model.latent_shape, seeds)
    return denoise(model, noise, steps=_STEPS, conditions=conditions, guidance=float(1 + index % 3))


def images(model: LatentModel, plan: Round, first: int = 0) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield chunks of (latents, attacked images): of training scenes; after the first round three in four are generated."""
    for chunk in range(plan.latents // _CHUNK):
        index = _FIRST + first + chunk
        with torch.inference_mode():
            latent = _generated(model, index) if plan.path and chunk % 4 else _scenes(model, index)
            decoded = [to_pil(picture) for picture in model.decode(latent)]
        for again in range(plan.copies):
            generator = random.Random(index + (again << 32))
            attacks = [draw_attack(generator) for _ in decoded]
            pairs = enumerate(zip(decoded, attacks, strict=True))
            pictures = [attack.apply(p, seed=index * _CHUNK + i) if attack else p for i, (p, attack) in pairs]
            yield latent, torch.cat([to_tensor(picture) for picture in pictures])


def examples(
    model: LatentModel, refiner: Refiner, plan: Round, first: int = 0
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Make inputs (n, F, h, w), targets (n, C, h, w) and image weights (n,) at the first points of the refiner's own path.

    The target is what a forward step leaves to be done, z_0 - (z - r(z)).
    """
    inputs, targets, sizes = [], [], []
    with torch.inference_mode():
        for latent, image in images(model, plan, first):
            z = start = model.encode(image)
            for k in range(plan.path + 1):
                output = model.decode(z)
                residual = model.encode(output) - start
                known = features(start, z, residual, image, output, refiner.config.factor)
                if plan.guided:
                    known = torch.cat([known, *refiner.priors(z, _denoiser(model))], dim=1)
                inputs.append(known.half())
                targets.append((latent - (z - residual)).half())
                sizes.append(latent.flatten(1).pow(2).mean(1))
                if k < plan.path:
                    z = z - residual + refiner.correct(known)
    return torch.cat(inputs).clone(), torch.cat(targets).clone(), torch.cat(sizes).clone()


def _denoiser(model: LatentModel) -> Callable[[torch.Tensor, int], torch.Tensor]:
    """Return the denoiser of a class-conditional model."""
    assert isinstance(model, ClassConditionalModel)
    return model.denoised


def train(
    model: LatentModel,
    work: Path,
    *,
    rounds: Sequence[Round] = ROUNDS,
    batch: int = BATCH,
    width: int = 64,
    blocks: int = 6,
) -> Refiner:
    """Train in rounds, each with images of its own. Returns the EMA."""
    factor = model.image_size[0] // model.latent_shape[1]
    torch.manual_seed(2)
    refiner = Refiner(model.latent_shape[0], factor, width, blocks, LEVELS)
    for number, plan in enumerate(rounds):
        guide = copy.deepcopy(refiner)  # the round before, also when this one is resumed
        trainer = Trainer(f"refiner-{number}", refiner, work, steps=plan.steps, peak=1e-3, decay=0.01)
        if trainer.step < trainer.steps:
            before = sum(earlier.latents for earlier in rounds[:number])
            data = examples(model, guide, plan, before)
            inputs, targets, sizes = data
            print(f"refiner-{number}: {len(inputs)} examples", flush=True)

            def loss_of(
                step: int,
                inputs: torch.Tensor = inputs,
                targets: torch.Tensor = targets,
                sizes: torch.Tensor = sizes,
                refiner: Refiner = refiner,
            ) -> dict[str, torch.Tensor]:
                pick = torch.randint(0, len(inputs), (batch,), generator=torch.Generator().manual_seed(step))
                error = refiner.correct(inputs[pick].float()) - targets[pick].float()
                nmse = error.flatten(1).pow(2).mean(1) / sizes[pick]
                # The logarithm, so that clean images, whose errors are small, count as much as attacked ones.
                loss = torch.log(nmse + 1e-5).mean()
                return {"loss": loss, "db": 10 * torch.log10(nmse.detach()).mean()}

            trainer.run(loss_of)
        refiner.load_state_dict(trainer.ema.state_dict())
    return refiner.eval()


def main(argv: list[str] | None = None) -> None:
    """Train the refiner and export it as float16 safetensors."""
    parser = recipe_parser(__doc__, "checkpoints", "refiner")
    options = parser.parse_args(argv)
    torch.set_num_threads(options.threads)
    refiner = train(load_model(options.model), options.work)
    refiner.half().save_pretrained((options.output or options.work) / "refiner")


if __name__ == "__main__":
    main()
