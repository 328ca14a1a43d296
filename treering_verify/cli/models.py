"""The commands about models: which there are, whether one can carry a mark, and the fit of its inversion."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from treering_verify.cli.command import FOUND, Group, command, option
from treering_verify.cli.options.generation import generation_options
from treering_verify.cli.options.inversion import offered_fit, precision_option
from treering_verify.cli.options.model import model_argument
from treering_verify.cli.options.types import Duration, InputPath, OutputFile
from treering_verify.errors import UsageError
from treering_verify.files import printable

if TYPE_CHECKING:
    from treering_verify.models import ModelSource
    from treering_verify.training.examples import Progress


@click.group(cls=Group, invoke_without_command=True, epilog="Example: treering models")
@click.pass_context
def models(context: click.Context) -> None:
    """List, test, fit and convert models.

    Without a command, the supported families of models are listed.
    """
    if context.invoked_subcommand is None:
        from treering_verify.report.models import format_families

        for line in format_families():
            click.echo(line)


@command("treering models check landscape --count 2")
@model_argument
@option("--count", type=click.IntRange(2), default=4, help="Number of marked images, and of unmarked ones.")
@option(
    "--output", type=OutputFile(), help="Profile to write: a JSON file for --profile of verify, identify and audit."
)
@generation_options(20)
@option("--batch-size", type=click.IntRange(1), default=4, topic="Inversion", help="Images per batch.")
@precision_option("Inversion")
def check(
    model: ModelSource,
    count: int,
    steps: int,
    guidance: float,
    prompt: str | None,
    batch_size: int,
    precision: str,
    output: Path | None,
) -> None:
    """Test whether a model can carry a watermark.

    Images are generated with and without a key, inverted with several settings and tested. The command reports how much of
    the noise survives and which settings are best, and exits with 1 if too little survives. The images are not attacked,
    except by one JPEG compression: to measure robustness, use treering attack.
    """
    import json

    from treering_verify.detection.self_test import check_model
    from treering_verify.files import write_atomic
    from treering_verify.models import load_model
    from treering_verify.report.models import format_self_test

    loaded = load_model(model)
    found = check_model(
        loaded,
        count=count,
        steps=steps,
        guidance=guidance,
        prompts=[prompt] * count if prompt else None,
        batch_size=batch_size,
        precision=precision,
    )
    record = found.record()
    for line in format_self_test(record):
        click.echo(line)
    if offer := offered_fit(loaded):
        click.echo(offer, err=True)
    if output:
        try:
            write_atomic(output, (json.dumps(record, indent=2) + "\n").encode())
        except OSError as error:
            raise UsageError(f"cannot write {printable(str(output))}: {error.strerror}") from error
    if not found.usable:
        sys.exit(FOUND)


@command("treering models fit landscape-tiny --output landscape-tiny-inverter")
@model_argument
@option(
    "--output",
    required=True,
    type=click.Path(path_type=Path),
    help="Folder for the filters, their configuration and their card. A local model uses filters in its subfolder inverter "
    "without being told.",
)
@option(
    "--images",
    type=click.IntRange(8),
    default=48,
    show_default=True,
    help="Images to generate and fit to, or crops of photographs.",
)
@option(
    "--held-out",
    type=click.IntRange(0),
    default=8,
    show_default=True,
    help="Marked images of the report; 0: no report.",
)
@option("--attacks", type=InputPath(), help="JSON table of the attacks to fit filters for; default: ten kinds.")
@option(
    "--photographs",
    type=InputPath(),
    help="Folder of photographs, for an autoencoder alone; a quarter of them is kept for the report.",
)
@option(
    "--keep",
    type=InputPath(),
    help="Folder of an earlier fit. Its filters for attacks that --attacks does not name are kept; without it, all are.",
)
@option("--networks", is_flag=True, help="Train a network on top of the filters. It is kept only if it improves them.")
@option(
    "--budget",
    type=Duration(),
    default="20m",
    show_default=True,
    help="Time to train that network, such as 20m or 2h. The same command resumes a stopped training.",
)
@option("--prompts", type=InputPath(), help="File of prompts, one a line; default: a short list.")
@option("--generation-steps", type=click.IntRange(1), default=20, help="Diffusion steps of each generated image.")
@option("--kernel", type=click.IntRange(1), default=5, help="Largest side of the filters, odd.")
@option(
    "--stages",
    type=click.IntRange(1),
    help="Steps of the decoder inversion; default: 3, or 1 for an autoencoder alone.",
)
@option("--batch-size", type=click.IntRange(1), default=8, help="Images per batch.")
@option(
    "--seed", type=click.IntRange(0), help="First seed of the images; default: one far from those of other commands."
)
def fit(
    model: ModelSource,
    output: Path,
    images: int,
    held_out: int,
    attacks: Path | None,
    photographs: Path | None,
    keep: Path | None,
    networks: bool,
    budget: float,
    prompts: Path | None,
    seed: int | None,
    stages: int | None,
    **sizes: Any,
) -> None:
    """Fit a model's inversion to its own images.

    The model generates the images, and linear filters are fitted to them in closed form. No key is read, so p-values stay
    exact. A report on other images shows the gain. The filters are valid only for these weights at this image size. MODEL
    may be the folder of an autoencoder alone. Its filters are fitted to photographs, and serve every model that has it.
    """
    from dataclasses import replace

    from treering_verify.cli.options.images import images_of
    from treering_verify.generation.seeds import SEEDS
    from treering_verify.models import is_alone, load_model
    from treering_verify.models.inverter import Inverter, without_network
    from treering_verify.report.fits import card_of, format_fit
    from treering_verify.training.attack_table import read_table
    from treering_verify.training.closed_form import fit as fit_model
    from treering_verify.training.closed_form import usual_attacks
    from treering_verify.training.examples import FitOptions, kept_apart, too_few
    from treering_verify.training.fit_report import conclusion, held_out_report, summary_rows, ways_of

    said = _lines(prompts) if prompts else None
    loaded = load_model(model)
    kept = Inverter.load(keep) if keep else None
    table = read_table(attacks) if attacks else kept.facts["attacks"] if kept else usual_attacks(loaded)
    usual = 1 if is_alone(loaded) else FitOptions.stages
    options = FitOptions(images=images, stages=stages or usual, **sizes, seed=SEEDS["fit"] if seed is None else seed)
    files, others = kept_apart(images_of((photographs,), model), options.seed) if photographs else (None, None)
    if files and is_alone(loaded) and (warning := too_few(files)):
        click.echo(f"Warning: {warning}.", err=True)
    from treering_verify.training.correction import NetworkOptions, resumed, train_correction

    with _progress() as progress:
        if kept and not attacks:
            kept.check(loaded)
            found: Inverter | None = without_network(kept)
        else:
            found = resumed(output, loaded, options, table) if networks else None
        if found is None:
            found = fit_model(
                loaded, options=options, attacks=table, prompts=said, photographs=files, keep=kept, progress=progress
            )
        saved, lines, summary = found.save(output, card_of(found.facts, "", ())), [], ""
        if networks:
            found = train_correction(
                loaded,
                saved,
                output,
                options=NetworkOptions(budget),
                fit_options=options,
                attacks=table,
                prompts=said,
                progress=progress,
            )
            saved = found.save(output, card_of(found.facts, "", ()))
        if held_out:
            report = held_out_report(
                loaded,
                saved,
                images=held_out,
                prompts=said,
                photographs=others,
                options=options,
                progress=progress,
            )
            facts = {**found.facts, "report": report}
            summary, lines = conclusion(report), list(format_fit(facts, summary_rows(report), ways_of(report)))
            saved = replace(found, facts=facts).save(output, card_of(facts, summary, lines))
    for line in lines:
        click.echo(line)
    if summary:
        click.echo(f"{summary}.")
    click.echo(
        f"{len(saved.experts)} experts fitted to {saved.facts['images']} images in {found.facts['seconds']:.0f} s: "
        f"{printable(str(output))}, inverter {saved.digest}",
        err=True,
    )


@command("treering models convert lavie_base.pt --base stable-diffusion-v1-4 --output lavie")
@click.argument("file", type=InputPath())
@option(
    "--base",
    required=True,
    type=InputPath(),
    help="Folder of Stable Diffusion 1.4, whose autoencoder, text encoder and tokenizer are copied.",
)
@option("--output", required=True, type=click.Path(path_type=Path), help="Folder to create.")
def convert(file: Path, base: Path, output: Path) -> None:
    """Convert a pickled model to safetensors.

    The file is LaVie's base model as it was released. The result is a folder for --model. Pickles can run code, so a
    separate process reads the file. It builds only tensors, and has limits of memory and time. No other command reads
    pickles.
    """
    from treering_verify.training.conversion import convert as convert_file

    count = convert_file(file, base, output)
    click.echo(f"{count} tensors converted: {printable(str(output))}", err=True)


def _lines(path: Path) -> list[str | None]:
    """Read prompts, one a line; UsageError if there is none."""
    try:
        found = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read the prompts {printable(str(path))}: {error}") from error
    if not found:
        raise UsageError(f"{printable(str(path))} contains no prompt: write one prompt a line")
    return list(found)


@contextmanager
def _progress() -> Iterator[Progress]:
    """Progress on stderr, a bar for each part of the work; none without a terminal."""
    if not sys.stderr.isatty():
        yield lambda what, done, total: None
        return
    from rich.console import Console
    from rich.progress import Progress as Bars

    with Bars(console=Console(stderr=True), transient=True) as bars:
        tasks: dict[str, Any] = {}

        def advance(what: str, done: int, total: int) -> None:
            part = what.partition(" (")[0]
            if part not in tasks:
                tasks[part] = bars.add_task(part, total=total)
            bars.update(tasks[part], completed=done, description=what)

        yield advance


models.add_section("Commands", check, fit, convert)
