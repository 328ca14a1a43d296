"""docs/extending.md as it stands: its code as an installed package, each kind of algorithm used by the command line."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from helpers.models import pipelines
from helpers.places import ROOT

PAGE = (ROOT / "docs" / "extending.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE, re.M | re.S)
SCRIPT, *EXAMPLES = BLOCKS
POINTS: dict[str, dict[str, str]] = tomllib.loads(re.findall(r"^```toml\n(.*?)^```", PAGE, re.M | re.S)[0])["project"][
    "entry-points"
]
RUN = """
import json, sys
from treering_verify.cli.main import main
for arguments in json.loads(sys.argv[1]):
    main(arguments, standalone_mode=False)
"""


def install(site: Path, package: str, module: str, code: str, points: dict[str, dict[str, str]]) -> None:
    """What pip leaves behind: a module, and the distribution's metadata with its entry points."""
    site.mkdir(exist_ok=True)
    (site / f"{module}.py").write_text(code)
    info = site / f"{package.replace('-', '_')}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    sections = ("\n".join([f"[{group}]", *(f"{n} = {v}" for n, v in names.items())]) for group, names in points.items())
    (info / "entry_points.txt").write_text("\n\n".join(sections) + "\n")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two installed packages: the page's, and one that cannot be imported."""
    folder = tmp_path_factory.mktemp("site")
    install(folder, "my-methods", "my_methods", "\n".join(EXAMPLES), POINTS)
    broken = {
        "treering_verify.inversions": {"broken": "broken_methods:anything", "learned": "broken_methods:anything"},
        "treering_verify.patterns": {"absent": "my_methods:nothing", "number": "my_methods:DAMPED"},
    }
    install(folder, "broken-methods", "broken_methods", "raise RuntimeError('no such library')", broken)
    return folder


def python(site: Path, where: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(site), os.environ.get("PYTHONPATH", ""), str(ROOT), str(ROOT / "detectors")])
    environment = {**os.environ, "PYTHONPATH": path}
    return subprocess.run(
        [sys.executable, *arguments], cwd=where, env=environment, capture_output=True, text=True, check=False
    )


def treering(site: Path, where: Path, *commands: list[str]) -> str:
    """Run commands one after another in one process, from whose start nothing of this one is left."""
    done = python(site, where, "-c", RUN, json.dumps(commands))
    assert done.returncode == 0, done.stderr
    return done.stdout


def refused(site: Path, where: Path, *arguments: str) -> str:
    done = python(site, where, "-m", "treering_verify", *arguments)
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    return " ".join(done.stderr.split())


def test_the_page_names_every_group_and_the_examples_fill_them() -> None:
    groups = set(re.findall(r"`(treering_verify\.\w+)` \|", PAGE))
    assert groups >= set(POINTS) and len(POINTS) == 6
    assert all(group in PAGE.split("```")[0] for group in POINTS)


def test_a_package_brings_an_inversion_a_pattern_and_an_attack(site: Path, tmp_path: Path) -> None:
    image = "images/marked-000000.png"
    printed = treering(
        site,
        tmp_path,
        ["keygen", "--pattern", "square", "--output", "my.key.json"],
        ["generate", "--key", "my.key.json", "--steps", "10", "--output", "images"],
        ["attack", image, "--attack", "mosaic:size=2", "--output", "attacked"],
        ["verify", image, "--key", "my.key.json", "--inversion", "damped", "--noise-inversion", "extrapolated",
         "--steps", "3", "--format", "jsonl"],
    )  # fmt: skip
    assert json.loads((tmp_path / "my.key.json").read_text())["pattern"] == "square"
    verdict = json.loads(printed.splitlines()[-1])
    assert verdict["verdict"] == "detected" and verdict["key"] == "my"
    (sidecar,) = (tmp_path / "attacked").glob("*.json")
    assert "mosaic:size=2" in sidecar.read_text()
    (tmp_path / "image.png").write_bytes((tmp_path / image).read_bytes())
    script = python(site, tmp_path, "-c", f"from my_methods import damped\n{SCRIPT}")
    assert script.returncode == 0, script.stderr
    without = refused(tmp_path, tmp_path, "verify", image, "--key", "my.key.json")
    assert "my.key.json is a key of pattern 'square', which is not known here" in without


