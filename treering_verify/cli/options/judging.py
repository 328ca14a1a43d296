"""The options that the commands verify, identify and decode share: images, keys, verdicts, search, inversion and model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

from treering_verify.cli.options.detector import search_options
from treering_verify.cli.options.images import files_argument, images_of, refusals
from treering_verify.cli.options.inversion import inversion_options
from treering_verify.cli.options.keys import KEY_HELP, key_option, with_options
from treering_verify.cli.options.verdicts import verdict_options
from treering_verify.cli.output import print_verdicts
from treering_verify.files import printable

if TYPE_CHECKING:
    from treering_verify.cli.options.inversion import InversionChoice
    from treering_verify.errors import ImageError
    from treering_verify.inversion.recovery import InversionOptions
    from treering_verify.models import LatentModel, ModelSource
    from treering_verify.results import Verdict
    from treering_verify.watermark.keys.index import KeyIndex
    from treering_verify.watermark.keys.key import Key

_MOST_KEYS = 20  # in a record, as the engine's; of more there is a digest


@dataclass(frozen=True)
class Judging:
    """What a command is to judge, and how.

    Attributes
    ----------
    files : tuple of Path
        Files and folders, as they were named.
    keys : tuple of Path
        Likewise.
    alpha : float
    style : str
        Format of the output.
    fail_on : tuple of str
        Verdicts that make the exit code 1.
    model : ModelSource
    inversion : InversionChoice
    search : str
        "off" for commands without a search.
    """

    files: tuple[Path, ...]
    keys: tuple[Path, ...]
    alpha: float
    style: str
    fail_on: tuple[str, ...]
    model: ModelSource
    inversion: InversionChoice
    search: str = "off"

    def images(self) -> list[Path]:
        """Return the images that the files name; UsageError if a folder holds none, or too many."""
        return images_of(self.files, self.model)

    def print(
        self,
        description: str,
        images: list[Path],
        judge: Callable[[LatentModel, InversionOptions], Iterable[Verdict]],
        *,
        keys: Sequence[Key | KeyIndex] | None = None,
        matches: bool = False,
        message: str | None = None,
    ) -> None:
        """Load the model, judge the images, print their verdicts, and exit as these ask for.

        What is wrong with files is told without the model if none of them can be judged.

        Parameters
        ----------
        description : str
            What progress is called.
        images : list of Path
        judge : function
        keys : sequence of Key or KeyIndex, optional
            Those of the records. None: records need the model.
        matches : bool
            Whether to list the evidence.
        message : str, optional
            The message of files that cannot be judged: "" if messages are read.
        """
        from treering_verify.models import load_model

        def verdicts() -> Iterable[Verdict]:
            recorded = keys is not None and self.inversion.profile is None
            if (self.style == "text" or recorded) and (refused := refusals(images, self.model)):
                return self._refused(refused, keys or (), message)
            loaded = load_model(self.model)
            return judge(loaded, self.inversion.inversion(loaded))

        print_verdicts(verdicts, len(images), description, self.style, self.fail_on, matches)

    def _refused(
        self, refused: list[tuple[Path, ImageError]], keys: Sequence[Key | KeyIndex], message: str | None
    ) -> Iterator[Verdict]:
        """Yield verdicts of files that are no images: their records name all but the weights, which were not read."""
        from treering_verify.detection.search.settings import search_of
        from treering_verify.inversion.recovery import InversionOptions
        from treering_verify.media.digests import sha256_of
        from treering_verify.models.provenance import provenance_of, utc_now
        from treering_verify.results import Verdict
        from treering_verify.watermark.keys.index import public_keys

        search, inversion = search_of(self.search), asdict(InversionOptions(**self.inversion.fields))
        del inversion["batch_size"]
        settings = {
            "alpha": self.alpha,
            **inversion,
            "tile": self.model.tile,
            "search": search.words if search else "off",
        }
        provenance = provenance_of(None, public_keys(keys, _MOST_KEYS), settings) | {"model": self.model.name}
        for path, error in refused:
            yield Verdict(
                str(path),
                "error",
                None,
                self.alpha,
                error.code,
                printable(error.reason),
                message=message,
                sha256=sha256_of(path),
                time=utc_now(),
                provenance=provenance,
            )


def judging_options(
    *own: Callable[..., Any], key_help: str = KEY_HELP, search: bool = True
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return a decorator that adds these options; the function gets them as `judging`, a `Judging`.

    Parameters
    ----------
    *own : decorators
        Options of the command alone, which help lists before those of the inversion.
    key_help : str
        Help of --key.
    search : bool
        Whether the command searches.
    """
    names = [name for name in Judging.__dataclass_fields__ if search or name != "search"]

    def add(function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def gathered(**kwargs: Any) -> Any:
            return function(judging=Judging(**{name: kwargs.pop(name) for name in names}), **kwargs)

        return with_options(
            gathered,
            files_argument,
            key_option(help=key_help),
            verdict_options,
            *((search_options,) if search else ()),
            *own,
            inversion_options,
        )

    return add
