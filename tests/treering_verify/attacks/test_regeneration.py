"""Attacks that need a model: what each does to the latent and to the image, on a tiny random model."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from treering_verify.attacks import GRIDS, MODEL_ATTACKS, Attack, parse
from treering_verify.attacks.regeneration import adversarial, fresh_noise, regenerate_diffusion, regenerate_vae, scaled
from treering_verify.errors import UsageError
from treering_verify.media.conversion import to_pil, to_tensor
from treering_verify.models import LatentModel

QUICK = ["regenerate_vae:repeats=2", "regenerate_diffusion:steps=4,strength=0.5", "adversarial:budget=3,steps=3"]


def scene(size: tuple[int, int] = (128, 128), seed: int = 1) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(40, 216, (9, 9, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


@pytest.mark.parametrize("text", QUICK)
@pytest.mark.parametrize("size", [(128, 128), (150, 96)])
def test_model_attacks_keep_size_and_mode_and_repeat_exactly(
    text: str, size: tuple[int, int], tiny_model: LatentModel
) -> None:
    image = scene(size)
    before = image.tobytes()
    once, again = (parse(text).apply(image, seed=5, model=tiny_model) for _ in range(2))
    assert (once.size, once.mode) == (size, "RGB")
    assert once.tobytes() == again.tobytes() != before
    assert image.tobytes() == before


@pytest.mark.parametrize("text", QUICK)
def test_a_batch_gives_what_single_images_give(text: str, tiny_model: LatentModel) -> None:
    images = [scene(seed=1), scene((96, 96), seed=2), scene(seed=3), scene(seed=4)]
    attack, seeds = parse(text), [4, 5, 6, 7]
    together = attack.apply_many(images, seeds, tiny_model, batch_size=3)
    for image, seed, changed in zip(images, seeds, together, strict=True):
        alone = attack.apply(image, seed, tiny_model)
        difference = np.abs(np.asarray(alone).astype(int) - np.asarray(changed))
        # A gradient's sign near zero may differ by rounding; everything else may differ by one rounded level.
        assert (difference > 1).mean() < (0.02 if attack.stages[0].name == "adversarial" else 1e-9)


def test_the_seed_matters_where_something_is_drawn(tiny_model: LatentModel) -> None:
    for text, drawn in zip(QUICK, (False, True, True), strict=True):
        first, second = (parse(text).apply(scene(), seed, tiny_model) for seed in (1, 2))
        assert (first.tobytes() != second.tobytes()) == drawn


@pytest.mark.parametrize("text", ["regenerate_vae:repeats=0", "adversarial:budget=0", "adversarial:steps=0"])
def test_the_neutral_parameter_changes_nothing(text: str, tiny_model: LatentModel) -> None:
    assert parse(text).apply(scene(), 3, tiny_model).tobytes() == scene().tobytes()


def test_vae_regeneration_is_the_round_trip_repeated(tiny_model: LatentModel) -> None:
    x = to_tensor(scene())
    once = tiny_model.decode(tiny_model.encode(x)).clamp(-1, 1)
    twice = tiny_model.decode(tiny_model.encode(once)).clamp(-1, 1)
    torch.testing.assert_close(regenerate_vae(x, tiny_model, repeats=2, seeds=[0]), twice)


def test_diffusion_regeneration_starts_from_the_grids_own_noise_level(tiny_model: LatentModel) -> None:
    asked: list[tuple[int, float]] = []

    class Watched:
        latent_shape, image_size, encode, decode = (
            tiny_model.latent_shape,
            tiny_model.image_size,
            tiny_model.encode,
            tiny_model.decode,
        )
        timesteps = staticmethod(tiny_model.timesteps)

        def denoise(self, z, at, conditions, guidance=1.0):  # type: ignore[no-untyped-def]
            asked.append((at.index, float(z.std())))
            assert list(conditions) == [None] and guidance == 1.0
            return tiny_model.denoise(z, at, conditions, guidance)

    x = to_tensor(scene())
    model: LatentModel = Watched()  # type: ignore[assignment]
    grid = tiny_model.timesteps(10)
    for strength, passes in ((0.0, 0), (0.3, 3), (1.0, 10)):
        asked.clear()
        regenerate_diffusion(x, model, strength=strength, steps=10, seeds=[9])
        assert [index for index, _ in asked] == [point.index for point in grid[10 - passes : 10]]
    z = tiny_model.encode(x)
    start = grid[0].alpha ** 0.5 * z + (1 - grid[0].alpha) ** 0.5 * fresh_noise(z.shape[1:], [9])
    assert abs(asked[0][1] - float(start.std())) < 1e-5
    round_trip = regenerate_vae(x, tiny_model, seeds=[0])
    torch.testing.assert_close(regenerate_diffusion(x, tiny_model, strength=0.0, seeds=[9]), round_trip)


@pytest.mark.parametrize("budget", [1, 3, 8])
@pytest.mark.parametrize("size", [(128, 128), (150, 96)])
def test_the_adversary_stays_within_the_budget_and_moves_the_latent_more_than_noise_does(
    budget: int, size: tuple[int, int], tiny_model: LatentModel
) -> None:
    image = scene(size)
    attacked = Attack("adversarial", {"budget": budget, "steps": 8}).apply(image, 3, tiny_model)
    change = np.asarray(attacked).astype(int) - np.asarray(image)
    assert 0 < np.abs(change).max() <= budget

    def moved(pixels: np.ndarray) -> float:
        x = scaled(to_tensor(Image.fromarray(pixels.astype(np.uint8))), tiny_model.image_size)
        truth = scaled(to_tensor(image), tiny_model.image_size)
        return float((tiny_model.encode(x) - tiny_model.encode(truth)).norm())

    signs = np.random.default_rng(0).choice([-budget, budget], change.shape)
    assert moved(np.asarray(attacked)) > 1.5 * moved(np.clip(np.asarray(image) + signs, 0, 255))


def test_the_adversary_moves_the_latent_further_with_a_larger_budget(tiny_model: LatentModel) -> None:
    x = to_tensor(scene())
    truth = tiny_model.encode(x)
    moves = [
        float((tiny_model.encode(adversarial(x, tiny_model, budget=b, steps=6, seeds=[1])) - truth).norm())
        for b in (1, 2, 4, 8)
    ]
    assert moves == sorted(moves) and moves[-1] > 2 * moves[0]


def test_values_at_the_ends_of_the_scale_never_wrap(tiny_model: LatentModel) -> None:
    for colour, low, high in (("white", 245, 255), ("black", 0, 10)):
        attacked = Attack("adversarial", {"budget": 10, "steps": 2}).apply(
            Image.new("RGB", (128, 128), colour), 0, tiny_model
        )
        assert low <= np.asarray(attacked).min() <= np.asarray(attacked).max() <= high


def test_a_model_attack_without_a_model_is_refused_and_a_chain_takes_one_too(tiny_model: LatentModel) -> None:
    for name in MODEL_ATTACKS:
        assert Attack(name).needs_model
        with pytest.raises(UsageError, match="needs a model"):
            Attack(name).apply(scene())
    chain = parse("regenerate_vae+jpeg:quality=50")
    assert chain.needs_model and not parse("flip+jpeg").needs_model
    with pytest.raises(UsageError, match="needs a model"):
        chain.apply(scene())
    expected = parse("jpeg:quality=50").apply(parse("regenerate_vae").apply(scene(), model=tiny_model))
    assert chain.apply(scene(), model=tiny_model).tobytes() == expected.tobytes()


def test_longer_grids_change_more(tiny_model: LatentModel) -> None:
    original = np.asarray(to_pil(to_tensor(scene()))).astype(float)
    for curve in ("adversarial", "regenerate_diffusion"):
        ends = (GRIDS[curve][0], GRIDS[curve][-1])
        few = [Attack(a.name, {**a.parameters, "steps": 5}) for a in ends]
        weak, strong = (np.asarray(a.apply(scene(), 1, tiny_model)).astype(float) for a in few)
        assert np.abs(strong - original).mean() > np.abs(weak - original).mean()
