"""The package as users get it: what is in the files, and that the wheel works beside another project named `detectors`."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from email import message_from_string
from email.message import Message
from pathlib import Path

import pytest
from helpers.places import ROOT
from PIL import Image

import treering_verify

IMPORTED = {
    "treering_verify": ROOT / "treering_verify",
    "treering_detectors": ROOT / "detectors" / "treering_detectors",
}
DATA = {".pyi", ".typed", ".json", ".safetensors", ".jinja", ".js", ".css", ".md", ".txt"}


def run(*command: str | Path, where: Path, **variables: str) -> str:
    """Run a program without what this process adds to Python's path; return its output."""
    unset = {"PYTHONPATH", "PYTHONDONTWRITEBYTECODE"}
    environment = {name: value for name, value in os.environ.items() if name not in unset} | variables
    done = subprocess.run(
        [str(part) for part in command], cwd=where, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def build(kind: str, source: Path, target: Path) -> Path:
    """Build a wheel or an sdist from a source tree, without a network; return the file."""
    code = f"import hatchling.build as b, sys; print(b.build_{kind}(sys.argv[1]))"
    return target / run(sys.executable, "-c", code, target, where=source).splitlines()[-1]


def repository_files() -> list[str]:
    """Return the files of the repository, those to be added included: no build output, no caches."""
    listed = run("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", where=ROOT).split("\0")
    return [name for name in listed if name and (ROOT / name).is_file()]


FILTER = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}  # Python 3.11.0 to 3.11.3 have none


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build an sdist from what the repository has (no build output, no caches)."""
    source = tmp_path_factory.mktemp("source")
    for name in repository_files():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, source / name)
    return build("sdist", source, tmp_path_factory.mktemp("sdist"))


@pytest.fixture(scope="module")
def unpacked(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, **FILTER)
    (root,) = folder.iterdir()
    return root


@pytest.fixture(scope="module")
def wheel(unpacked: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel from the sdist, as pip does where there is no wheel."""
    return build("wheel", unpacked, tmp_path_factory.mktemp("wheel"))


def files_of(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if not name.endswith("/")}


