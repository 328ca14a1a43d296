"""The command that generates images, marked by one key, each by a key of its own, or by none."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from treering_verify.cli.command import command, option
from treering_verify.cli.key_strength import read_secret, refuse_weak
from treering_verify.cli.options.generation import generation_options
from treering_verify.cli.options.keys import check_fit, given, key_option, only_key, pattern_options, secret_option
from treering_verify.cli.options.model import model_option
from treering_verify.cli.options.types import Named, OutputFolder
from treering_verify.cli.output import echo, progress
from treering_verify.errors import UsageError, unknown

if TYPE_CHECKING:
    from treering_verify.models import ModelSource
    from treering_verify.watermark.keys.key import Key

_TOPIC = "A key for each image"
_BLOCK = 256  # seeds whose keys are held at once


@command("treering generate --key my.key.json --count 4 --output images")
@key_option(required=False, help="Key file, whose key is written into the noise of all images.")
@option(
    "--unmarked", is_flag=True, help="Write no key. With the same seeds, the images are unmarked twins of marked ones."
)
@option("--count", type=click.IntRange(1), default=1, help="Number of images.")
@option(
    "--seed", type=click.IntRange(0), default=0, help="Seed of the first image; each next image takes the next number."
)
@option("--output", type=OutputFolder(), required=True, help="Folder for PNG files, each with a JSON sidecar.")
@option("--class", "label", topic="Generation", help="Class of all images, such as lake; default: classes take turns.")
@generation_options(50)
@option(
    "--video-format",
    type=Named("format", ("mp4", "gif", "png")),
    default="mp4",
    topic="Generation",
    help="Format of videos, for models that make them; png is a folder of frames.",
)
@secret_option("File with a secret, from which each image gets a key of its own, named PREFIX-SEED.", _TOPIC)
@option("--prefix", default="image", topic=_TOPIC, help="First part of the keys' names.")
@pattern_options
@model_option
def generate(
    keys: tuple[Path, ...],
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
    """Generate images with a watermark.

    A key that many images share can be averaged out of them, and copied from one image to others. With --from-secret each
    image has a key of its own, and the key's name identifies the image. To identify such images, build an index with the
    same pattern, channels, radii and model: treering keys index --from-secret FILE --generate N --prefix PREFIX. Give every
    image a different seed. Models that make videos generate videos.
    """
    import json

    from treering_verify.files import printable, write_atomic
    from treering_verify.generation.generator import check_seeds, generate_videos
    from treering_verify.generation.generator import generate as generate_images
    from treering_verify.media.conversion import encode_png
    from treering_verify.media.digests import sha256_of
    from treering_verify.media.videos import video_files
    from treering_verify.models import class_names, load_model, makes_videos
    from treering_verify.results import GeneratedVideo

    if [bool(keys), from_secret is not None, unmarked].count(True) != 1:
        raise UsageError("give one of --key FILE, --from-secret FILE and --unmarked")
    if from_secret is None and (options := given("prefix", "pattern", "channels", "inner_radius", "outer_radius")):
        raise UsageError(f"{options[0]} applies to new keys: give it with --from-secret FILE, or to keygen")
    if label and prompt:
        raise UsageError("give --class or --prompt, not both")
    condition, classes = label or prompt, class_names(model)
    if condition and classes and condition not in classes:
        raise UsageError(unknown("class", condition, classes))
    end = seed + count
    check_seeds((seed, end - 1))
    keys_of, loaded = _keys(keys, from_secret, f"{prefix}-", end, family, model), load_model(model)
    run: Any = generate_videos if makes_videos(loaded) else generate_images

    def made_of(seeds: range) -> Any:
        prompts = [condition] * len(seeds) if condition else None
        return run(loaded, keys_of(seeds), seeds=seeds, prompts=prompts, steps=steps, guidance=guidance)

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
                stored = path if path.parent == output else path.parent
                text = json.dumps({**result.sidecar, "sha256": sha256_of(stored)}, indent=2) + "\n"
                write_atomic(output / f"{stem}.json", text.encode())
                echo(printable(str(stored)), advance)
                advance()
    except OSError as error:
        raise UsageError(f"cannot write to {printable(str(output))}: {error.strerror}") from error


def _keys(
    keys: tuple[Path, ...],
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
        key = only_key(keys) if keys else None
        check_fit([key] if key else [], model)
        return lambda _: key
    family = Family.choose(latent_shape(model), **options)
    refuse_weak(family)
    if not is_name(f"{prefix}{end - 1}"):
        raise UsageError(
            "--prefix and a seed make a key's name: 1 to 64 letters, digits, '.', '_' or '-', the first a letter or digit"
        )
    secret = read_secret(from_secret, private=True)
    return lambda seeds: [Key.of_index(secret, family, f"{prefix}{seed}") for seed in seeds]
