"""Who may import whom (import-linter's contracts in pyproject.toml), and when what is heavy is imported."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.import_graph import figures, modules
from helpers.places import ROOT

HEAVY = {
    "torch",
    "diffusers",
    "transformers",
    "matplotlib",
    "ray",
    "sklearn",
    "scipy",
    "PIL",
    "pyarrow",
    "jinja2",
    "av",
}
HEAVY_AT_THE_TOP = {  # run to train and measure the embedded model; no command imports them at its start
    "treering_verify.training.landscape.pyramid_start",
    "treering_verify.training.landscape.recipe",
    "treering_verify.training.landscape.train",
    "treering_verify.training.landscape.scenes",
    "treering_verify.training.landscape.measure",
    "treering_verify.training.landscape.train_refiner",
    "treering_verify.training.landscape.train_restorer",
    "treering_verify.training.landscape.train_estimator",
    "treering_verify.training.landscape.train_flow",
    "treering_verify.training.landscape.train_tiny",
    "treering_verify.training.landscape_sd.attributes",
    "treering_verify.training.landscape_sd.autoencoder",
    "treering_verify.training.landscape_sd.captions",
    "treering_verify.training.landscape_sd.diffusion",
    "treering_verify.training.landscape_sd.measure",
    "treering_verify.training.landscape_sd.scenes",
    "treering_verify.training.landscape_sd.text",
    "treering_verify.training.landscape_sd.train",
    "treering_verify.training.landscape_sd.trees",
    "treering_verify.training.band",  # these are imported by a fit, after the model
    "treering_verify.training.correction",
    "treering_verify.training.network_examples",
    "treering_verify.training.trainer",
    "treering_verify.models.networks.blocks",  # these are imported by loading, when a model is loaded
    "treering_verify.models.networks.refiner",
    "treering_verify.models.networks.estimator",
    "treering_verify.models.networks.correction",
    "treering_verify.models.networks.network",
    "treering_verify.models.networks.unet_blocks",
    "treering_verify.models.networks.autoencoder_kl",
    "treering_verify.models.networks.unet",
    "treering_verify.models.diffusers.kinds.lavie_network",
    "treering_verify.models.diffusers.rectified_flow_pipeline",
    "treering_verify.models.networks.tiny_autoencoder",
}
NOT_IN_DETECTORS = {"torch", "PIL", "click", "treering_verify", "diffusers"}
FILE_ACCESS = {
    "open",
    "read_text",
    "read_bytes",
    "write_text",
    "write_bytes",
    "fromfile",
    "tofile",
    "loadtxt",
    "savetxt",
}

MODULES = {name: path.read_text() for name, path in modules(ROOT).items()}


def imported(source: str, module: str = "") -> Iterator[str]:
    """Yield every name imported anywhere in a source, as absolute dotted names; `from a import b` gives a.b."""
    for node in ast.walk(ast.parse(source)):
        yield from names_of(node, module)


def names_of(node: ast.AST, module: str = "") -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        base = node.module or ""
        if node.level:  # the packages write absolute imports only; a relative one is resolved as in a plain module
            base = ".".join([*module.split(".")[: -node.level], *([base] if base else [])])
        yield from (f"{base}.{alias.name}" for alias in node.names)


def top_level(source: str) -> Iterator[ast.stmt]:
    """Yield the statements that run when a module is imported: all but functions' bodies and TYPE_CHECKING blocks."""
    waiting: list[ast.AST] = list(ast.parse(source).body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            waiting += node.orelse
            continue
        if isinstance(node, ast.stmt):
            yield node
        waiting += ast.iter_child_nodes(node)


def heavy_imports(source: str) -> list[str]:
    return [name for node in top_level(source) for name in names_of(node) if name.split(".")[0] in HEAVY]


def detector_violations(source: str) -> list[str]:
    """Return what statistics must not do: know pixels, models and commands, transform, or touch files."""
    found = [name for name in imported(source) if name.split(".")[0] in NOT_IN_DETECTORS or "fft" in name.lower()]
    for node in ast.walk(ast.parse(source)):
        name = node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""
        if name in FILE_ACCESS or "fft" in name.lower():
            found.append(name)
    return found


# --- the packages as they are -----------------------------------------------------------------------------------------


@pytest.mark.slow  # `make lint` asks the same
def test_imports_only_go_down_and_never_in_a_circle() -> None:
    linter = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([linter, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "3 kept, 0 broken" in done.stdout


def test_the_tree_stays_small_where_it_is_entered() -> None:
    found = figures(ROOT)
    assert found["files flat in treering_verify"] <= 8
    assert found["files in the fullest folder"] <= 20
    assert found["boxes in circles"] == 0
    assert found["imports that do not go down"] == 0


def test_the_folders_of_the_tests_are_those_of_the_packages() -> None:
    folders = {path.parent for path in (ROOT / "tests").rglob("*.py")}
    assert {str(folder) for folder in folders if len(list(folder.glob("*.py"))) > 20} == set()
    mirrored = {path.relative_to(ROOT / "tests") for path in folders}
    mirrored = {path for path in mirrored if path.parts[:1] == ("treering_verify",)}
    assert len(mirrored) > 20
    assert {str(path) for path in mirrored if not (ROOT / path / "__init__.py").exists()} == set()


def test_the_helpers_of_the_tests_are_mapped() -> None:
    for path in (ROOT / "tests" / "helpers").rglob("__init__.py"):
        packages = {each.parent.name for each in path.parent.glob("*/__init__.py")}
        inside = packages | {each.stem for each in path.parent.glob("*.py")} - {"__init__"}
        text = ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""
        assert {name for name in inside if not re.search(rf"\b{name}\b", text)} == set(), path


@pytest.mark.parametrize("package", sorted(m for m, path in modules(ROOT).items() if path.stem == "__init__"))
def test_each_package_maps_its_modules(package: str) -> None:
    text = ast.get_docstring(ast.parse(MODULES[package])) or ""
    inside = {name.removeprefix(f"{package}.") for name in MODULES if name.startswith(f"{package}.")}
    modules = {name for name in inside if "." not in name and not name.startswith("__")}
    unmapped = {name for name in modules if not re.search(rf"\b{name}\b", text)}
    assert unmapped == set()


@pytest.mark.parametrize("module", sorted(m for m in MODULES if m.split(".")[0] == "treering_detectors"))
def test_detectors_know_numbers_only(module: str) -> None:
    assert detector_violations(MODULES[module]) == []


@pytest.mark.parametrize(
    "module", sorted(m for m in MODULES if m.split(".")[0] == "treering_verify" and m not in HEAVY_AT_THE_TOP)
)
def test_nothing_heavy_is_imported_before_it_is_needed(module: str) -> None:
    assert heavy_imports(MODULES[module]) == []


def test_every_exemption_is_still_needed() -> None:
    assert {m for m in HEAVY_AT_THE_TOP if m in MODULES and not heavy_imports(MODULES[m])} == set()
    assert set(MODULES) >= HEAVY_AT_THE_TOP


# --- planted violations are caught ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "source",
    [
        "import torch",
        "import torch.nn.functional as F",
        "from diffusers import AutoencoderKL",
        "try:\n    import ray\nexcept ImportError:\n    ray = None",
        "class A:\n    import matplotlib",
        "if True:\n    from sklearn import metrics",
        "if TYPE_CHECKING:\n    pass\nelse:\n    import torch",
    ],
)
def test_a_heavy_import_at_the_top_is_caught(source: str) -> None:
    assert heavy_imports(source) != []


def test_a_heavy_import_inside_a_function_or_for_types_is_allowed() -> None:
    assert heavy_imports("def f():\n    import torch\nif TYPE_CHECKING:\n    import torch\nimport json") == []


@pytest.mark.parametrize(
    "source",
    [
        "import torch",
        "def f():\n    from PIL import Image",
        "import click",
        "from treering_verify.watermark.keys.key import Key",
        "import numpy as np\nnp.fft.fft2(x)",
        "from numpy.fft import fft2",
        "from scipy import fft",
        "open('x')",
        "Path('x').read_text()",
        "np.loadtxt('x')",
    ],
)
def test_a_detector_that_reaches_out_is_caught(source: str) -> None:
    assert detector_violations(source) != []