def metadata_of(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        return message_from_string(archive.read(name).decode())


# --- what is in it ----------------------------------------------------------------------------------------------------


def test_the_wheel_holds_both_import_packages_whole_and_nothing_else(wheel: Path) -> None:
    expected = {
        f"{package}/{path.relative_to(folder).as_posix()}"
        for package, folder in IMPORTED.items()
        for path in folder.rglob("*")
        if path.suffix in DATA | {".py"} and "__pycache__" not in path.parts
    }
    found = {name for name in files_of(wheel) if ".dist-info/" not in name}
    assert found == expected
    assert {f"{package}/py.typed" for package in IMPORTED} <= found
    assert wheel.stat().st_size < 40e6
    for suffix in DATA:
        assert any(name.endswith(suffix) for name in found), suffix


def test_the_sdist_holds_documentation_samples_and_tests(sdist: Path) -> None:
    expected = set(repository_files())
    with tarfile.open(sdist) as archive:
        found = {member.name.partition("/")[2] for member in archive if member.isfile()}
    assert {"docs/exact-test.md", "samples/expected.json", "tests/test_package.py", "constraints.txt"} <= found
    assert expected - found == set() and found - expected == {"PKG-INFO"}


def test_the_metadata_is_complete_and_no_link_leads_nowhere(wheel: Path) -> None:
    metadata = metadata_of(wheel)
    assert metadata["Name"] == "treering-verify"
    assert metadata["Version"] == treering_verify.__version__
    assert metadata["Author"] == "treering-verify developers"
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Requires-Python"] == ">=3.11"
    assert len(metadata["Keywords"].split(",")) >= 5
    assert "Typing :: Typed" in metadata.get_all("Classifier", [])
    assert metadata["Description-Content-Type"] == "text/markdown"
    text = str(metadata.get_payload())
    links = re.findall(r"\]\(([^()\s]+)\)", text)
    assert links and [link for link in links if not link.startswith("https://")] == []
    readme = (ROOT / "README.md").read_text("utf-8")
    targets = re.findall(r"\]\(([^()\s:]+)\)", readme)  # links to files of the repository
    assert len(targets) > 15 and [target for target in targets if f"(`{target}`)" not in text] == []


def test_the_citation_names_the_version_that_the_package_has() -> None:
    assert f"version: {treering_verify.__version__}\n" in (ROOT / "CITATION.cff").read_text()
    assert re.search(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)[1] in (  # type: ignore[index]
        "Unreleased",
        treering_verify.__version__,
    )


# --- that it works ----------------------------------------------------------------------------------------------------


def foreign_detectors(folder: Path) -> Path:
    """Write a wheel of another project whose distribution and import package are named `detectors`, as PyPI has one."""
    wheel, info = folder / "detectors-0.1.11-py3-none-any.whl", "detectors-0.1.11.dist-info"
    content = {
        "detectors/__init__.py": "WHOSE = 'not ours'\n",
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: detectors\nVersion: 0.1.11\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{name},,\n" for name in (*content, f"{info}/RECORD"))
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, text in {**content, f"{info}/RECORD": record}.items():
            archive.writestr(name, text)
    return wheel


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the wheel and a foreign `detectors` in a fresh environment, which finds other dependencies in this one."""
    folder = tmp_path_factory.mktemp("environment")
    run(sys.executable, "-m", "venv", "--without-pip", folder, where=folder)
    (packages,) = folder.glob("lib/python*/site-packages")
    # A line of a .pth file adds a folder, and does not run the .pth files in it: this checkout stays unknown there.
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    pip(folder, "install", str(wheel), str(foreign_detectors(tmp_path_factory.mktemp("foreign"))))
    return folder


def pip(environment: Path, action: str, *arguments: str) -> None:
    flags = ("--no-deps", "--no-index", "--ignore-installed") if action == "install" else ("--yes",)
    python = environment / "bin" / "python"
    run(sys.executable, "-m", "pip", "--python", python, action, "--quiet", *flags, *arguments, where=environment)


def test_the_installed_wheel_runs_its_main_job_beside_another_project_named_detectors(
    environment: Path, tmp_path: Path
) -> None:
    python, ask = environment / "bin" / "python", "import detectors as d, treering_detectors as t, treering_verify as v"
    where = run(python, "-c", f"{ask}; print(d.WHOSE, t.__file__, v.__file__)", where=tmp_path)
    assert where.startswith("not ours") and where.count(str(environment)) == 2
    said = run(environment / "bin" / "treering", "demo", "--output", tmp_path / "demo", where=tmp_path)
    rows = [line.split() for line in said.splitlines() if re.match(r"(un)?marked-", line)]
    found = {what: [row[1:3] for row in rows if row[0].startswith(what)] for what in ("marked", "unmarked")}
    assert [verdict for verdict, _ in found["marked"]] == ["detected"] * 6, said  # four images, and two attacked copies
    assert found["unmarked"] == [["no", "evidence"]] * 6, said
    assert len(re.findall(r"^marked\S+ +detected +demo", said, re.M)) == 6
    with Image.open(tmp_path / "demo" / "spectrum.png") as plot:
        assert plot.width > 800


def test_uninstalling_the_other_project_leaves_ours_whole_and_the_other_way_round(
    environment: Path, tmp_path: Path
) -> None:
    python = environment / "bin" / "python"
    pip(environment, "uninstall", "detectors")
    run(python, "-c", "import treering_detectors.exact, treering_verify", where=tmp_path)
    pip(environment, "install", str(foreign_detectors(tmp_path)))
    pip(environment, "uninstall", "treering-verify")
    run(python, "-c", "import detectors; assert detectors.WHOSE == 'not ours'", where=tmp_path)
