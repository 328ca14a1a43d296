"""The command that generates images, marked by one key, each by a key of its own, or by none."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from treering_verify.cli.key_strength import read_secret, refuse_weak
from treering_verify.cli.model_options import model_option
from treering_verify.cli.options import given, key_options
from treering_verify.cli.output import command_of, progress
from treering_verify.errors import UsageError

if TYPE_CHECKING:
    from treering_verify.models import ModelSource
    from treering_verify.watermark.keys.key import Key

_BLOCK = 256  # seeds whose keys are held at once


@command_of(None)("treering generate --key my.key.json --count 4 --output images")
@click.option("--key", "key_file", type=click.Path(path_type=Path), help="Key to write into the noise.")
@click.option(
    "--from-secret",
    type=click.Path(path_type=Path),
    help="Give each image a key of its own, named PREFIX-SEED and derived from this file's bytes.",
)
@click.option("--prefix", default="image", show_default=True, help="With --from-secret.")
@click.option("--unmarked", is_flag=True, help="Write no key: controls, twins of the marked images of the same seeds.")
@click.option("--count", type=click.IntRange(1), default=1, show_default=True, help="Number of images.")
@click.option(
    "--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of the first; the next count up."
)
@click.option(
    "--output", type=click.Path(path_type=Path), required=True, help="Folder for PNG files and JSON sidecars."
)
@click.option("--class", "label", help="Class of all images, such as lake; default: classes take turns.")
@click.option("--prompt", help="The same for models that take prompts; 'landscape' takes its class names.")
@click.option("--steps", type=click.IntRange(1), default=50, show_default=True)
@click.option("--guidance", type=click.FloatRange(0), default=2.0, show_default=True)
@click.option(
    "--video-format",
    type=click.Choice(["mp4", "gif", "png"]),
    default="mp4",
    show_default=True,
    help="Of videos, by models that make them; png is a folder of frames.",
)
@key_options
@model_option
def generate(
    key_file: Path | None,
    from_secret: Path | None,
    prefix: str,
    unmarked: bool,
    count: int,
    seed: int,
    output: Path,
    label: str | None,
    prompt: str | None,
    steps: int,
    guidance: float,
    video_format: str,
    family: dict[str, Any],
    model: ModelSource,
) -> None:
    """Generate images, or videos, with a key in their noise (or, with --unmarked, without).

    One key for all images can be averaged out of them, and copied from one to others. With --from-secret each has its own,
    and its name says which image it was: keys index --from-secret FILE --generate N --prefix PREFIX puts them into an index
    for identify and audit. Pattern, channels, radii and model are options of both; give every image a seed of its own.
    """
    import json

    from treering_verify.files import printable, write_atomic
    from treering_verify.generation.generator import check_seeds, generate_videos
    from treering_verify.generation.generator import generate as generate_images
    from treering_verify.media.images import encode_png
    from treering_verify.media.videos import video_files
    from treering_verify.models import load_model, makes_videos
    from treering_verify.results import GeneratedVideo

    if [key_file is not None, from_secret is not None, unmarked].count(True) != 1:
        raise UsageError("give one of --key FILE, --from-secret FILE and --unmarked")
    if from_secret is None and (options := given("prefix", "pattern", "channels", "inner_radius", "outer_radius")):
        raise UsageError(f"{options[0]} is for keys that are made here: give it with --from-secret FILE, or to keygen")
    if label and prompt:
        raise UsageError("give --class or --prompt, not both")
    condition = label or prompt
    end = seed + count
    check_seeds((seed, end - 1))
    keys, loaded = _keys(key_file, from_secret, f"{prefix}-", end, family, model), load_model(model)
    run: Any = generate_videos if makes_videos(loaded) else generate_images

    def made_of(seeds: range) -> Any:
        prompts = [condition] * len(seeds) if condition else None
        return run(loaded, keys(seeds), seeds=seeds, prompts=prompts, steps=steps, guidance=guidance)

    made = chain.from_iterable(made_of(range(at, min(at + _BLOCK, end))) for at in range(seed, end, _BLOCK))
    try:
        output.mkdir(parents=True, exist_ok=True)
        with progress("Generating", count) as advance:
            for result in made:
                stem = f"{'unmarked' if unmarked else 'marked'}-{result.sidecar['seed']:06d}"
                if isinstance(result, GeneratedVideo):
                    written = video_files(result.frames, video_format, result.sidecar["fps"])
                else:
                    written = iter([(".png", encode_png(result.image))])
                for ending, content in written:
                    path = output / f"{stem}{ending}"
                    path.parent.mkdir(exist_ok=True)
                    write_atomic(path, content)
                text = json.dumps(result.sidecar, indent=2) + "\n"
                write_atomic(output / f"{stem}.json", text.encode())
                click.echo(printable(str(path if path.parent == output else path.parent)))
                advance()
    except OSError as error:
        raise UsageError(f"cannot write to {printable(str(output))}: {error.strerror}") from error


def _keys(
    key_file: Path | None,
    from_secret: Path | None,
    prefix: str,
    end: int,
    options: dict[str, Any],
    model: ModelSource,
) -> Callable[[range], Key | list[Key] | None]:
    """Return what gives the key of all of some seeds below `end`, or the key of each, named PREFIX-SEED."""
    from treering_verify.models import latent_shape
    from treering_verify.watermark.keys.key import Family, Key, is_name

    if from_secret is None:
        key = Key.load(key_file) if key_file else None
        return lambda _: key
    family = Family.choose(latent_shape(model), **options)
    refuse_weak(family)
    if not is_name(f"{prefix}{end - 1}"):
        raise UsageError(
            "--prefix and a seed make a key's name: 1 to 64 letters, digits, '.', '_' or '-', the first a letter or digit"
        )
    secret = read_secret(from_secret, private=True)
    return lambda seeds: [Key.of_index(secret, family, f"{prefix}{seed}") for seed in seeds]
