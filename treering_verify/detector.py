"""`Detector`: keys, a model and settings in one object that verifies, identifies, decodes and audits."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Generic, cast, overload

from treering_verify.audit.folder import audit_folder
from treering_verify.detection.calibration.registry import EXACT, calibration_for
from treering_verify.detection.calibration.verify import verify_calibrated
from treering_verify.detection.decision import check_alpha
from treering_verify.detection.identification import DEFAULT_TOP, gather, identify_many
from treering_verify.detection.judge import DEFAULT_ALPHA
from treering_verify.detection.messages import decode_many
from treering_verify.detection.reading import are_several
from treering_verify.detection.screening import Screening, ScreeningChoice, screening_of
from treering_verify.detection.search.settings import AUTO as AUTO_SEARCH
from treering_verify.detection.search.settings import Search, search_of
from treering_verify.detection.verification import verify_many
from treering_verify.errors import UsageError
from treering_verify.inversion.decoder.registry import AUTO
from treering_verify.inversion.noise import DEFAULT_STEPS
from treering_verify.inversion.recovery import InversionOptions
from treering_verify.models import (
    EMBEDDED,
    ModelSource,
    check_loaded,
    check_source,
    latent_shape,
    load_model,
)
from treering_verify.models.precision import Precision
from treering_verify.models.profile import Profile
from treering_verify.models.protocol import ModelT
from treering_verify.watermark.keys.checks import check_fit, check_names
from treering_verify.watermark.keys.given import KeySource, keys_of
from treering_verify.watermark.keys.index import KeyIndex
from treering_verify.watermark.keys.key import Key

if TYPE_CHECKING:
    from treering_verify.audit.inputs.sources import Inputs
    from treering_verify.audit.options import Options
    from treering_verify.audit.output.rows import Row
    from treering_verify.detection.calibration.calibration_file import Calibration
    from treering_verify.detection.judge import Source
    from treering_verify.media.videos import VideoSource
    from treering_verify.models.protocol import VideoModel
    from treering_verify.results import Verdict


class Detector(Generic[ModelT]):
    """Look for keys in images, with settings that are chosen once.

    The arguments are those of the commands, with the same names and defaults. Keys and settings are checked when the object
    is made, so that a mistake costs nothing; the model is loaded when the first image is judged.

    Parameters
    ----------
    keys : Key, KeyIndex or path, or a sequence of those
        What is looked for. A path names a key file, a folder of key files or a key index. P-values are corrected for all
        keys together (Holm).
    model : str, Path, ModelSource or LatentModel
        The model that may have made the images: a name, folder, file or hub id as `load_model` takes it, or a loaded model.
    alpha : float
        False-positive rate per image, over all keys together, 0 < alpha < 1.
    inversion : str or InversionOptions
        Decoder inversion, a name in `inversion.decoder.METHODS` or "auto"; or all settings of the inversion at once, which
        then take the place of the next five.
    noise_inversion : str
        A name in `inversion.noise.METHODS`, or "auto".
    steps : int
        Steps of the noise inversion.
    batch_size : int
        Images that go through the model together. It changes the time, not the verdicts.
    precision : {"float32", "bfloat16", "float16"}
        Precision of the autoencoder in the decoder inversion.
    profile : str, Path or Profile, optional
        What ``treering models check`` wrote about the model, or a folder of such files. It decides inversion, noise
        inversion, steps and precision, which must then be left out.
    allow_weak : bool
        Answer "no evidence" even where the profile says that marks would be missed.
    search : {"auto", "off", "quick", "fast", "thorough"}, seconds, Search or None
        Search for place, size, angle, reflection and aspect, in images that show no key as they are. "auto" is "fast" in
        `verify` and `identify`, and "quick" in `audit`. P-values are corrected for it.
    decoys : int
        Decoy keys that cross-check the strongest key's p-value in `verify`; nothing is searched then.
    detector : str
        "exact", or a detector that `calibration` holds: see `detection.calibration.DETECTORS`.
    calibration : str, Path or Calibration, optional
        What ``treering calibrate`` wrote; every detector but "exact" needs it.
    screening : {"auto", "on", "off"} or Screening
        The cheap screening pass of `audit`: "auto" uses it where it was measured to lose almost nothing.

    Raises
    ------
    UsageError
        If there is no key, two have the same name, a key does not fit the model, or a setting does not exist, is out of
        range or contradicts another.
    KeyFileError
        If a key cannot be read.
    ModelError
        If there is no such model, or it is of no supported class.

    Notes
    -----
    One rule says what takes one and what takes many. `verify`, `identify` and `decode` return the `Verdict` of one image, or
    a list of verdicts of a list of images. `verify_many`, `identify_many` and `decode_many` take many and yield a verdict
    for each, in order, batch by batch. An image that cannot be read gives a verdict of status "error"; the others are
    judged. Where the model makes videos, a list given to `verify` is the frames of one video. Type checkers know it of a
    model that is known as a `models.VideoModel`, such as by `models.makes_videos`.

    An image is a path, a file's bytes, an open binary file, a PIL image, an array (H, W, 3) of uint8 or of float in [0, 1],
    or a tensor (3, H, W) of float in [0, 1]. Many images are a list of those, another iterable, or a batch as pipelines
    return it: an array (B, H, W, 3), or a tensor (B, 3, H, W). A batch of one is also one image.

    Examples
    --------
    >>> import treering_verify as tv
    >>> detector = tv.Detector("samples/sample.key.json")
    >>> detector.verify("samples/marked-1.png").verdict
    'detected'
    """

    def __init__(
        self,
        keys: KeySource | Sequence[KeySource],
        *,
        model: str | Path | ModelSource | ModelT = "landscape",
        alpha: float = DEFAULT_ALPHA,
        inversion: str | InversionOptions = AUTO,
        noise_inversion: str = AUTO,
        steps: int = DEFAULT_STEPS,
        batch_size: int = 16,
        precision: Precision = "float32",
        profile: str | Path | Profile | None = None,
        allow_weak: bool = False,
        search: str | float | Search | None = AUTO_SEARCH,
        decoys: int = 0,
        detector: str = EXACT,
        calibration: str | Path | Calibration | None = None,
        screening: ScreeningChoice | Screening = "auto",
    ) -> None:
        self._keys = keys_of(keys)
        self._whole = [key for key in self._keys if isinstance(key, Key)]
        if len(self._whole) < len(self._keys):
            gather(self._keys)  # checks names within and across indexes
        else:
            check_names(self._whole)
        check_alpha(alpha)
        self._alpha = alpha
        self._source = ModelSource(str(model)) if isinstance(model, (str, Path)) else model
        if not isinstance(self._source, ModelSource):
            check_loaded(self._source)
        self._allow_weak, self._profile = allow_weak, profile
        self._inversion = self._options(inversion, noise_inversion, steps, batch_size, precision)
        search_of(search)
        self._search = search
        if decoys < 0:
            raise UsageError(f"decoys is {decoys}: draw 0 or more")
        self._decoys = decoys
        self._detector = detector
        self._calibration = calibration_for(detector, calibration)
        if self._calibration is not None and (decoys or len(self._whole) < len(self._keys)):
            raise UsageError("decoys and key indexes are for the exact test: leave them out with a calibration")
        self._screening = screening_of(screening)
        self._check_model()

    def __repr__(self) -> str:
        """Say how many keys are looked for under which model; no key's numbers."""
        count = sum(1 if isinstance(key, Key) else len(key) for key in self._keys)
        name = getattr(self._source, "name", "")
        return f"<Detector of {count} key{'s' if count > 1 else ''}, model {name}, alpha {self._alpha:g}>"

    # --- what it was made with ------------------------------------------------------------------------------------

    @property
    def keys(self) -> tuple[Key | KeyIndex, ...]:
        """The keys and indexes that are looked for."""
        return tuple(self._keys)

    @property
    def alpha(self) -> float:
        """False-positive rate per image, over all keys together."""
        return self._alpha

    @cached_property
    def model(self) -> ModelT:
        """The model, loaded at first use.

        Raises
        ------
        ModelError
            If it cannot be loaded.
        UsageError
            If a key does not fit it.
        """
        if not isinstance(self._source, ModelSource):
            return self._source
        loaded = load_model(self._source)
        check_fit(self._keys, loaded.latent_shape, loaded.name)
        return cast("ModelT", loaded)

    @cached_property
    def inversion(self) -> InversionOptions:
        """How images are inverted; reads the profile, if there is one, which needs the model."""
        if self._profile is None:
            return self._inversion
        if isinstance(self._profile, Profile):
            profile = replace(self._profile, allow_weak=self._allow_weak or self._profile.allow_weak)
        else:
            profile = Profile.find(self._profile, self.model, allow_weak=self._allow_weak)
        return InversionOptions.of(profile, batch_size=self._inversion.batch_size)

    # --- what it does ---------------------------------------------------------------------------------------------

    @overload
    def verify(self: Detector[VideoModel], image: VideoSource) -> Verdict: ...  # type: ignore[overload-overlap]
    @overload
    def verify(self, image: Source) -> Verdict: ...  # type: ignore[overload-overlap]
    @overload
    def verify(self, image: Sequence[Source]) -> list[Verdict]: ...
    def verify(self, image: Source | VideoSource) -> Verdict | list[Verdict]:
        """Say whether an image, or each of a list, carries one of the keys; see `verify_many`."""
        return self._answer(image, self.verify_many)

    def verify_many(self, images: Iterable[Source | VideoSource]) -> Iterator[Verdict]:
        """Say for each image whether it carries one of the keys.

        Parameters
        ----------
        images : iterable of images, or a batch
            Each as the notes of this class say. Where the model makes videos: files, folders or sequences of frames.

        Yields
        ------
        Verdict
            In order. With a key index among the keys, all are tested as `identify_many` tests them, without decoys.
        """
        of_images = cast("Iterable[Source]", images)  # what is no image is refused when it is read
        if len(self._whole) < len(self._keys):
            return identify_many(
                of_images,
                self._keys,
                model=self.model,
                alpha=self.alpha,
                top=1,
                inversion=self.inversion,
                search=self._search,
            )
        if self._calibration is not None:
            return verify_calibrated(
                of_images,
                self._whole,
                self._calibration,
                self._detector,
                model=self.model,
                alpha=self.alpha,
                inversion=self.inversion,
            )
        return verify_many(
            images,
            self._whole,
            model=self.model,
            alpha=self.alpha,
            inversion=self.inversion,
            search=self._search,
            decoys=self._decoys,
        )

    @overload
    def identify(self, image: Source, top: int = DEFAULT_TOP) -> Verdict: ...  # type: ignore[overload-overlap]
    @overload
    def identify(self, image: Sequence[Source], top: int = DEFAULT_TOP) -> list[Verdict]: ...
    def identify(self, image: Source | Sequence[Source], top: int = DEFAULT_TOP) -> Verdict | list[Verdict]:
        """Say which key an image, or each of a list, carries, if any, with the `top` best matches; see `identify_many`."""
        return self._answer(image, partial(self.identify_many, top=top))

    def identify_many(self, images: Iterable[Source], top: int = DEFAULT_TOP) -> Iterator[Verdict]:
        """Say for each image which of the keys it carries, if any, with the `top` best matches as its evidence.

        Raises
        ------
        UsageError
            If `top` is less than 1, or a key's pattern cannot be searched among many.
        """
        gather(self._keys)
        if top < 1:
            raise UsageError(f"top is {top}: ask for at least 1 match")
        return identify_many(
            images,
            self._keys,
            model=self.model,
            alpha=self.alpha,
            top=top,
            inversion=self.inversion,
            search=self._search,
        )

    @overload
    def decode(self, image: Source) -> Verdict: ...  # type: ignore[overload-overlap]
    @overload
    def decode(self, image: Sequence[Source]) -> list[Verdict]: ...
    def decode(self, image: Source | Sequence[Source]) -> Verdict | list[Verdict]:
        """Read the message of an image, or of each of a list; see `decode_many`."""
        return self._answer(image, self.decode_many)

    def decode_many(self, images: Iterable[Source]) -> Iterator[Verdict]:
        """Read the message of each image, which stands in the verdict's `message`, under the one key of this detector.

        Raises
        ------
        UsageError
            If there are several keys, or the key carries no message.
        """
        if len(self._whole) != 1 or len(self._keys) != 1:
            raise UsageError(
                "a message is read under one key, of pattern gaussian-shading: make a Detector of it alone"
            )
        return decode_many(images, self._whole[0], model=self.model, alpha=self.alpha, inversion=self.inversion)

    def audit(
        self,
        paths: str | Path | Sequence[str | Path] | Inputs,
        *,
        output: str | Path | None = None,
        options: Options | None = None,
    ) -> Iterator[Row]:
        """Judge every file of folders, one row each, and go on where an earlier audit in `output` was ended.

        Parameters
        ----------
        paths : path, sequence of paths, or audit.Inputs
            Folders, files, patterns such as ``shots/*.png``, and URLs.
        output : path, optional
            Folder for Parquet rows and the summary; without, nothing is stored.
        options : audit.Options, optional
            How the audit is run; none of it changes a verdict.

        Yields
        ------
        Row
            In the order of the inputs.
        """
        gather(self._keys)
        if self._calibration is not None:
            raise UsageError("an audit uses the exact test: leave detector and calibration out")
        return audit_folder(
            paths,
            self._keys,
            model=self.model,
            alpha=self.alpha,
            inversion=self.inversion,
            screening=self._screening,
            search=self._search,
            output=output,
            options=options,
        )

    def _answer(
        self, image: Source | Sequence[Source], judged: Callable[[Sequence[Source]], Iterator[Verdict]]
    ) -> Verdict | list[Verdict]:
        """Return the verdict of one image, or those of a list."""
        if are_several(image, None) and are_several(image, self.model):  # no model is loaded to tell that a path is one
            return list(judged(image))
        return next(judged([cast("Source", image)]))

    # --- checks, before any model is loaded -----------------------------------------------------------------------

    def _check_model(self) -> None:
        """Check the model as far as it can be without loading it, and keys where its shape is known without fetching it."""
        if not isinstance(self._source, ModelSource):
            check_fit(self._keys, self._source.latent_shape, self._source.name)
            return
        check_source(self._source)
        if self._source.name in EMBEDDED:
            check_fit(self._keys, latent_shape(self._source), self._source.name)

    def _options(
        self,
        inversion: str | InversionOptions,
        noise_inversion: str,
        steps: int,
        batch_size: int,
        precision: Precision,
    ) -> InversionOptions:
        one_by_one = (noise_inversion, steps, precision) != (AUTO, DEFAULT_STEPS, "float32")
        if isinstance(inversion, InversionOptions):
            if one_by_one or batch_size != 16 or self._profile is not None:
                raise UsageError(
                    "InversionOptions hold noise inversion, steps, batch size, precision and profile: leave the arguments "
                    "of these names out"
                )
            return inversion
        if self._profile is not None and (inversion != AUTO or one_by_one):
            raise UsageError(
                "a profile decides inversion, noise inversion, steps and precision: leave these out, or the profile"
            )
        if self._profile is None and self._allow_weak:
            raise UsageError("allow_weak is about a weak profile: give profile too, or leave allow_weak out")
        return InversionOptions(
            method=inversion, noise_method=noise_inversion, steps=steps, batch_size=batch_size, precision=precision
        )
