"""Mistakes are told at once: with exit code 2, with what to do, and before torch is imported."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from treering_verify.audit.inputs.manifests import check_manifest
from treering_verify.audit.inputs.sources import Inputs
from treering_verify.audit.settings import early_facts
from treering_verify.cli.options.images import MOST_IN_FOLDER, images_of
from treering_verify.detection.recheck import read_records
from treering_verify.models import ModelSource
from treering_verify.watermark.keys.key import Key

PROGRAM = """
import sys
from treering_verify.cli.main import main
code = 0
try:
    main(sys.argv[1:])
except SystemExit as end:
    code = end.code
print("torch" in sys.modules)
sys.exit(code)
"""
ONE_BY_ONE = """
import json, os, sys
from click.testing import CliRunner
from treering_verify.cli.main import main
for folder, arguments in json.loads(sys.argv[1]):
    before = "torch" in sys.modules
    os.chdir(folder)
    done = CliRunner().invoke(main, arguments)
    ended = done.exception is None or isinstance(done.exception, SystemExit)
    code = done.exit_code if ended else repr(done.exception)
    print(json.dumps([code, done.stdout, done.stderr, "torch" in sys.modules and not before]), flush=True)
"""
ABSENT = "cuda" if sys.platform == "darwin" else "mps"  # no machine has both
VERIFY = ("verify", "image.png", "--key", "my.key.json")

Damage = Callable[[Path], object]


def nothing(folder: Path) -> None:
    pass


def many_images(folder: Path) -> None:
    (folder / "many").mkdir()
    data = (folder / "image.png").read_bytes()
    for i in range(MOST_IN_FOLDER + 1):
        (folder / "many" / f"{i}.png").write_bytes(data)


def another_class(folder: Path) -> None:
    (folder / "model").mkdir()
    (folder / "model" / "model_index.json").write_text('{"_class_name": "StableDiffusionPipelin"}')


def table(folder: Path) -> None:
    (folder / "m.csv").write_text("path,label\nimage.png,1\n")
    (folder / "l.txt").write_text("image.png\n")
    (folder / "text.txt").write_text("hello")


def parquet(path: Path) -> None:
    pq.write_table(pa.table({"path": ["image.png"], "label": [1]}), path)


def arrow(path: Path) -> None:
    content = pa.table({"path": ["image.png"], "label": [1]})
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, content.schema) as writer:
        writer.write_table(content)


def another_audit(folder: Path) -> None:
    inputs = {"paths": ["other"], "files_from": [], "null": False, "manifests": [], "column": "", "root": ""}
    facts = early_facts([Key.load(folder / "my.key.json")], 1e-6, Inputs(), 1000)
    facts |= {"weights": "x", "inputs": inputs | {"folder": str(folder)}}
    (folder / "earlier" / "state").mkdir(parents=True)
    (folder / "earlier" / "state" / "settings.json").write_text(json.dumps(facts))


AUDIT = ("audit", "--key", "my.key.json", "--output", "out")
MISTAKES: dict[str, tuple[Damage, tuple[str, ...], tuple[str, ...]]] = {
    "no such image": (nothing, ("verify", "nothing.png", "--key", "my.key.json"), ("nothing.png", "no such file")),
    "an alpha beyond 1": (nothing, (*VERIFY, "--alpha", "2"), ("--alpha", "between 0 and 1")),
    "an alpha that is no number": (nothing, (*VERIFY, "--alpha", "nan"), ("--alpha", "between 0 and 1")),
    "no such key": (nothing, ("verify", "image.png", "--key", "none.json"), ("none.json", "No such file")),
    "an image for a key": (
        nothing,
        ("audit", ".", "--key", "image.png", "--output", "out"),
        ("image.png is not a key file", "treering keygen"),
    ),
    "a key for other noise": (
        lambda folder: Key.generate((4, 64, 64), name="large").save(folder / "large.key.json"),
        ("identify", "image.png", "--key", "large.key.json"),
        ("(4, 64, 64)", "treering keygen --model"),
    ),
    "no such device": (nothing, (*VERIFY, "--device", ABSENT), (f"no device {ABSENT} here", "--device cpu")),
    "a hub that cannot be reached": (nothing, (*VERIFY, "--model", "somebody/model"), ("somebody/model", "reached")),
    "no such model": (nothing, (*VERIFY, "--model", "landscpe"), ("did you mean landscape?",)),
    "no such class of pipeline": (
        another_class,
        (*VERIFY, "--model", "model"),
        ("did you mean StableDiffusionPipeline?",),
    ),
    "no such method": (nothing, (*VERIFY, "--inversion", "forwardstep"), ("did you mean forward-step?",)),
    "no such pattern": (nothing, ("keygen", "--pattern", "ring", "--output", "new"), ("did you mean rings?",)),
    "no such attack": (
        nothing,
        ("attack", "image.png", "--attack", "flip+jpgg:quality=25", "--output", "out"),
        ("did you mean jpeg?",),
    ),
    "no such class": (
        nothing,
        ("generate", "--unmarked", "--class", "lakes", "--output", "out"),
        ("did you mean lake?",),
    ),
    "no such benchmark": (nothing, ("benchmark", "detecton", "--output", "out"), ("did you mean detection?",)),
    "an audit of nothing": (nothing, ("audit", "nodir", "--key", "my.key.json", "--output", "out"), ("nodir",)),
    "an output that is a file": (
        nothing,
        ("audit", ".", "--key", "my.key.json", "--output", "image.png"),
        ("image.png", "name a folder"),
    ),
    "an output within a file": (
        nothing,
        ("generate", "--unmarked", "--output", "image.png/out"),
        ("image.png is a file",),
    ),
    "an output in no folder": (nothing, ("calibrate", ".", "--output", "none/x.json"), ("no folder none",)),
    "a large folder": (
        many_images,
        ("verify", "many", "--key", "my.key.json"),
        (f"{MOST_IN_FOLDER + 1} images", "treering audit many"),
    ),
    "a folder of no images": (
        lambda folder: (folder / "empty").mkdir(),
        ("verify", "empty", "--key", "my.key.json"),
        ("no images directly in empty",),
    ),
    "an empty path": (nothing, ("verify", "", "--key", "my.key.json"), ("the path is empty",)),
    "an empty output": (nothing, ("audit", ".", "--key", "my.key.json", "--output", ""), ("the path is empty",)),
    "a link that leads nowhere": (
        lambda folder: (folder / "link.png").symlink_to("nothing"),
        ("verify", "link.png", "--key", "my.key.json"),
        ("link.png", "does not exist"),
    ),
    "a pipe": (
        lambda folder: os.mkfifo(folder / "pipe"),
        ("identify", "pipe", "--key", "my.key.json"),
        ("pipe", "no regular file"),
    ),
    "JSON of another kind for a key": (
        lambda folder: (folder / "x.json").write_text('{"a": 1}'),
        ("verify", "image.png", "--key", "x.json"),
        ("x.json is not a key file", "treering keygen"),
    ),
    "an output of another audit": (
        another_audit,
        ("audit", "image.png", "--key", "my.key.json", "--output", "earlier"),
        ('inputs.paths was ["other"] and is ["image.png"]', "name another --output"),
    ),
    "a text for a profile": (table, (*VERIFY, "--profile", "text.txt"), ("text.txt is not a profile",)),
    "a folder of no profiles": (
        lambda folder: (folder / "empty").mkdir(),
        (*VERIFY, "--profile", "empty"),
        ("no profile in empty",),
    ),
    "an image for an inverter": (nothing, (*VERIFY, "--inverter", "image.png"), ("image.png is not an inverter",)),
    "a variant of an embedded model": (nothing, (*VERIFY, "--variant", "fp16"), ("no other variant",)),
    "a revision of an embedded model": (nothing, (*VERIFY, "--revision", "main"), ("no other revision",)),
    "a folder for a list": (nothing, (*AUDIT, "--files-from", "."), ("is a folder",)),
    "a folder for a table": (nothing, (*AUDIT, "--manifest", "."), ("is a folder",)),
    "an image for a list": (nothing, (*AUDIT, "--files-from", "image.png"), ("an image, and no list", "PATH")),
    "an archive for a list": (
        lambda folder: (folder / "x.zip").write_bytes(b"PK\3\4" + bytes(50)),
        (*AUDIT, "--files-from", "x.zip"),
        ("x.zip", "a ZIP archive, and no list"),
    ),
    "a URL for an image": (
        nothing,
        ("verify", "https://example.org/x.png", "--key", "my.key.json"),
        ("this is a URL", "treering audit"),
    ),
    "a local URL for an image": (
        nothing,
        ("verify", "file:///x.png", "--key", "my.key.json"),
        ("give a path, and no URL",),
    ),
    "an image for a table": (nothing, (*AUDIT, "--manifest", "image.png"), ("image.png", "an image, and no table")),
    "no such column": (table, (*AUDIT, "--manifest", "m.csv", "--column", "none"), ("choose one of path, label",)),
    "a list for a table": (table, (*AUDIT, "--manifest", "l.txt"), ("--files-from",)),
    "a column of no table": (nothing, (*AUDIT, ".", "--column", "path"), ("--column", "--manifest")),
    "zero bytes in no list": (nothing, (*AUDIT, ".", "--null"), ("--null", "--files-from")),
    "a root of no list": (nothing, (*AUDIT, ".", "--root", "."), ("--root", "--files-from")),
    "a root that is a file": (table, (*AUDIT, "--files-from", "l.txt", "--root", "l.txt"), ("is not a folder",)),
    "an image to list": (nothing, ("keys", "list", "image.png"), ("image.png is not a key file", "treering keygen")),
    "a list without a line": (
        lambda folder: (folder / "l.txt").write_text("\n\r\n"),
        (*AUDIT, "--files-from", "l.txt"),
        ("nothing to audit", "l.txt has no entry"),
    ),
    "a table without a row": (
        lambda folder: (folder / "m.csv").write_text("path,label\n"),
        (*AUDIT, "--manifest", "m.csv"),
        ("nothing to audit", "m.csv has no entry"),
    ),
    "a folder without a file": (
        lambda folder: (folder / "empty" / "inner").mkdir(parents=True),
        (*AUDIT, "empty"),
        ("nothing to audit", "no file is in empty"),
    ),
    "no such column of Parquet": (
        lambda folder: parquet(folder / "m.parquet"),
        (*AUDIT, "--manifest", "m.parquet", "--column", "none"),
        ("no column 'none'", "choose one of path, label"),
    ),
    "a column of numbers of Parquet": (
        lambda folder: parquet(folder / "m.parquet"),
        (*AUDIT, "--manifest", "m.parquet", "--column", "label"),
        ("'label' holds int64", "choose another with --column"),
    ),
    "no such column of Arrow": (
        lambda folder: arrow(folder / "m.arrow"),
        (*AUDIT, "--manifest", "m.arrow", "--column", "none"),
        ("choose one of path, label",),
    ),
    "a Parquet file that is damaged": (
        lambda folder: (folder / "m.parquet").write_bytes(b"PAR1" + bytes(100)),
        (*AUDIT, "--manifest", "m.parquet"),
        ("m.parquet cannot be used",),
    ),
    "no such column of a large table": (
        lambda folder: (folder / "m.csv").write_text("path,label\n" + "image.png,1\n" * 200_000),
        (*AUDIT, "--manifest", "m.csv", "--column", "none"),
        ("choose one of path, label",),
    ),
    "a large table of numbers": (
        lambda folder: (folder / "m.jsonl").write_text('{"path": 1}\n' * 200_000),
        (*AUDIT, "--manifest", "m.jsonl"),
        ("line 1", "'path' is int, and not text"),
    ),
    "a detector without calibration": (nothing, (*VERIFY, "--detector", "distance"), ("needs --calibration",)),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    Image.new("RGB", (16, 16)).save(tmp_path / "image.png")
    Key.generate((4, 32, 32), seed=1).save(tmp_path / "my.key.json")
    return tmp_path


def run(folder: Path, *arguments: str, program: str = PROGRAM) -> subprocess.CompletedProcess[str]:
    """Run a command, which then prints whether torch was imported."""
    proxies = ("http_proxy", "https_proxy", "all_proxy", "hf_hub_offline")
    environment = {k: v for k, v in os.environ.items() if k.lower() not in proxies}
    environment |= {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(folder / "cache")}
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=folder,
        env={**environment, "PYTHONPATH": os.pathsep.join(filter(None, map(os.path.abspath, sys.path)))},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, list[Any]]]:
    """Make every mistake in a folder of its own, all in one process, and return the folders and what was said."""
    base = tmp_path_factory.mktemp("mistakes")
    Image.new("RGB", (16, 16)).save(base / "image.png")
    Key.generate((4, 32, 32), seed=1).save(base / "my.key.json")
    folders = [Path(shutil.copytree(base, tmp_path_factory.mktemp("mistake") / "in")) for _ in MISTAKES]
    for folder, (damage, _, _) in zip(folders, MISTAKES.values(), strict=True):
        damage(folder)
    calls = [(str(folder), asked) for folder, (_, asked, _) in zip(folders, MISTAKES.values(), strict=True)]
    done = run(base, json.dumps(calls), program=ONE_BY_ONE)
    said = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(said) == len(MISTAKES), done.stderr
    return dict(zip(MISTAKES, zip(folders, said, strict=True), strict=True))


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_told_before_torch_is_imported(name: str, answers: dict[str, tuple[Path, list[Any]]]) -> None:
    folder, (code, stdout, stderr, imported) = answers[name]
    assert (code, stdout, imported) == (2, "", False), stderr
    flat = " ".join(stderr.split())
    assert all(words in flat for words in MISTAKES[name][2]), stderr
    assert "Traceback" not in stderr and not (folder / "out").exists()


@pytest.mark.parametrize("command", ["verify", "identify"])
def test_files_that_are_no_images_are_told_before_torch_is_imported(command: str, folder: Path) -> None:
    table(folder)
    (folder / "x.pdf").write_bytes(b"%PDF-1.7 and so on")
    done = run(folder, command, "text.txt", "x.pdf", "--key", "my.key.json")
    assert done.returncode == 3 and done.stdout.endswith("False\n"), done.stdout
    assert "text.txt" in done.stdout and "not_an_image" in done.stdout
    assert "x.pdf" in done.stdout and "container: this is a PDF document: extract its images" in done.stdout


@pytest.mark.parametrize("command", ["verify", "identify", "decode"])
def test_records_of_files_that_are_no_images_need_no_model(command: str, folder: Path) -> None:
    table(folder)
    key = Key.generate((4, 32, 32), name="one", pattern="gaussian-shading" if command == "decode" else "random", seed=1)
    key.save(folder / "one.key.json")
    done = run(folder, command, "text.txt", "--key", "one.key.json", "--format", "jsonl", "--alpha", "1e-3")
    line, torch = done.stdout.splitlines()
    assert (done.returncode, torch) == (3, "False"), done.stderr
    record = json.loads(line)
    assert (record["status"], record["code"], record["verdict"]) == ("error", "not_an_image", None)
    assert record["schema_version"] and record["time"] and record["alpha"] == 1e-3
    assert record["sha256"] == hashlib.sha256((folder / "text.txt").read_bytes()).hexdigest()
    origin = record["provenance"]
    assert (origin["model"], origin["weights"]) == ("landscape", None) and origin["versions"]["treering-verify"]
    assert origin["keys"] == [{"name": "one", "fingerprint": key.fingerprint}]
    assert origin["settings"]["search"] == ("off" if command == "decode" else "fast")
    assert ("matches" in record, record.get("message")) == (command == "identify", "" if command == "decode" else None)
    (folder / "records.jsonl").write_text(line)
    assert read_records(folder / "records.jsonl") == [record]


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="no /proc, which nobody can write to")
@pytest.mark.parametrize("option", [("audit", ".", "--output", "/proc/out"), ("keygen", "--output", "/proc/new.json")])
def test_an_output_where_nothing_can_be_made_is_told_to_an_administrator_too(
    option: tuple[str, ...], folder: Path
) -> None:
    done = run(folder, *option, *(("--key", "my.key.json") if "audit" in option else ()))
    assert (done.returncode, done.stdout) == (2, "False\n"), done.stderr
    assert "cannot be written to" in " ".join(done.stderr.split())


def test_a_table_whose_first_mebibyte_names_no_file_is_not_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    for encoding in ("utf-8", "utf-16"):
        path.write_text("path,label\n" + ",1\n" * 500_000 + "image.png,1\n", encoding)
        assert check_manifest(str(path), "")
        path.write_text("path,label\n" + ",1\n", encoding)
        assert not check_manifest(str(path), "")


def test_a_gpu_is_not_looked_for_where_all_are_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    from treering_verify.models import source

    monkeypatch.setattr("importlib.metadata.version", lambda name: "2.13.0")
    monkeypatch.setattr(source, "_DRIVERS", ("/",))
    assert source._may_have_cuda()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert not source._may_have_cuda()
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.setattr(source, "_DRIVERS", ("/nothing/here",))
    assert source._may_have_cuda() is not sys.platform.startswith("linux")
    monkeypatch.setattr("importlib.metadata.version", lambda name: "2.13.0+cpu")
    assert not source._may_have_cuda()
    ModelSource("landscape", device="cpu").check_device()


def test_a_folder_says_which_files_may_hold_images_that_are_not_judged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    contents = {
        "a.png": b"\x89PNG\r\n\x1a\n",
        "b.exr": b"\x76\x2f\x31\x01",
        "c.zip": b"PK\x03\x04",
        "notes.txt": b"notes",
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content + bytes(40))
    found = images_of((tmp_path,), ModelSource("landscape"))
    assert [path.name for path in found] == ["a.png", "b.exr"]
    assert "Not judged here: c.zip. treering audit" in capsys.readouterr().err
    for i in range(9):
        (tmp_path / f"{i}.pdf").write_bytes(b"%PDF-1.7")
    images_of((tmp_path,), ModelSource("landscape"))
    assert "0.pdf, 1.pdf, 2.pdf, 3.pdf, 4.pdf and 5 more" in capsys.readouterr().err
