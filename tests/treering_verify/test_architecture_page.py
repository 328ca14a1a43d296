"""docs/architecture.md: every name on it exists, its layers are the contract's, and an image takes the way that it tells."""

from __future__ import annotations

import re
import sys
import tomllib
from importlib import import_module
from importlib.util import find_spec
from types import FrameType
from typing import Any

import pytest
from helpers.places import ROOT
from PIL import Image

from treering_verify.detection.verification import verify_many
from treering_verify.models import LatentModel
from treering_verify.watermark.keys.key import Key

PAGE = (ROOT / "docs/architecture.md").read_text("utf-8")
CONTRACT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]["contracts"]
PACKAGES = {path.stem for path in (ROOT / "treering_verify").iterdir() if not path.name.startswith("_")}


def named(text: str) -> list[str]:
    """Return the names of modules, functions and classes in a text, in order."""
    return [name for name in re.findall(r"`([a-z_]+(?:\.\w+)*)`", text) if name.split(".")[0] in PACKAGES]


def resolve(name: str) -> Any:
    """Return what a name below treering_verify stands for: a module, or an attribute of one."""
    parts = ["treering_verify", *name.split(".")]
    for end in range(len(parts), 0, -1):
        try:
            if find_spec(".".join(parts[:end])) is None:
                continue
        except ModuleNotFoundError:
            continue
        found = import_module(".".join(parts[:end]))
        for attribute in parts[end:]:
            found = getattr(found, attribute)
        return found
    raise LookupError(name)


def way() -> list[str]:
    """Return the functions of the numbered steps, in order."""
    steps = PAGE.partition("Then:\n")[2].partition("\n\n`cli.output")[0]
    return named(steps)


@pytest.mark.parametrize("name", sorted(set(named(PAGE))))
def test_every_name_on_the_page_exists(name: str) -> None:
    resolve(name)


def test_a_name_that_does_not_exist_is_caught() -> None:
    for wrong in ("detection.judge.Judge.acquit", "inversion.guess", "detection.jury.read"):
        assert wrong in named(f"see `{wrong}`")
        with pytest.raises((AttributeError, LookupError)):
            resolve(wrong)


def test_the_table_of_packages_is_the_contract_of_imports() -> None:
    (layers,) = (contract["layers"] for contract in CONTRACT if contract["type"] == "layers")
    expected = [
        {part.strip().removeprefix("treering_verify.") for part in re.split("[|:]", layer)}
        for layer in layers
        if layer != "treering_verify.__main__"
    ]
    table = PAGE.partition("| packages | contents |\n|---|---|\n")[2].partition("\n\n")[0]
    assert [set(re.findall(r"`(\w+)`", row.split("|")[1])) for row in table.splitlines()] == expected


def test_an_image_takes_the_way_that_the_page_tells(tiny_model: LatentModel) -> None:
    image = Image.effect_noise((128, 128), 60).convert("RGB")
    image.paste((0, 0, 0), (0, 0, 128, 24))  # an occluded area
    key = Key.generate(tiny_model.latent_shape, seed=1)
    called: list[str] = []

    def watch(frame: FrameType, event: str, _: object) -> None:
        if event == "call":
            called.append(f"{frame.f_globals.get('__name__')}.{frame.f_code.co_qualname}")

    sys.setprofile(watch)
    try:
        list(verify_many([image], key, model=tiny_model))
    finally:
        sys.setprofile(None)
    steps = [f"treering_verify.{name}" for name in way()]
    assert len(steps) > 15
    assert [step for step in steps if step not in called] == []
    first = [called.index(step) for step in steps]
    assert first == sorted(first), "the page tells the steps in another order than they are taken"
