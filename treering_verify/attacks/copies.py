"""Attacked copies of files, each with a sidecar that records how it was made."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from treering_verify.attacks.compression import CODECS
from treering_verify.attacks.notation import Attack, Chain
from treering_verify.errors import ImageError, UsageError
from treering_verify.files import printable, write_atomic
from treering_verify.media.conversion import encode_png
from treering_verify.media.images import read_bytes
from treering_verify.media.isolation.decoding import decode_image
from treering_verify.models.provenance import provenance_of, utc_now
from treering_verify.results import SIDECAR_VERSION

if TYPE_CHECKING:
    from treering_verify.models.protocol import LatentModel


@dataclass(frozen=True)
class AttackedCopy:
    """The result of one attack on one file.

    Attributes
    ----------
    path : str
        The source, as it was given.
    status : {"ok", "error"}
    code, reason : str
        Why there is no copy, a code of `images.CODES`; "" otherwise.
    attack : Attack, Chain or None
        None where the source could not be read, so that no attack was tried.
    seed : int
    output : str
        The copy's file; "" on errors.
    model : str
        Name of the model, where the attack used one; "" otherwise.
    source_sha256, output_sha256 : str
        SHA-256 of the files' bytes; "" where there are none.
    size : (int, int)
        Width and height of the copy.
    time : str
        When it was made, UTC, as 2026-11-29T13:00:00Z.
    provenance : mapping
        Model, weights, settings and versions, JSON-ready (docs/records.md).
    """

    path: str
    status: str
    code: str = ""
    reason: str = ""
    attack: Attack | Chain | None = None
    seed: int = 0
    output: str = ""
    model: str = ""
    source_sha256: str = ""
    output_sha256: str = ""
    size: tuple[int, int] = field(default=(0, 0))
    time: str = ""
    provenance: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def record(self) -> dict[str, Any]:
        """Return a flat, JSON-ready form with a fixed set of fields, None where nothing is known; the sidecar holds it."""
        made, stages = self.status == "ok", self.attack.stages if self.attack else ()
        return {
            "schema_version": SIDECAR_VERSION,
            "path": self.path,
            "status": self.status,
            "code": self.code,
            "reason": self.reason,
            "output": self.output or None,
            "attack": str(self.attack) if self.attack else None,
            "stages": [{"name": stage.name, "parameters": dict(stage.parameters)} for stage in stages],
            "seed": self.seed,
            "model": self.model or None,
            "source_sha256": self.source_sha256 or None,
            "width": self.size[0] if made else None,
            "height": self.size[1] if made else None,
            "sha256": self.output_sha256 or None,
            "time": self.time or None,
            "provenance": dict(self.provenance) or None,
        }


def attack_files(
    sources: Sequence[str | Path],
    attacks: Sequence[Attack | Chain],
    output: str | Path,
    *,
    seed: int = 0,
    model: LatentModel | None = None,
    codec_bytes: bool = False,
    overwrite: bool = False,
) -> Iterator[AttackedCopy]:
    """Write an attacked copy of every file under every attack, lazily, file by file.

    A copy is named after its source and attack, ``photo-jpeg-quality=25.png``, and is a PNG, so that nothing is compressed
    a second time. Its sidecar, the same name with .json, holds `AttackedCopy.record`; it is written first, so that no copy
    lacks one. Both files appear whole or not at all.

    Parameters
    ----------
    sources
        Image files. Number i, from 0, is attacked with seed + i, whatever becomes of the others.
    attacks
        Each is tried once, in this order.
    output
        Folder; made if it does not exist.
    seed
        Seed of the first file, non-negative.
    model
        Needed by some attacks only.
    codec_bytes
        Write the codec's own file, such as a .jpg, where an attack ends with one; it decodes to the PNG's pixels.
    overwrite
        Replace copies that exist already.

    Yields
    ------
    AttackedCopy
        One per file and attack, or one per file that cannot be read.

    Raises
    ------
    UsageError
        Before anything is written: if an attack cannot run here, two copies would have the same name, or a name is taken,
        by a source or, without `overwrite`, by any file.
    OSError
        If the folder cannot be written to.
    """
    folder = Path(output)
    attacks = list(dict.fromkeys(attacks))
    if seed < 0:
        raise UsageError(f"a seed is a non-negative whole number, got {seed}: choose 0 or more")
    for attack in attacks:
        attack.check(model)
    _check_names([Path(source) for source in sources], attacks, folder, codec_bytes, overwrite)
    folder.mkdir(parents=True, exist_ok=True)
    for position, source in enumerate(sources):
        number = seed + position
        try:
            data = read_bytes(source)
            image = decode_image(data)
        except ImageError as error:
            yield AttackedCopy(str(source), "error", error.code, printable(error.reason), seed=number)
            continue
        digest = hashlib.sha256(data).hexdigest()
        for attack in attacks:
            try:
                content, _ = attack.codec_bytes(image, number, model) if codec_bytes else (b"", "")
                content = content or encode_png(attack.apply(image, number, model))
            except ImageError as error:
                yield AttackedCopy(
                    str(source), "error", error.code, printable(error.reason), attack, number, source_sha256=digest
                )
                continue
            copy, sidecar = _names(Path(source), attack, folder, codec_bytes)
            made = AttackedCopy(
                str(source),
                "ok",
                attack=attack,
                seed=number,
                output=str(copy),
                model=model.name if model is not None and attack.needs_model else "",
                source_sha256=digest,
                output_sha256=hashlib.sha256(content).hexdigest(),
                size=image.size,
                time=utc_now(),
                provenance=provenance_of(
                    model if attack.needs_model else None, [], {"attack": str(attack), "seed": number}
                ),
            )
            text = json.dumps(made.record(), indent=2) + "\n"
            write_atomic(sidecar, text.encode(), exclusive=not overwrite)
            write_atomic(copy, content, exclusive=not overwrite)
            yield made


def _names(source: Path, attack: Attack | Chain, folder: Path, codec_bytes: bool) -> tuple[Path, Path]:
    """Return the names of copy and sidecar, without the colon, which some file systems forbid."""
    codec = CODECS.get(attack.stages[-1].name) if codec_bytes else None
    name = f"{source.stem}-{str(attack).replace(':', '-')}"
    return folder / f"{name}{codec[1] if codec else '.png'}", folder / f"{name}.json"


def _check_names(
    sources: list[Path], attacks: Sequence[Attack | Chain], folder: Path, codec_bytes: bool, overwrite: bool
) -> None:
    originals = {source.resolve() for source in sources}
    owners: dict[Path, Path] = {}
    for source in sources:
        for attack in attacks:
            for name in _names(source, attack, folder, codec_bytes):
                name_text = printable(str(name))
                if name in owners:
                    both = f"{printable(str(owners[name]))} and {printable(str(source))}"
                    raise UsageError(f"{both} would both be written to {name_text}: attack them into two folders")
                owners[name] = source
                if name.resolve() in originals:
                    raise UsageError(f"{name_text} is itself one of the files to attack: choose another folder")
                if not overwrite and name.exists():
                    raise UsageError(f"{name_text} exists: choose another folder, or replace it with --overwrite")
