"""Who may import whom (DESIGN 3), read from the source, so that a violation fails here before it spreads."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest
from helpers.places import ROOT

# Each unit may import units on later lines only. A unit is a module or a whole package; the longest match counts.
LINES = (
    ("treering_verify",),  # __init__: the lazy public API
    ("treering_verify.__main__", "treering_verify.cli.main"),
    (
        "treering_verify.cli.keys",
        "treering_verify.cli.generate",
        "treering_verify.cli.audit",
        "treering_verify.cli.report",
        "treering_verify.cli.decode",
        "treering_verify.cli.models",
        "treering_verify.cli.calibrate",
    ),
    ("treering_verify.cli.options",),
    (
        "treering_verify.cli.demo",
        "treering_verify.cli.configuration",
        "treering_verify.cli.model_options",
        "treering_verify.cli.inversion_options",
    ),
    ("treering_verify.benchmark",),
    ("treering_verify.audit",),
    (
        "treering_verify.report",
        "treering_verify.generation.editing",
        "treering_verify.detection.self_test",
        "treering_verify.detection.identification",
        "treering_verify.detection.messages",
        "treering_verify.detection.calibration.build",
        "treering_verify.detection.calibration.verify",
        "treering_verify.training.landscape.measure",
        "treering_verify.training.landscape.train_refiner",
        "treering_verify.training.landscape.train_estimator",
        "treering_verify.training.landscape.train_flow",
    ),
    ("treering_verify.detection.calibration.scores",),
    (
        "treering_verify.detection.verification",
        "treering_verify.generation.generator",
        "treering_verify.generation.callback",
        "treering_verify.attacks",
        "treering_verify.detection.calibration.calibration_file",
        "treering_verify.detection.screening",
    ),
    ("treering_verify.detection.evidence", "treering_verify.inversion.recovery"),
    ("treering_verify.detection.search.search", "treering_verify.models.profile"),
    ("treering_verify.detection.search.geometry",),
    ("treering_verify.detection.search.clip_offsets", "treering_verify.media.blank_areas"),
    (
        "treering_verify.watermark.embedding",
        "treering_verify.benchmark.paper.published_geometry",
        "treering_verify.inversion.decoder",
        "treering_verify.inversion.noise",
        "treering_verify.watermark.keys.index",
    ),
    ("treering_verify.models", "treering_verify.watermark.keys.index_file"),
    ("treering_verify.watermark.keys.key", "treering_verify.results", "treering_verify.report.findings"),
    ("treering_verify.watermark.keys.key_family",),
    ("treering_verify.watermark.patterns",),
    ("treering_verify.media.clips",),
    ("treering_verify.media.frame_folders",),
    (
        "treering_verify.media.images",
        "treering_verify.media.color_modes",
        "treering_verify.media.decoder_limits",
        "treering_verify.files",
        "treering_verify.watermark.key_derivation",
        "treering_verify.watermark.spectrum",
        "treering_verify.models.precision",
        "treering_verify.errors",
    ),
    ("detectors",),
)
# Imports between units of one line, which are otherwise refused.
WITHIN_A_LINE = {
    ("treering_verify.__main__", "treering_verify.cli.main"),
    ("treering_verify.media.images", "treering_verify.media.color_modes"),
    ("treering_verify.media.images", "treering_verify.media.decoder_limits"),
    ("treering_verify.media.images", "treering_verify.files"),
    ("treering_verify.media.images", "treering_verify.errors"),
    ("treering_verify.files", "treering_verify.errors"),
    ("treering_verify.training.landscape.train_estimator", "treering_verify.training.landscape.train_refiner"),
}
# The version and nothing else may be taken from the package's own front.
FROM_THE_FRONT = {"__version__"}

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
    "treering_verify.training.landscape.train",
    "treering_verify.training.landscape.scenes",
    "treering_verify.training.landscape.measure",
    "treering_verify.training.landscape.train_refiner",
    "treering_verify.training.landscape.train_estimator",
    "treering_verify.training.landscape.train_flow",
    "treering_verify.training.landscape.train_tiny",
    "treering_verify.models.networks.blocks",  # these four are imported by loading, when a model is loaded
    "treering_verify.models.networks.refiner",
    "treering_verify.models.networks.estimator",
    "treering_verify.models.diffusers.rectified_flow_pipeline",
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

PLACE = {unit: line for line, units in enumerate(LINES) for unit in units}


def modules() -> dict[str, str]:
    """Return the source of every module of both packages, by its dotted name."""
    found = {}
    for package in ("treering_verify", "detectors"):
        for path in (ROOT / package).rglob("*.py"):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path.read_text()
    return found


MODULES = modules()


def unit_of(name: str) -> str | None:
    """Return the unit that a module belongs to; `treering_verify` itself is the front, not a parent of all."""
    parts = name.split(".")
    prefixes = (".".join(parts[:n]) for n in range(len(parts), 0, -1))
    return next((p for p in prefixes if p in PLACE and (p != "treering_verify" or name == p)), None)


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


def order_violations(module: str, source: str) -> list[str]:
    """Return the imports of one module that do not go down."""
    here = unit_of(module)
    if here is None:
        return [f"{module} has no place in the order: add it to LINES"]
    found = []
    for name in imported(source, module):
        package, _, rest = name.partition(".")
        if package not in ("treering_verify", "detectors") or (package == "treering_verify" and rest in FROM_THE_FRONT):
            continue
        # `from treering_verify.media.images import fit` gives treering_verify.media.images.fit: the module is the longest match.
        there = unit_of(name)
        if there is None:
            found.append(f"{module} imports {name}, which has no place in the order")
        elif there != here and PLACE[there] <= PLACE[here] and (here, there) not in WITHIN_A_LINE:
            found.append(f"{module} imports {name}, which stands above or beside it")
    return found


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


def test_the_walk_sees_both_packages() -> None:
    assert {"treering_verify", "treering_verify.models.loading", "treering_detectors.exact"} <= set(MODULES)
    assert len(MODULES) > 15


@pytest.mark.parametrize("module", sorted(MODULES))
def test_imports_only_go_down(module: str) -> None:
    assert order_violations(module, MODULES[module]) == []


@pytest.mark.parametrize("module", sorted(m for m in MODULES if m.split(".")[0] == "detectors"))
def test_detectors_know_numbers_only(module: str) -> None:
    assert detector_violations(MODULES[module]) == []


@pytest.mark.parametrize(
    "module", sorted(m for m in MODULES if m.split(".")[0] == "treering_verify" and m not in HEAVY_AT_THE_TOP)
)
def test_nothing_heavy_is_imported_before_it_is_needed(module: str) -> None:
    assert heavy_imports(MODULES[module]) == []


def test_every_exemption_is_still_needed() -> None:
    assert {m for m in HEAVY_AT_THE_TOP if m in MODULES and not heavy_imports(MODULES[m])} == set()
    used = {(unit_of(m), unit_of(n)) for m, source in MODULES.items() for n in imported(source, m)}
    assert used >= WITHIN_A_LINE


# --- planted violations are caught ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("treering_verify.watermark.keys.key", "from treering_verify.detection.verification import verify"),
        ("treering_verify.watermark.keys.key", "import treering_verify.cli.main"),
        ("treering_verify.watermark.keys.key", "from treering_verify import watermark"),
        ("treering_verify.watermark.keys.key", "from treering_verify import verify"),
        ("treering_verify.watermark.keys.key", "import treering_verify"),
        ("treering_verify.watermark.keys.key", "from treering_verify.results import Verdict"),
        ("treering_verify.watermark.keys.key", "def f():\n    from treering_verify.models import load_model"),
        (
            "treering_verify.watermark.keys.key",
            "if TYPE_CHECKING:\n    from treering_verify.models.protocol import Timestep",
        ),
        ("treering_verify.watermark.keys.key", "from .watermark import embed"),
        ("treering_verify.watermark.keys.key", "from . import watermark"),
        ("treering_verify.models.loading", "from ..verification import verify"),
        ("treering_verify.errors", "from treering_verify.media.images import CODES"),
        ("treering_verify.benchmark.paper.published_geometry", "from treering_verify.watermark.embedding import embed"),
        ("treering_verify.detection.verification", "from treering_verify.generation.generator import generate"),
        ("treering_verify.models.loading", "from treering_verify.training.landscape.measure import report"),
        ("treering_detectors.exact", "from treering_verify.watermark.spectrum import transform"),
        ("treering_verify.brand_new", "import json"),
        ("treering_verify.cli.main", "from treering_verify.brand_new import x"),
    ],
)
def test_an_import_that_does_not_go_down_is_caught(module: str, source: str) -> None:
    assert order_violations(module, source) != []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        (
            "treering_verify.detection.verification",
            "from treering_verify.models import load_model\nfrom detectors import holm",
        ),
        ("treering_verify.media.images", "from treering_verify.files import printable"),
        ("treering_verify.models.loading", "from treering_verify.models.protocol import LatentModel"),
        ("treering_verify.cli.main", "from treering_verify import __version__"),
        ("treering_verify.watermark.keys.key", "import numpy as np\nfrom pathlib import Path"),
    ],
)
def test_an_import_that_goes_down_is_allowed(module: str, source: str) -> None:
    assert order_violations(module, source) == []


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
