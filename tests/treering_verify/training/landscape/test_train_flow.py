"""Class-conditional models with straight paths, and the recipe that trains one from the embedded model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from safetensors.torch import load_file

from treering_verify.detection.verification import verify, verify_many
from treering_verify.errors import ModelError
from treering_verify.generation.generator import generate, initial_noise
from treering_verify.inversion.recovery import InversionOptions
from treering_verify.models import load_model
from treering_verify.training.landscape import train_flow
from treering_verify.training.landscape.measure import detection
from treering_verify.watermark.keys.key import Key


def with_flow(folder: Path, target: Path, **options: object) -> Path:
    """Copy a model's folder, with a flow's scheduler in it."""
    shutil.copytree(folder, target)
    shutil.rmtree(target / "scheduler")
    FlowMatchEulerDiscreteScheduler(**options).save_pretrained(target / "scheduler")
    index = json.loads((target / "model_index.json").read_text())
    index["scheduler"] = ["diffusers", "FlowMatchEulerDiscreteScheduler"]
    (target / "model_index.json").write_text(json.dumps(index))
    return target


def test_the_network_is_asked_for_the_velocity_of_a_straight_path(tiny_folder: Path, tmp_path: Path) -> None:
    model = load_model(with_flow(tiny_folder, tmp_path / "flow"))
    grid = model.timesteps(4)
    assert len(grid) == 5 and grid[0].sigma == 1 and grid[-1].sigma == 0 and all(at.straight for at in grid)
    z, at = initial_noise(model.latent_shape, [0, 1]), grid[1]
    with torch.inference_mode():
        clean, noise = model.denoise(z, at, ["dawn", None])
        torch.testing.assert_close(at.signal * clean + at.sigma * noise, z)
        velocity = model._unet(z, at.index, class_labels=torch.tensor([0, 3])).sample  # type: ignore[attr-defined]
        torch.testing.assert_close(noise - clean, velocity)


@pytest.mark.parametrize(
    "options", [{"use_dynamic_shifting": True}, {"invert_sigmas": True}, {"stochastic_sampling": True}]
)
def test_flows_that_have_no_inverse_here_are_refused(
    options: dict[str, object], tiny_folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match="to false in the scheduler"):
        load_model(with_flow(tiny_folder, tmp_path / "flow", **options))


def test_the_recipe_writes_models_that_commands_take_and_resumes(tmp_path: Path) -> None:
    def train(work: Path) -> None:
        train_flow.main(f"--work {work} --threads 1 --scenes 40 --steps 2 --reflow --pairs 4 --reflow-steps 1".split())

    train(tmp_path / "a")
    for name in ("flow", "reflow"):
        model = load_model(tmp_path / "a" / name)
        assert model.classes == train_flow.CLASSES and model.refine is None and model.estimate is None
        key = Key.generate(model.latent_shape, seed=1)
        (made,) = generate(model, key, seeds=[1], steps=1)
        assert verify(made.image, key, model=model, inversion=InversionOptions(steps=1)).status == "ok"
    kept = {path.name: path.read_bytes() for path in (tmp_path / "a").glob("*.safetensors")}
    assert set(kept) == {f"{name}.safetensors" for name in ("posteriors", "flow", "pairs", "reflow")}
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    (tmp_path / "b" / "reflow.safetensors").unlink()  # stopped before the last part
    train(tmp_path / "b")
    a, b = (load_file(tmp_path / name / "reflow.safetensors") for name in ("a", "b"))
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert kept["flow.safetensors"] == (tmp_path / "b" / "flow.safetensors").read_bytes()


@pytest.mark.slow
def test_the_flow_model_is_detected_in_twenty_steps(tmp_path: Path) -> None:
    """An hour and a half of one core; prints what `measure --detection` says of the flow and of its one-step reflow."""
    train_flow.main(["--work", str(tmp_path), "--reflow"])
    said = {
        (name, steps): list(detection(load_model(tmp_path / name), 100, steps))
        for name, steps in (("flow", 20), ("reflow", 1))
    }
    for (name, _), lines in said.items():
        print(name, *lines, sep="\n")
    flow = load_model(tmp_path / "flow")
    key = Key.generate(flow.latent_shape, seed=2)
    images = [made.image for made in generate(flow, key, seeds=range(100), steps=20)]
    verdicts = [one.verdict for one in verify_many(images, key, model=flow, inversion=InversionOptions(steps=20))]
    assert verdicts.count("detected") >= 95
