"""The public names: what is there, that all of it can be imported, and that importing the package costs nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import import_module

import pytest

import treering_verify as tv

SUBPACKAGES = ("attacks", "audit", "detection", "evaluation", "generation", "inversion", "models", "watermark")
LAZY = [*SUBPACKAGES, "inversion.decoder", "watermark.patterns"]


def run(code: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **environment}, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_about_twenty_names_stand_at_the_top_beside_the_subpackages() -> None:
    names = set(tv.__all__) - {*SUBPACKAGES, "errors"}
    assert names == {
        "Detector",
        "InversionOptions",
        "Key",
        "KeyIndex",
        "Search",
        "TreeringError",
        "UsageError",
        "Verdict",
        "WatermarkCallback",
        "__version__",
        "from_pipeline",
        "generate",
        "load_model",
        "verify",
        "verify_many",
        "watermarked_noise",
    }
    assert {*SUBPACKAGES, "errors"} < set(tv.__all__) and len(tv.__all__) <= 25


@pytest.mark.parametrize("package", LAZY)
def test_every_name_of_a_stub_can_be_imported(package: str) -> None:
    module = import_module(f"treering_verify.{package}")
    assert module.__all__ and [name for name in module.__all__ if getattr(module, name) is None] == []


def test_eager_import_finds_every_name() -> None:
    """SPEC 1: with EAGER_IMPORT set, whatever a stub names is imported at once, so a wrong line is an error."""
    assert "generate" in run("import treering_verify as tv; print(tv.__all__)", EAGER_IMPORT="1")


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="nothing"):
        tv.nothing  # noqa: B018


def test_importing_the_package_imports_nothing_heavy() -> None:
    heavy = "{'numpy', 'torch', 'PIL', 'scipy', 'diffusers', 'click', 'pyarrow'}"
    assert run(f"import sys, treering_verify; print({heavy} & set(sys.modules))").strip() == "set()"


def test_names_of_registries_are_listed_without_numpy_or_torch() -> None:
    code = (
        "import sys\n"
        "from treering_verify.inversion.decoder import METHODS\n"
        "from treering_verify.inversion import noise\n"
        "from treering_verify.watermark.patterns import PATTERNS\n"
        "from treering_verify.attacks import ATTACKS, MODEL_ATTACKS\n"
        "from treering_verify.detection.calibration.registry import DETECTORS\n"
        "print(len([*METHODS, *noise.METHODS, *PATTERNS, *ATTACKS, *MODEL_ATTACKS, *DETECTORS]) > 40)\n"
        "print({'numpy', 'torch', 'PIL', 'scipy', 'diffusers'} & set(sys.modules))\n"
    )
    assert run(code).split() == ["True", "set()"]
