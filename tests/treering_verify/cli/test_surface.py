"""The command line's surface: frozen, grouped, complete in help, and the same as Python's."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import fields
from typing import Any

import click
import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner
from helpers.surface import STORED, lines

import treering_verify as tv
from treering_verify.attacks import ATTACKS
from treering_verify.audit.inputs.reader_pool import Limits
from treering_verify.audit.inputs.sources import Inputs
from treering_verify.audit.inputs.urls import Access
from treering_verify.audit.options import Options
from treering_verify.cli.main import main
from treering_verify.cli.options.types import Named
from treering_verify.detection.calibration.build import calibrate
from treering_verify.detection.self_test import check_model
from treering_verify.inversion.decoder import METHODS
from treering_verify.models import ModelSource
from treering_verify.training.examples import FitOptions
from treering_verify.watermark.patterns import PATTERNS


def commands(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    for name, command in group.commands.items():
        yield (*path, name), command
        yield from (((*path, name, each), action) for each, action in getattr(command, "actions", {}).items())
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))


COMMANDS = dict(commands(main))


def test_the_surface_changes_on_purpose_only() -> None:
    assert list(lines(main, "treering")) == STORED.read_text().splitlines(), (
        "the command line changed: if that is meant, run python tests/helpers/surface.py and commit surface.txt"
    )


def test_commands_stand_in_four_groups_with_short_helps_that_are_whole() -> None:
    shown = CliRunner().invoke(main, ["--help"]).output
    assert [title for title in main.sections if f"\n{title}:\n" in shown] == ["Mark", "Verify", "Evaluate", "Manage"]
    assert {command.name for section in main.sections.values() for command in section} == set(main.commands)
    for path, command in COMMANDS.items():
        short = command.get_short_help_str(1000)
        assert len(short) <= 45 and "..." not in short, path
        assert len(path) > 1 or short in shown


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_option_has_help_under_a_topic_and_the_first_topic_is_what_everyone_needs(path: tuple[str, ...]) -> None:
    command = COMMANDS[path]
    shown = CliRunner().invoke(main, [*path, "--help"]).output
    options = [option for option in command.params if isinstance(option, click.Option)]
    for option in options:
        assert option.help and option.help[0].isupper() and option.help.rstrip()[-1] in ".;", option.opts
        assert not option.help.startswith("Of ")
        flat = " ".join(shown.replace("-\n", "-").split())
        if isinstance(option.type, Named):
            words = flat.replace("- ", "-")
            listed = "|".join(option.type.names) in flat or all(name in words for name in option.type.names)
            assert listed, option.opts
    required = [option for option in options if option.required]
    assert all(getattr(option, "topic", None) == "Options" for option in required)


def test_the_shell_completes_choices() -> None:
    def completed(*words: str) -> list[str]:
        found = ShellComplete(main, {}, "treering", "_TREERING_COMPLETE").get_completions(list(words[:-1]), words[-1])
        return [item.value for item in found]

    assert completed("keygen", "--pattern", "r") == [name for name in PATTERNS if name.startswith("r")]
    assert completed("verify", "--inversion", "") == ["auto", *METHODS]
    assert completed("attack", "x.png", "--attack", "jp") == ["jpeg"]
    assert completed("attack", "x.png", "--attack", "blur+fl") == ["blur+flip"]
    assert set(ATTACKS) <= set(completed("attack", "x.png", "--attack", ""))
    assert completed("benchmark", "thr") == ["throughput"]
    assert completed("demo", "--model", "land") == ["landscape", "landscape-tiny", "landscape-sd"]
    assert completed("audit", "--screening", "o") == ["on", "off"]
    assert completed("verify", "--search", "") == ["auto", "off", "quick", "fast", "thorough"]


def default_of(command: str, name: str) -> Any:
    (option,) = [each for each in COMMANDS[*command.split(),].params if each.name == name]
    unset = option.default is None or "UNSET" in repr(option.default)
    return (False if isinstance(option, click.Option) and option.is_flag else None) if unset else option.default


def test_options_have_the_names_and_defaults_of_pythons_arguments() -> None:
    arguments = inspect.signature(tv.Detector).parameters.values()
    assert next(iter(arguments)).name == "keys"
    for argument in list(arguments)[1:]:
        command = "audit" if argument.name == "screening" else "verify"
        assert default_of(command, argument.name) == argument.default, argument.name
    for field in fields(ModelSource):
        if field.name != "name":
            assert default_of("verify", field.name) == field.default, field.name
    top = inspect.signature(tv.Detector.identify).parameters["top"].default
    assert default_of("identify", "top") == top


@pytest.mark.parametrize(
    "command, of, but_for",
    [
        ("audit", Options, ("limits",)),
        ("audit", Limits, ("access",)),
        ("audit", Access, ()),
        ("audit", Inputs, ("paths",)),
        ("generate", tv.generate, ("prompts", "batch_size")),
        ("calibrate", calibrate, ("inversion", "advance")),
        ("models check", check_model, ("prompts", "seed")),
        (
            "models fit",
            FitOptions,
            ("images", "steps", "points", "stages", "seed"),
        ),  # some depend on the model
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_settings_of_other_commands_have_the_names_and_defaults_of_pythons(
    command: str, of: Any, but_for: tuple[str, ...]
) -> None:
    for argument in inspect.signature(of).parameters.values():
        if argument.name in but_for or argument.default is inspect.Parameter.empty:
            continue
        default = argument.default
        if hasattr(default, "__dataclass_fields__") or "factory" in repr(default):
            continue
        assert (default_of(command, argument.name) or None) == (default or None), argument.name


def test_the_environment_names_an_option_as_its_flag_is_called() -> None:
    asked = {"TREERING_ATTACK_FORMAT": "xml"}
    result = CliRunner().invoke(main, ["attack", __file__, "--attack", "flip", "--output", "x"], env=asked)
    assert result.exit_code == 2 and "no format 'xml'" in result.stderr
