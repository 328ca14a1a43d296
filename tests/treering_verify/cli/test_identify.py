"""Indexes of keys on the command line: built, searched, refused, and never shown."""

from __future__ import annotations

import json
import re
import stat
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from helpers.leaks import shows_any
from PIL import Image

from treering_verify.cli.main import main
from treering_verify.watermark.keys.index import KeyIndex
from treering_verify.watermark.keys.key import Family, Key

SHAPE = (4, 32, 32)
FAMILY = Family.choose(SHAPE)
SECRET = bytes(range(32))


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(a) for a in arguments])


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    (tmp_path / "my.secret").write_bytes(SECRET)
    (tmp_path / "my.secret").chmod(0o600)
    return tmp_path / "my.secret"


def test_an_index_is_built_searched_and_one_of_its_keys_derived_again(
    secret: Path, tiny_folder: Path, tmp_path: Path
) -> None:
    index, key = tmp_path / "my.index", tmp_path / "user-3.key.json"
    made = run("keys", "index", "--from-secret", secret, "--generate", 12, "--output", index, "--model", tiny_folder)
    assert made.exit_code == 0 and made.stdout == "" and "12 keys (random" in made.stderr
    assert "after the correction for 12 keys" in made.stderr
    assert stat.S_IMODE(index.stat().st_mode) == 0o600
    options = ["--from-secret", secret, "--model", tiny_folder]
    assert run("keygen", *options, "--index-name", "user-3", "--output", key).exit_code == 0
    loaded = Key.load(key)
    assert (
        loaded.name == "user-3" and loaded.numbers.tolist() == Key.of_index(SECRET, FAMILY, "user-3").numbers.tolist()
    )
    assert KeyIndex.load(index).entries(np.array([3]))[1] == [loaded.fingerprint]
    # Further keys join under numbers of their own; names may come from a file.
    (tmp_path / "names.txt").write_text("ada\nuser-3\n")
    listed = tmp_path / "named.index"
    assert run("keys", "index", *options, "--names", tmp_path / "names.txt", "--output", listed).exit_code == 0
    assert KeyIndex.load(listed).entries(np.array([1]))[1] == [loaded.fingerprint]
    later = tmp_path / "later.index"
    assert run("keys", "index", *options, "--generate", 2, "--first", 2, "--output", later).exit_code == 0
    assert KeyIndex.load(later).entries(np.array([1]))[1] == [loaded.fingerprint]


def test_images_that_each_carry_a_key_of_their_own_are_named_by_an_index_of_the_same_secret(
    secret: Path, tiny_folder: Path, tmp_path: Path
) -> None:
    options = ["--from-secret", secret, "--prefix", "edition", "--pattern", "rings", "--model", tiny_folder]
    made = run("generate", *options, "--seed", 3, "--count", 2, "--steps", 1, "--output", tmp_path / "made")
    assert made.exit_code == 0 and len(made.stdout.splitlines()) == 2
    sidecars = [json.loads((tmp_path / "made" / f"marked-00000{seed}.json").read_text()) for seed in (3, 4)]
    assert [one["key"] for one in sidecars] == ["edition-3", "edition-4"]
    assert run("keys", "index", *options, "--generate", 5, "--output", tmp_path / "my.index").exit_code == 0
    names, prints, _ = KeyIndex.load(tmp_path / "my.index").entries(np.array([3, 4]))
    assert names == ["edition-3", "edition-4"] and prints == [one["fingerprint"] for one in sidecars]
    family = Family.choose(FAMILY.latent_shape, pattern="rings")
    numbers = [n for seed in (3, 4) for n in Key.of_index(SECRET, family, f"edition-{seed}").numbers]
    assert not shows_any(made.output + json.dumps(sidecars), numbers)


