"""Command line: parse, call, print. Data goes to stdout, everything else to stderr.

Exit codes: 0 ran; 1 what --fail-on names was found; 2 usage, key or model error; 3 finished, but some files could not be
judged; 130 interrupted.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from treering_verify import __version__
from treering_verify.cli.audit import audit
from treering_verify.cli.calibrate import EXACT, calibrate, detector_options, verdicts_of
from treering_verify.cli.decode import decode
from treering_verify.cli.generate import generate
from treering_verify.cli.keys import identify, keys
from treering_verify.cli.model_options import model_option
from treering_verify.cli.models import models
from treering_verify.cli.options import (
    UNJUDGED,
    command_of,
    key_options,
    pipeline_options,
    print_verdicts,
    progress,
    reach_of,
    read_secret,
    refuse_weak,
    reported_errors,
    search_options,
    verdict_options,
)
from treering_verify.cli.report import report
from treering_verify.errors import UsageError

if TYPE_CHECKING:
    from treering_verify.attacks.copies import AttackedCopy
    from treering_verify.cli.inversion_options import Asked
    from treering_verify.detection.search.search import Search
    from treering_verify.models import ModelSource
    from treering_verify.watermark.keys.key import Key

_ENVIRONMENT = "TREERING"


@click.group(context_settings={"auto_envvar_prefix": _ENVIRONMENT, "help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="treering")
@click.option("--config", type=click.Path(path_type=Path), help="TOML file of options; none is read unless named.")
@click.pass_context
def main(context: click.Context, config: Path | None) -> None:
    """Mark the noise of latent diffusion models, and verify later whether an image came out of them.

    Every option can also be set in the environment (TREERING_VERIFY_ALPHA=1e-9 is verify's --alpha) and in a TOML file
    (--config or TREERING_CONFIG), under the command's name: [verify], alpha = 1e-9. Flags go before the environment, and the
    environment before the file.
    """
    if config:
        from treering_verify.cli.configuration import read_defaults

        with reported_errors():
            context.default_map = read_defaults(config, main)


command = command_of(main)
main.add_command(audit)
main.add_command(generate)
main.add_command(identify)
main.add_command(keys)
main.add_command(report)
main.add_command(decode)
main.add_command(calibrate)
main.add_command(models)


@command("treering demo --output demo")
@click.option("--output", type=click.Path(path_type=Path), help="Folder to make; default: demo, demo-2, ...")
@model_option
def demo(output: Path | None, model: ModelSource) -> None:
    """Run the main job: key, marked and unmarked images, an attack, verdicts, and the recovered spectrum."""
    from treering_verify.cli.demo import run_demo

    run_demo(output, model, lambda line: click.echo(line))


@command("treering keygen --output my.key.json")
@click.option("--output", type=click.Path(path_type=Path), required=True, help="Key file to create (mode 0600).")
@click.option("--name", help="Name that verdicts call it; default: the file's name up to its first dot.")
@key_options
@click.option(
    "--from-secret", type=click.Path(path_type=Path), help="Derive the key from this file's bytes (16 or more)."
)
@click.option("--member", help="Derive the key that treering keys index --from-secret gives this name.")
@click.option("--message", help="With --pattern gaussian-shading: what images carry, 1 to 32 bytes; default: random.")
@click.option("--allow-weak", is_flag=True, help="Make a key although it can hardly reach p = 1e-6.")
@model_option
def keygen(
    output: Path,
    name: str | None,
    family: dict[str, Any],
    from_secret: Path | None,
    member: str | None,
    message: str | None,
    allow_weak: bool,
    model: ModelSource,
) -> None:
    """Make a secret key, and say how sure it could ever be. Patterns: docs/patterns.md."""
    from treering_verify.files import printable
    from treering_verify.models import latent_shape
    from treering_verify.watermark.keys.key import Family, Key

    shape = latent_shape(model)
    if member and (name or not from_secret):
        raise UsageError("--member names the key, and derives it from --from-secret FILE: give both, and no --name")
    name = name or output.name.split(".")[0]
    if from_secret and member:
        key = Key.member(read_secret(from_secret, private=True), Family.choose(shape, **family), member)
    elif from_secret:
        key = Key.from_secret(read_secret(from_secret), shape, name=name, **family)
    else:
        key = Key.generate(shape, name=name, **family)
    if message is not None:
        from treering_verify.detection.messages import with_message

        key = with_message(key, message)
    sentence = reach_of(key.family)[1] if allow_weak else refuse_weak(key.family, ", or --allow-weak")
    key.save(output)
    click.echo(f"{printable(str(output))}: {key.pattern} key {key.name}, fingerprint {key.fingerprint}", err=True)
    click.echo(sentence, err=True)


@command("treering verify images/*.png --key my.key.json")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--key", "key_files", multiple=True, required=True, type=click.Path(path_type=Path), help="Repeatable.")
@click.option(
    "--decoys",
    type=click.IntRange(0),
    default=0,
    help="Cross-check p by this many decoy keys, such as 100000; nothing is searched then.",
)
@detector_options
@verdict_options
@search_options
@pipeline_options
def verify(
    files: tuple[Path, ...],
    key_files: tuple[Path, ...],
    decoys: int,
    calibration: Path | None,
    detector: str,
    alpha: float,
    style: str,
    fail_on: tuple[str, ...],
    search: Search | None,
    model: ModelSource,
    pipeline: Asked,
) -> None:
    """Say for each image: detected (and by which key), no evidence, or inconclusive (and why)."""
    from treering_verify.detection.verification import verify_many
    from treering_verify.models import load_model

    keys, loaded = _load_keys(key_files), load_model(model)
    chosen = pipeline.pipeline(loaded)
    if detector == EXACT and calibration is None:
        verdicts = verify_many(files, keys, model=loaded, alpha=alpha, pipeline=chosen, search=search, decoys=decoys)
    else:
        verdicts = verdicts_of(files, keys, calibration, detector, decoys, loaded, alpha, chosen)
    print_verdicts(verdicts, len(files), "Verifying", style, fail_on)


def _list_attacks(context: click.Context, _: click.Parameter, wanted: bool) -> None:
    """Print the attacks and end, before any other option is asked for."""
    if wanted:
        from treering_verify.report import format_attacks

        for line in format_attacks():
            click.echo(line)
        context.exit()


@command("treering attack images/marked-000000.png --attack jpeg:quality=25 --attack resize+blur --output attacked")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--attack",
    "texts",
    multiple=True,
    required=True,
    help="Such as jpeg:quality=25 or resize:share=0.5+jpeg:quality=50; repeatable.",
)
@click.option(
    "--output", type=click.Path(path_type=Path), required=True, help="Folder for the copies and JSON sidecars."
)
@click.option(
    "--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of the first file; the next count up."
)
@click.option("--format", "style", type=click.Choice(["text", "json", "jsonl"]), default="text", show_default=True)
@click.option("--codec-bytes", is_flag=True, help="Keep the codec's own .jpg, .webp or .avif where an attack ends so.")
@click.option("--overwrite", is_flag=True, help="Replace copies that exist already; without, they are refused.")
@click.option(
    "--list",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_list_attacks,
    help="Print every attack with its parameters and ranges, and end.",
)
@model_option
def attack(
    files: tuple[Path, ...],
    texts: tuple[str, ...],
    output: Path,
    seed: int,
    style: str,
    codec_bytes: bool,
    overwrite: bool,
    model: ModelSource,
) -> None:
    """Write distorted copies of images, through real codecs, as a test of robustness.

    A copy is a PNG, so that nothing is compressed twice, named after its source and the attack; its JSON sidecar holds
    attack, parameters, seed and hashes. A model is loaded only for attacks that need one.
    """
    from treering_verify.attacks import parse
    from treering_verify.attacks.copies import attack_files
    from treering_verify.files import printable
    from treering_verify.models import load_model, pictures_only
    from treering_verify.report import format_copies

    attacks = [parse(text) for text in texts]
    loaded = load_model(model) if any(chosen.needs_model for chosen in attacks) else None
    if loaded:
        pictures_only(loaded, "an attack")
    failed = False
    try:
        with progress("Attacking", len(files) * len(attacks)) as advance:
            copies = attack_files(
                files, attacks, output, seed=seed, model=loaded, codec_bytes=codec_bytes, overwrite=overwrite
            )

            def watched() -> Iterator[AttackedCopy]:
                nonlocal failed
                for copy in copies:
                    failed = failed or copy.status == "error"
                    for _ in attacks if copy.attack is None else (copy.attack,):
                        advance()
                    yield copy

            for line in format_copies(watched(), style):
                click.echo(line)
    except OSError as error:
        raise UsageError(f"cannot write to {printable(str(output))}: {error.strerror}") from error
    if failed:
        sys.exit(UNJUDGED)


@command("treering benchmark detection --quick --output bench")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option(
    "--output", type=click.Path(path_type=Path), required=True, help="Folder for rows, summaries, report.html."
)
@click.option("--quick", is_flag=True, help="Few images, under two minutes; the intervals say how little that proves.")
@click.option("--count", type=click.IntRange(2), help="Images, instead of the benchmark's own number.")
@click.option(
    "--workers",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Processes that share robustness, forgery or front, each with a copy of the model.",
)
@model_option
def benchmark(
    names: tuple[str, ...], output: Path, quick: bool, count: int | None, workers: int, model: ModelSource
) -> None:
    """Measure the toolkit: detection, robustness, inversion, throughput, quality and more, or all.

    Prints a summary; writes NAME.parquet with a row per measurement, NAME.txt, and report.html with tables and figures of
    everything that was measured into the same folder. What took long is kept in its folder "kept": an interrupted benchmark
    goes on where it was, and one that asks the same question again does not measure it twice. Delete it to begin anew.
    """
    from treering_verify.benchmark import BENCHMARKS, SHARED, Scope, run, run_shared
    from treering_verify.models import load_model

    wanted = list(BENCHMARKS) if names == ("all",) else list(names)
    for name in wanted:
        if name not in BENCHMARKS:
            raise UsageError(f"no benchmark {name!r}: choose from {', '.join(BENCHMARKS)}, or all")
        if workers > 1 and name not in SHARED:
            raise UsageError(f"{name} cannot be shared among processes ({', '.join(SHARED)} can): leave --workers")
    scope = Scope(progress, quick, count)
    if workers > 1:
        for name in wanted:
            click.echo(run_shared(name, model, output, scope, workers))
        return
    loaded = load_model(model)
    for name in wanted:
        click.echo(run(name, loaded, output, scope))


def _load_keys(paths: tuple[Path, ...]) -> list[Key]:
    from treering_verify.watermark.keys.key import Key

    keys = [Key.load(path) for path in paths]
    names = [key.name for key in keys]
    if len(set(names)) < len(names):
        raise UsageError(
            "two keys have the same name, so a verdict could not say which matched: rename one (keygen --name)"
        )
    return keys
