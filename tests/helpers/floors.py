"""Find the oldest release of a dependency that passes the tests that use it: `python tests/helpers/floors.py PACKAGE...`.

Bisects over the releases of a package: those before today's floor in pyproject.toml, or those after it if it fails. With
`--only RELEASE...` it tries these alone. Each release is tried with all dependencies that the package's users have: as
`constraints.txt` pins them, or as uv resolves them anew where these do not fit. With `--others floors` they are the oldest
that pyproject.toml admits (uv's `lowest-direct`), but for torch. One environment is changed from try to try. The last lines
say which is the oldest release that passes, and why the next older one does not. Wants uv on the PATH. Wheels are taken from
UV_FIND_LINKS too; nothing is built.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tomllib
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

ROOT = Path(__file__).parents[2]
INDEX = os.environ.get("UV_INDEX_URL", "https://pypi.org/simple")
T = "tests/treering_verify/"
TESTS: dict[str, tuple[str, ...]] = {
    "accelerate": (T + "models/diffusers/test_video.py::test_a_saved_pipeline_knows_its_shape_before_it_is_loaded",),
    "av": (T + "media/test_videos.py",),
    "click": (T + "cli/test_surface.py", T + "cli/test_configuration.py", T + "cli/test_output.py"),
    "cryptography": (T + "watermark/keys/test_key.py", T + "watermark/keys/test_key_origin.py"),
    "fsspec": (T + "audit/inputs/test_urls.py",),
    "hatchling": ("tests/test_package.py", "-k", "holds or metadata"),
    "jinja2": (T + "report/audit/test_audit.py", T + "report/test_benchmark.py"),
    "lazy-loader": (T + "test_api.py", T + "test_startup.py"),
    "matplotlib": (T + "report/test_benchmark.py", T + "evaluation/test_confusion_matrix.py"),
    "numpy": (
        *(f"tests/detectors/test_{name}.py" for name in ("exact", "nearest", "rates", "searched", "signs")),
        T + "watermark/keys/test_key.py",
        T + "media/test_arrays.py",
        T + "audit/output",
    ),
    "pillow-heif": (T + "media/test_images.py", T + "media/test_containers.py"),
    "pillow-jxl-plugin": (T + "media/test_images.py", T + "media/test_containers.py"),
    "pyarrow": (T + "audit/output", T + "audit/inputs/test_sources.py", T + "test_files.py"),
    "pytest": ("tests/detectors/test_exact.py", T + "cli/test_configuration.py", T + "test_files.py"),
    "pytest-xdist": (
        *("-n", "1", "--dist", "loadfile", "--no-loadscope-reorder"),  # as `make test` calls it
        *("tests/detectors/test_exact.py", T + "test_files.py"),
    ),
    "ray": tuple(
        T + "audit/cluster/test_run.py::test_" + name
        for name in (
            "what_ends_readers_and_workers_costs_itself_and_all_else_is_as_on_one_machine",
            "a_stopped_audit_keeps_what_is_finished_and_one_machine_goes_on",
            "two_passes_decide_alike_on_a_cluster_and_on_one_machine",
            "an_address_from_outside_the_cluster_is_refused",
        )
    ),
    "rich": (T + "cli/test_output.py",),
    "scikit-image": (
        T + "watermark/test_embedding.py::test_pvalues_are_uniform_over_keys_whatever_the_image",
        T + "media/test_blank_areas.py::test_photographs_and_clean_images_are_left_alone",
        T + "benchmark/robustness/test_robustness.py::test_processing_is_the_images_own_and_repeats",
        T + "benchmark/test_uniformity.py::test_unmarked_images_are_distinct_of_every_kind_and_half_of_them_attacked",
    ),
    "scikit-learn": (
        "tests/detectors/test_classifier.py",
        "tests/detectors/test_rates.py",
        T + "evaluation",
    ),
    "scipy": ("tests/detectors",),
    "threadpoolctl": ("tests/detectors/test_nearest.py",),
    "transformers": (T + "models/diffusers/test_loading.py",),
}
"""Tests that use each dependency, of a minute or so."""
PROGRAMS: dict[str, tuple[tuple[str, ...], ...]] = {
    "import-linter": (("lint-imports", "--no-cache"),),
    "mypy": (("mypy", "--cache-dir=/dev/null"),),
    "ruff": (("ruff", "check", "--no-cache", "."), ("ruff", "format", "--no-cache", "--check", ".")),
}
"""Commands of `make lint`, which are tried in place of tests."""
BESIDE = {"hatchling": ("hatch-fancy-pypi-readme", "pytest")}
"""What the tests want beside the dependencies of users; `pytest` and `scikit-image` where nothing is said."""


@dataclass
class Search:
    """The tries of one package."""

    package: str
    folder: Path
    seconds: int
    others: str
    """What the other dependencies are: "pinned" or "floors"."""
    why: dict[Version, str] = field(default_factory=dict)
    """Why each release that was tried fails; "" where it passes."""

    @property
    def extra(self) -> str:
        """The extra that the package belongs to; "" where everybody needs it."""
        project = _project()
        if self.package in _names(project["dependencies"]):
            return ""
        for name, wanted in sorted(project["optional-dependencies"].items(), key=lambda item: item[0] == "dev"):
            if self.package in _names(wanted):
                return str(name)
        raise SystemExit(f"{self.package} is no dependency of pyproject.toml")

    def requirements(self, version: Version) -> list[str]:
        """Return what is installed: dependencies and the package's extra, with this release."""
        project = _project()
        extra = project["optional-dependencies"].get(self.extra, []) if self.extra != "dev" else []
        others = BESIDE.get(self.package, ("pytest", "scikit-image"))
        beside = [text for text in project["optional-dependencies"]["dev"] if _names([text])[0] in others]
        wanted = [*project["dependencies"], *extra, *beside]
        name = f"{self.package}[data]" if self.package == "ray" else self.package
        return [*(text for text in wanted if _names([text])[0] != self.package), f"{name}=={version}"]

    def resolved(self, version: Version) -> tuple[Path | None, str]:
        """Return a list of pinned packages that holds this release, or None and the reason why there is none."""
        file = self.folder / f"{self.package}-{version}.txt"
        pins = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
        kept = [
            line for line in pins if line and line[0] != "#" and canonicalize_name(line.split("==")[0]) != self.package
        ]
        constraints, torch = (self.folder / f"{self.package}-{name}.txt" for name in ("constraints", "torch"))
        constraints.write_text("\n".join(kept), encoding="utf-8")
        torch.write_text("\n".join(line for line in kept if line.startswith("torch==")), encoding="utf-8")
        command = [
            "uv",
            "pip",
            "compile",
            "-q",
            "--python-version",
            "3.11",
            "--only-binary",
            ":all:",
            "-o",
            str(file),
            "-",
        ]
        text = "\n".join(self.requirements(version))
        tries = (["-c", str(constraints)], ["-c", str(torch)], [])  # another torch may bring CUDA
        if self.others == "floors":
            tries = (["-c", str(torch), "--resolution", "lowest-direct"],)
        for more in tries:
            done = subprocess.run([*command, *more], input=text, capture_output=True, text=True)
            if done.returncode == 0:
                return file, "" if self.others == "floors" or str(constraints) in more else "with other pins"
        return None, " ".join(done.stderr.split())

    def failure(self, version: Version) -> str:
        """Return why a release fails, or ""; installs it and runs the tests."""
        if version in self.why:
            return self.why[version]
        pinned, reason = self.resolved(version)
        answer = f"does not resolve: {reason}" if pinned is None else self._tested(version, pinned)
        print(
            f"  {self.package} {version}: {answer[:600] or 'passes'}{f' ({reason})' if pinned and reason else ''}",
            flush=True,
        )
        self.why[version] = answer
        return answer

    def _tested(self, version: Version, pinned: Path) -> str:
        environment = self.folder / f"environment-{self.others}"
        python = environment / "bin/python"
        if not environment.exists():
            subprocess.run(["uv", "venv", "-q", "--python", sys.executable, str(environment)], check=True)
        command = ["uv", "pip", "sync", "-q", "--python", str(python), str(pinned)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            return f"does not install: {' '.join(done.stderr.split())}"
        paths = os.pathsep.join(str(ROOT / name) for name in ("", "detectors", "tests"))
        found = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
        found["PATH"] = os.pathsep.join((str(environment / "bin"), os.environ["PATH"]))
        tests = (str(python), "-m", "pytest", "-x", "-p", "no:cacheprovider", *TESTS.get(self.package, ()))
        for command in PROGRAMS.get(self.package, (tests,)):
            program = (str(environment / "bin" / command[0]), *command[1:])
            try:
                done = subprocess.run(
                    program, capture_output=True, text=True, cwd=ROOT, env=found, timeout=self.seconds
                )
            except subprocess.TimeoutExpired:
                return f"took over {self.seconds} s"
            if done.returncode:
                lines = (done.stdout + done.stderr).splitlines()
                told = [line for line in lines if re.match(r"(FAILED|ERROR|E  )", line)] or lines[-3:]
                return "fails: " + " | ".join(told[-6:])
        return ""

    def run(self) -> str:
        """Bisect, and return the findings in a line."""
        found = releases(self.package)
        passes, fails = found.index(self.floor), -1  # the release before the first has no name
        if self.failure(found[passes]):
            passes, fails = len(found) - 1, passes
            if self.failure(found[passes]):
                return f"{self.package}: today's floor fails, and so does {found[passes]}: {self.why[found[passes]]}"
        first = fails < 0
        while passes - fails > 1:
            middle = passes - 1 if first else (passes + fails) // 2  # a floor that is right is confirmed at once
            first = False
            if self.failure(found[middle]):
                fails = middle
            else:
                passes = middle
        before = f"next older {found[fails]}: {self.why[found[fails]]}" if fails >= 0 else "there is no older one"
        return f"{self.package}: oldest that passes {found[passes]}; {before}"

    @property
    def floor(self) -> Version:
        """The floor in pyproject.toml."""
        project = _project()
        for text in [
            *project["dependencies"],
            *(t for some in project["optional-dependencies"].values() for t in some),
        ]:
            wanted = Requirement(text)
            if canonicalize_name(wanted.name) == self.package:
                return Version(next(iter(wanted.specifier)).version)
        raise SystemExit(f"{self.package} is no dependency of pyproject.toml")


def releases(package: str) -> list[Version]:
    """Return the releases of a package that have a file which is not yanked, oldest first; no pre-releases."""
    request = urllib.request.Request(f"{INDEX}/{package}/", headers={"Accept": "application/vnd.pypi.simple.v1+json"})
    with urllib.request.urlopen(request) as answer:
        found = json.load(answer)
    kept = set()
    for file in found["files"]:
        parts = file["filename"].split("-") if file["filename"].endswith(".whl") else []
        if len(parts) < 5 or file.get("yanked"):
            continue
        try:
            version = Version(parts[1])
        except InvalidVersion:
            continue
        if not version.is_prerelease:
            kept.add(version)
    return sorted(kept)


def _project() -> dict[str, dict[str, list[str]]]:
    project: dict[str, dict[str, list[str]]] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    return project


def _names(requirements: list[str]) -> list[str]:
    return [canonicalize_name(Requirement(text).name) for text in requirements]


def main() -> None:
    """Find the floor of each package that is named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("packages", nargs="+", choices=sorted({*TESTS, *PROGRAMS}), metavar="PACKAGE")
    parser.add_argument(
        "--only", nargs="+", type=Version, default=(), metavar="RELEASE", help="releases to try, no other"
    )
    parser.add_argument("--folder", type=Path, default=ROOT / ".floors-tried", help="folder for environments")
    parser.add_argument("--others", choices=("pinned", "floors"), default="pinned", help="releases of the others")
    parser.add_argument("--seconds", type=int, default=1200, help="limit of one run of the tests")
    chosen = parser.parse_args()
    chosen.folder.mkdir(parents=True, exist_ok=True)
    folder = chosen.folder.resolve()
    found = []
    for package in chosen.packages:
        search = Search(package, folder, chosen.seconds, chosen.others)
        for version in chosen.only:
            search.failure(version)
        if not chosen.only:
            found.append(search.run())
    print("\n".join(found))


if __name__ == "__main__":
    main()
