"""Options from a TOML file: where they rank, and what a mistake in the file costs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from treering_verify.cli.configuration import read_defaults
from treering_verify.cli.main import main
from treering_verify.errors import UsageError


def written(folder: Path, text: str) -> Path:
    path = folder / "treering.toml"
    path.write_text(text)
    return path


def keygen(folder: Path, *arguments: object, config: Path | None = None, **environment: str) -> Result:
    before = ["--config", str(config)] if config else []
    output = folder / f"{len(list(folder.iterdir()))}.key.json"
    result = CliRunner().invoke(
        main, [*before, "keygen", "--output", str(output), *map(str, arguments)], env=environment
    )
    if result.exit_code == 0:
        result.made = json.loads(output.read_text())  # type: ignore[attr-defined]
    return result


def test_flags_go_before_the_environment_and_the_environment_before_the_file(tmp_path: Path) -> None:
    config = written(tmp_path, '[keygen]\nname = "file"\n')
    variable = {"TREERING_KEYGEN_NAME": "environment"}
    assert keygen(tmp_path, config=config).made["name"] == "file"  # type: ignore[attr-defined]
    assert keygen(tmp_path, config=config, **variable).made["name"] == "environment"  # type: ignore[attr-defined]
    flagged = keygen(tmp_path, "--name", "flag", config=config, **variable)
    assert flagged.made["name"] == "flag"  # type: ignore[attr-defined]


def test_the_file_can_be_named_in_the_environment_and_is_never_found_by_chance(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = written(tmp_path, '[keygen]\nname = "file"\n')
    monkeypatch.chdir(tmp_path)
    assert keygen(tmp_path).made["name"] != "file"  # type: ignore[attr-defined]
    named = keygen(tmp_path, TREERING_CONFIG=str(config))
    assert named.made["name"] == "file"  # type: ignore[attr-defined]


def test_a_key_outside_any_table_holds_for_every_command_that_knows_it(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        'model = "m"\n[verify]\nmodel = "other"\nkey = ["a", "b"]\nbatch-size = 2\n[keys.index]\ndtype = "x"\n',
    )
    defaults = read_defaults(path, main)
    assert defaults["verify"] == {"model": "other", "keys": ["a", "b"], "batch_size": 2}
    assert defaults["generate"] == {"model": "m"}
    assert defaults["keys"]["index"] == {"model": "m", "dtype": "x"}


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[verify]\nalhpa = 1e-9\n", "alhpa"),
        ("[verfiy]\nalpha = 1e-9\n", "verfiy"),
        ("colour = 1\n", "colour"),
        ("[keys]\nindex = 1\n", "index"),
        ("[keys.indices]\ndtype = 1\n", "indices"),
        ("[verify\n", "TOML"),
    ],
)
def test_a_mistake_in_the_file_is_named_and_nothing_runs(tmp_path: Path, text: str, named: str) -> None:
    config = written(tmp_path, text)
    with pytest.raises(UsageError, match=named):
        read_defaults(config, main)
    result = keygen(tmp_path, config=config)
    assert result.exit_code == 2 and named in result.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["treering.toml"]


def test_a_value_of_the_wrong_kind_is_refused_by_the_command(tmp_path: Path) -> None:
    config = written(tmp_path, '[keygen]\ninner-radius = "wide"\n')
    result = keygen(tmp_path, config=config)
    assert result.exit_code == 2 and "wide" in result.stderr


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    result = keygen(tmp_path, config=tmp_path / "none.toml")
    assert result.exit_code == 2 and "none.toml" in result.stderr


@pytest.mark.parametrize(
    ("table", "named"),
    [
        ("[verify]\nalpha = []\n", "alpha"),
        ("[calibrate]\nattack = [5]\n", "attack"),
        ("[keygen]\npattern = 3\n", "pattern"),
    ],
)
def test_a_value_that_no_flag_could_have_is_refused_by_the_option(tmp_path: Path, table: str, named: str) -> None:
    config = written(tmp_path, table)
    command = table[1 : table.index("]")]
    more = ["--output", str(tmp_path / "x")] if command != "verify" else ["--key", str(config)]
    files = [] if command == "keygen" else [str(config)]
    result = CliRunner().invoke(main, ["--config", str(config), command, *files, *more])
    assert result.exit_code == 2 and f"--{named}" in result.stderr, result.output