def test_an_image_that_carries_a_key_of_its_own_is_named_by_it(secret: Path, tmp_path: Path) -> None:
    index = tmp_path / "my.index"
    made = run("generate", "--from-secret", secret, "--seed", 11, "--count", 2, "--steps", 20, "--output", tmp_path)
    options = ["--from-secret", secret, "--generate", 20, "--prefix", "image", "--output", index]
    assert run("keys", "index", *options).exit_code == 0
    assert run("generate", "--unmarked", "--seed", 11, "--steps", 20, "--output", tmp_path).exit_code == 0
    files = [*made.stdout.split(), tmp_path / "unmarked-000011.png"]
    found = run("identify", *files, "--key", index, "--format", "jsonl")
    records = [json.loads(line) for line in found.stdout.splitlines()]
    assert [(r["verdict"], r["key"]) for r in records] == [
        ("detected", "image-11"),
        ("detected", "image-12"),
        ("no evidence", None),
    ]


def test_keys_for_each_image_are_refused_where_they_could_not_be_what_was_meant(
    secret: Path, tiny_folder: Path, tmp_path: Path
) -> None:
    key, output = tmp_path / "k.json", tmp_path / "made"
    Key.generate(SHAPE, name="k", seed=1).save(key)
    of_secret = ["--from-secret", secret, "--model", tiny_folder]
    for wrong, words in (
        (["--key", key, "--from-secret", secret], "give one of"),
        (["--unmarked", "--from-secret", secret], "give one of"),
        (["--key", key, "--pattern", "rings"], "--pattern applies to new keys"),
        (["--unmarked", "--inner-radius", 2], "--inner-radius applies to new keys"),
        (["--key", key, "--prefix", "x"], "--prefix applies to new keys"),
        ([*of_secret, "--prefix", "../x"], "--prefix and a seed"),
        ([*of_secret, "--prefix", "x" * 60, "--seed", 99998, "--count", 3], "--prefix and a seed"),
        ([*of_secret, "--pattern", "rings", "--channels", 3, "--outer-radius", 8], "too few for 1e-6"),
        (["--from-secret", tmp_path / "none"], "cannot read"),
        ([*of_secret, "--seed", 2**63 - 300, "--count", 301], "a seed is out of range"),
    ):
        refused = run("generate", *wrong, "--output", output)
        assert refused.exit_code == 2 and words in refused.stderr, refused.output
    secret.chmod(0o644)
    open_to_all = run("generate", *of_secret, "--output", output)
    assert open_to_all.exit_code == 2 and "chmod 600" in open_to_all.stderr
    assert not output.exists()


def test_every_format_names_the_best_matches_and_shows_no_number_of_a_key(
    secret: Path, tiny_folder: Path, tmp_path: Path
) -> None:
    index, image, broken = tmp_path / "my.index", tmp_path / "grey.png", tmp_path / "broken.png"
    output = run("keys", "index", "--from-secret", secret, "--generate", 9, "--output", index).output
    Image.linear_gradient("L").resize((128, 128)).save(image)
    broken.write_bytes(b"no image")
    call = ["identify", image, broken, "--key", index, "--top", 3, "--model", tiny_folder]
    text, lines, array = (run(*call, "--format", style) for style in ("text", "jsonl", "json"))
    assert [r.exit_code for r in (text, lines, array)] == [3] * 3  # one could not be judged
    records = [json.loads(line) for line in lines.stdout.splitlines()]
    assert [(r["path"], r["status"], r["code"]) for r in records] == [
        (str(image), "ok", ""),
        (str(broken), "error", "not_an_image"),
    ]
    assert [r["path"] for r in json.loads(array.stdout)] == [str(image), str(broken)]
    good, bad = records
    assert good["keys_tried"] == 9 and len(good["matches"]) == 3 and bad["matches"] == []
    assert good["verdict"] == "no evidence" and good["key"] is None and good["schema_version"] == 2
    ranks = [m["log10_pvalue"] for m in good["matches"]]
    assert ranks == sorted(ranks) and good["log10_pvalue"] == ranks[0]
    assert len(re.findall(r"^ +[123]\. key user-\d [0-9a-f]{16}  p \S+ over 9 keys", text.stdout, re.M)) == 3
    shown = output + text.output + lines.output + array.output
    numbers = [n for i in range(9) for n in Key.of_index(SECRET, FAMILY, f"user-{i}").numbers]
    assert shows_any(json.dumps(numbers[-1]), numbers) and not shows_any(shown, numbers)