def test_a_package_brings_a_detector(site: Path, tmp_path: Path) -> None:
    printed = treering(
        site,
        tmp_path,
        ["keygen", "--output", "my.key.json"],
        ["generate", "--unmarked", "--count", "4", "--steps", "5", "--output", "unmarked"],
        ["generate", "--key", "my.key.json", "--seed", "9", "--steps", "10", "--output", "marked"],
        ["calibrate", "unmarked", "--clean-only", "--steps", "2", "--output", "my.calibration.json"],
        ["verify", "marked/marked-000009.png", "--key", "my.key.json", "--detector", "signs", "--calibration",
         "my.calibration.json", "--alpha", "0.2", "--steps", "2", "--format", "jsonl"],
    )  # fmt: skip
    verdict = json.loads(printed.splitlines()[-1])
    assert verdict["detector"] == "signs" and verdict["calibration"]["images"] == 4
    assert verdict["statistic"] > 0.55  # of 1024 signs, half agree by chance, with a standard deviation of .016
    assert set(json.loads((tmp_path / "my.calibration.json").read_text())["scores"]) == {
        "chi-square",
        "distance",
        "signs",
    }


def test_a_package_brings_a_model_family(site: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    pipelines.stable_diffusion().save_pretrained(folder)
    index: dict[str, Any] = json.loads((folder / "model_index.json").read_text())
    index["_class_name"] = "MyDiffusionPipeline"
    (folder / "model_index.json").write_text(json.dumps(index))
    printed = treering(
        site,
        tmp_path,
        ["models"],
        ["keygen", "--model", "mine", "--output", "my.key.json"],
        ["generate", "--model", "mine", "--key", "my.key.json", "--steps", "1", "--output", "images"],
    )
    assert "my variant of Stable Diffusion" in printed
    assert json.loads((tmp_path / "images" / "marked-000000.json").read_text())["model"] == "mine"
    without = refused(tmp_path, tmp_path, "generate", "--model", "mine", "--unmarked", "--output", "images")
    assert "MyDiffusionPipeline is not supported: did you mean" in without


def test_help_lists_names_of_packages_and_imports_none_of_them(site: Path, tmp_path: Path) -> None:
    code = (
        "import sys\nfrom treering_verify.cli.main import main\n"
        "for name in ('verify', 'keygen'):\n    main([name, '--help'], standalone_mode=False)\n"
        "print({'torch', 'numpy', 'my_methods', 'broken_methods'} & set(sys.modules))\n"
    )
    done = python(site, tmp_path, "-c", code)
    assert done.returncode == 0 and done.stdout.endswith("set()\n"), done.stderr
    for name in ("damped", "extrapolated", "square", "signs", "broken"):
        assert name in done.stdout


def test_a_broken_package_gives_one_line_that_names_it_where_it_is_used(site: Path, tmp_path: Path) -> None:
    treering(site, tmp_path, ["keygen", "--output", "my.key.json"])
    said = refused(site, tmp_path, "verify", "x.png", "--key", "my.key.json", "--inversion", "brokn")
    assert "did you mean broken?" in said
    (tmp_path / "x.png").write_bytes((ROOT / "samples" / "marked-0.png").read_bytes())
    said = refused(site, tmp_path, "verify", "x.png", "--key", "my.key.json", "--inversion", "broken")
    assert (
        "the decoder inversion 'broken' of package broken-methods cannot be loaded (RuntimeError: no such library): "
        "update or uninstall broken-methods" in said
    )
    assert "of package broken-methods cannot be loaded (AttributeError" in refused(
        site, tmp_path, "keygen", "--pattern", "absent", "--output", "a.key.json"
    )
    assert "'number' of package broken-methods is of type Settings, and no pattern" in refused(
        site, tmp_path, "keygen", "--pattern", "number", "--output", "a.key.json"
    )


def test_what_is_built_in_goes_before_a_package_and_two_packages_collide(site: Path, tmp_path: Path) -> None:
    twice = tmp_path / "twice"
    install(twice, "other-methods", "other_methods", "", {"treering_verify.attacks": {"mosaic": "my_methods:mosaic"}})
    code = (
        "from treering_verify.attacks import parse\n"
        "from treering_verify.errors import UsageError\n"
        "from treering_verify.inversion.decoder import METHODS\n"
        "print(METHODS['learned'].__module__)\n"
        "try:\n    parse('mosaic')\nexcept UsageError as error:\n    print(error)\n"
    )
    done = python(site, tmp_path, "-c", f"import sys; sys.path.append({str(twice)!r})\n{code}")
    assert done.returncode == 0, done.stderr
    module, said = done.stdout.splitlines()
    assert module == "treering_verify.inversion.decoder.learned"
    assert "my-methods and other-methods both bring 'mosaic' (attack): uninstall one of them" in said
