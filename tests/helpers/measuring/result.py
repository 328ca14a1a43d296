"""Results of scripts and commands: what one printed, with date, commit and the digests of the code that it measured.

`python tests/helpers/fragments.py measure` stores them beside the results of benchmarks, and in their form.
"""

from __future__ import annotations

import datetime
import hashlib
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from treering_verify.benchmark import BENCHMARKS
from treering_verify.benchmark.harness.code_digests import bare, code_digests
from treering_verify.benchmark.harness.provenance import commit_of_code
from treering_verify.benchmark.harness.scope import hardware

ROOT = Path(__file__).resolve().parents[3]
PATHS = ("", "detectors", "tests")


def modules(names: Iterable[str]) -> Iterator[str]:
    """Yield modules; the name of a benchmark stands for those that it measures."""
    for name in names:
        yield from BENCHMARKS[name].measured if name in BENCHMARKS else (name,)


def digests(names: Iterable[str]) -> dict[str, str]:
    """Return the digests of modules, and of scripts by their path."""
    found = list(dict.fromkeys(modules(names)))
    scripts = {name: ROOT / name for name in found if name.endswith(".py")}
    bared = {name: bare(path.read_text()) if path.is_file() else "" for name, path in scripts.items()}
    return {
        **code_digests(name for name in found if name not in scripts),
        **{name: hashlib.sha256(source.encode()).hexdigest()[:12] for name, source in bared.items()},
    }


def scripts_of(command: str) -> list[str]:
    """Return the Python files that a command names."""
    return [word.partition("::")[0] for word in shlex.split(command) if re.search(r"\.py(::|$)", word)]


def known(command: str) -> str:
    """Return why a command cannot be one of this repository: "" if it can."""
    from treering_verify.cli.main import main

    program, *words = shlex.split(command)
    if program == "treering":
        return "" if words and words[0] in main.commands else f"no command {' '.join(words[:1])}"
    if program not in ("python", "pytest"):
        return f"{program} is neither treering, python nor pytest"
    if words[0] == "-m" and words[1].startswith("treering_verify."):
        return "" if (ROOT / words[1].replace(".", "/")).with_suffix(".py").is_file() else f"no module {words[1]}"
    missing = [script for script in scripts_of(command) if not (ROOT / script).is_file()]
    return "names no script" if not scripts_of(command) else f"no {missing[0]}" if missing else ""


def printed(command: str) -> str:
    """Run a command from the repository's root with one thread, and return what it prints."""
    program, *words = shlex.split(command)
    start = {"treering": ["-m", "treering_verify"], "pytest": ["-m", "pytest", "-p", "no:cacheprovider"], "python": []}
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = os.pathsep.join(str(ROOT / path) for path in PATHS)
    done = subprocess.run(
        [sys.executable, *start[program], *words], cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True
    )
    if done.returncode:
        raise SystemExit(f"{command} ended with {done.returncode}:\n{done.stdout}")
    return done.stdout


def measured(name: str, command: str, on: list[str], output: str) -> dict[str, Any]:
    """Return the result of a command that measured modules and printed an output, as benchmarks store theirs."""
    commit, changed = commit_of_code()
    facts = {
        "images": "",
        "seeds": "",
        "model": "",
        "weights": "",
        "hardware": hardware(accelerated=False),
        "date": datetime.date.today().isoformat(),
        "commit": commit,
        "changed": changed,
        "repeat": command,
        "partial": "",
        "measured": [*on, *scripts_of(command)],
        "code": digests([*on, *scripts_of(command)]),
    }
    parts: dict[str, list[Any]] = {"tables": [], "figures": [], "parts": []}
    return {"name": name, "question": "", "answer": output.strip(), "facts": facts, **parts}