def test_exit_codes_are_those_of_verify(secret: Path, tiny_folder: Path, tmp_path: Path) -> None:
    folder, image = tmp_path / "keys", tmp_path / "gradient.png"
    folder.mkdir()
    for i in range(2):
        Key.generate(SHAPE, name=f"k{i}", seed=i).save(folder / f"k{i}.json")
    Image.linear_gradient("L").resize((128, 128)).save(image)
    call = ["identify", image, "--model", tiny_folder, "--key"]
    assert run(*call, folder).exit_code == 0
    assert run(*call, folder / "k0.json").exit_code == 0
    assert run(*call, folder, "--fail-on", "no-evidence").exit_code == 1
    assert run(*call, folder, "--alpha", 0.999_999_9, "--fail-on", "detected").exit_code in (0, 1)
    for wrong, message in ((tmp_path / "none", "cannot read"), (tmp_path, "no *.json"), (image, "not a key file")):
        refused = run(*call, wrong)
        assert refused.exit_code == 2 and message in refused.stderr
    twice = run(*call, folder, "--key", folder / "k0.json")
    assert twice.exit_code == 2 and "k0" in twice.stderr


def test_an_index_of_key_files_refuses_what_is_mixed_missing_or_asked_for_twice(secret: Path, tmp_path: Path) -> None:
    folder, index = tmp_path / "keys", tmp_path / "my.index"
    folder.mkdir()
    for i in range(3):
        Key.generate(SHAPE, name=f"k{i}", seed=i).save(folder / f"k{i}.json")
    assert run("keys", "index", folder, "--output", index, "--dtype", "float32").exit_code == 0
    assert KeyIndex.load(index).numbers.dtype == np.float32
    assert "never overwritten" in run("keys", "index", folder, "--output", index).stderr
    Key.generate(SHAPE, name="r", pattern="rings", seed=1).save(folder / "r.json")
    (tmp_path / "names").write_text("good\nJohn Smith\n")
    (tmp_path / "twice").write_text("a\na\n")
    for arguments, message in (
        ([folder], "another family"),
        ([], "no keys to index"),
        ([folder, "--generate", 3], "need --from-secret"),
        (["--from-secret", secret], "--generate N or --names"),
        (["--from-secret", secret, "--generate", 3, folder], "no key files"),
        (["--from-secret", secret, "--generate", 3, "--names", tmp_path / "names"], "--generate N or --names"),
        (["--from-secret", secret, "--names", tmp_path / "names"], "line 2"),
        (["--from-secret", secret, "--names", tmp_path / "twice"], "twice"),
        (["--from-secret", secret, "--names", tmp_path / "none"], "cannot read"),
        (["--from-secret", tmp_path / "none", "--generate", 3], "cannot read"),
        (["--from-secret", secret, "--generate", 3, "--channels", "x"], "--channels"),
        (["--from-secret", secret, "--generate", 3, "--prefix", "../x"], "name"),
    ):
        refused = run("keys", "index", *arguments, "--output", tmp_path / "other")
        assert refused.exit_code == 2 and message in refused.stderr, arguments
    secret.chmod(0o644)  # it stands for all keys, and is guarded as they are
    for arguments in (["keys", "index", "--generate", 3], ["keygen", "--index-name", "a"]):
        refused = run(*arguments, "--from-secret", secret, "--output", tmp_path / "other")
        assert refused.exit_code == 2 and "chmod 600" in refused.stderr
    assert not (tmp_path / "other").exists()
    assert run("keygen", "--index-name", "a", "--output", tmp_path / "k").exit_code == 2


def test_the_commands_within_keys_have_help_and_a_runnable_example() -> None:
    for command in ("index",):
        result = run("keys", command, "--help")
        assert result.exit_code == 0
        assert f"Example: treering keys {command}" in re.sub(r"\s+", " ", result.output)
