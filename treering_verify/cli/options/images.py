"""The argument FILES of commands that judge a few images: files, and small folders of images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from treering_verify.cli.options.types import ImagePath
from treering_verify.errors import ImageError, UsageError
from treering_verify.files import printable

if TYPE_CHECKING:
    from treering_verify.models import ModelSource

_NAMED = 5  # files that are not judged
MOST_IN_FOLDER = 50
"""Most images of a folder that are judged one by one; larger folders are for an audit."""


def files_argument(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the argument FILES; the function gets `files`, a tuple of paths that exist."""
    return click.argument("files", nargs=-1, required=True, type=ImagePath())(function)


def images_of(paths: tuple[Path, ...], model: ModelSource) -> list[Path]:
    """Return the images that paths name: a folder stands for the images directly in it, or for a video's frames.

    Raises
    ------
    UsageError
        If a folder holds no image, or more than `MOST_IN_FOLDER`.
    """
    if not any(path.is_dir() for path in paths):
        return list(paths)
    from treering_verify.models import videos_of

    if videos_of(model):
        return list(paths)
    found: list[Path] = []
    for path in paths:
        inside, others = _images_in(path) if path.is_dir() else ([path], [])
        shown = printable(str(path))
        if not inside:
            raise UsageError(f"no images directly in {shown}: treering audit {shown} also searches the folders in it")
        if len(inside) > MOST_IN_FOLDER:
            raise UsageError(
                f"{shown} holds {len(inside)} images, and at most {MOST_IN_FOLDER} are judged here: run treering audit "
                f"{shown}"
            )
        if others:
            names = ", ".join(printable(other.name) for other in others[:_NAMED])
            more = f" and {len(others) - _NAMED} more" if len(others) > _NAMED else ""
            click.echo(f"Not judged here: {names}{more}. treering audit {shown} has a row for each.", err=True)
        found += inside
    return found


def refusals(images: list[Path], model: ModelSource) -> list[tuple[Path, ImageError]]:
    """Return why each file cannot be judged, if that is so of all and their first bytes tell; otherwise nothing.

    So nobody waits for a model that judges nothing.
    """
    from treering_verify.models import videos_of

    if videos_of(model):
        return []
    found: list[tuple[Path, ImageError]] = []
    for path in images:
        if (error := _refusal(path)) is None:
            return []
        found.append((path, error))
    return found


def _refusal(path: Path) -> ImageError | None:
    """Return why a file's first bytes are of no image that is decoded; None if they may be."""
    from treering_verify.media.formats import is_surely_none, kind_of
    from treering_verify.media.images import CODES, read_head

    try:
        head, _ = read_head(path)
    except ImageError as error:
        return error
    if not head:
        return ImageError("empty", CODES["empty"], str(path))
    if not is_surely_none(head, path.name):
        return None
    kind = kind_of(head, path.name)
    reason = kind.sentence if kind.code else CODES["not_an_image"]
    return ImageError(kind.code or "not_an_image", reason, str(path))


def _images_in(folder: Path) -> tuple[list[Path], list[Path]]:
    """Return the images in a folder by name, and what may hold others: archives, documents, videos.

    Images in a format that is not read here are among the images: they become errors.
    """
    from treering_verify.media.formats import kind_of
    from treering_verify.media.frame_folders import list_files
    from treering_verify.media.images import read_head

    def code(path: Path) -> str:
        try:
            return kind_of(read_head(path)[0], path.name).code
        except ImageError:
            return ""

    try:
        listed = [(path, code(path)) for path in list_files(folder, links=True) if not path.name.startswith(".")]
    except ImageError as error:
        raise UsageError(str(error)) from error
    images = [path for path, kind in listed if kind in ("image", "unread_format")]
    return images, [path for path, kind in listed if kind in ("container", "video_file")]
