"""The main job on one screen: make a key, generate, attack a copy, verify everything, show the spectrum."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

from treering_verify.attacks import Attack
from treering_verify.detection.judge import DEFAULT_ALPHA
from treering_verify.detection.verification import verify_many
from treering_verify.errors import UsageError
from treering_verify.files import printable, write_atomic
from treering_verify.generation.generator import generate
from treering_verify.inversion.recovery import recover_noise
from treering_verify.media.conversion import save_png, to_tensor
from treering_verify.models import ModelSource, load_model
from treering_verify.report import format_pvalue, save_spectrum_figure, table
from treering_verify.watermark.keys.key import Key

_SEEDS = (0, 1, 2, 3)
_ATTACKS = (Attack("jpeg", {"quality": 75}), Attack("jpeg", {"quality": 25}))


def run_demo(output: Path | None, source: str | ModelSource, say: Callable[[str], None]) -> Path:
    """Run the demonstration and return the folder that it made.

    Parameters
    ----------
    output : Path or None
        A folder that does not exist yet; None takes the first free one of demo, demo-2, ...
    source : str or ModelSource
    say : callable
        Called with each line to show.

    Raises
    ------
    UsageError
        If the folder exists already.
    """
    folder = output or _free_folder()
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise UsageError(f"cannot create {printable(str(folder))}: {error.strerror}; name a new folder") from error
    clock = time.perf_counter()

    def lap(what: str) -> None:
        nonlocal clock
        say(f"{what}  ({time.perf_counter() - clock:.1f} s)")
        clock = time.perf_counter()

    model = load_model(source)
    lap(f"loaded model {model.name!r}")
    key = Key.generate(model.latent_shape, name="demo")
    key.save(folder / "demo.key.json")
    lap(f"made a {key.pattern} key of {key.degrees_of_freedom} numbers, fingerprint {key.fingerprint}")

    marked = list(generate(model, key, seeds=_SEEDS))
    unmarked = list(generate(model, None, seeds=_SEEDS))
    paths: list[Path] = []
    for prefix, results in (("marked", marked), ("unmarked", unmarked)):
        for result in results:
            path = folder / f"{prefix}-{result.sidecar['seed']}.png"
            save_png(result.image, path)
            write_atomic(path.with_suffix(".json"), (json.dumps(result.sidecar, indent=2) + "\n").encode())
            paths.append(path)
    lap(f"generated {len(marked)} marked images and their {len(unmarked)} unmarked twins")
    for attack in _ATTACKS:
        for prefix, results in (("marked", marked), ("unmarked", unmarked)):
            path = folder / f"{prefix}-0-{attack.name}{attack.parameters['quality']:g}.png"
            save_png(attack.apply(results[0].image), path)
            paths.append(path)
    lap(f"attacked copies: {', '.join(map(str, _ATTACKS))}")

    verdicts = list(verify_many(paths, key, model=model))
    lap(f"verified {len(verdicts)} images at alpha {DEFAULT_ALPHA:g}")
    noise_hat, _ = recover_noise(model, to_tensor(marked[0].image))
    control, _ = recover_noise(model, to_tensor(unmarked[0].image))
    save_spectrum_figure(folder / "spectrum.png", key, marked[0].noise, noise_hat[0], control[0])
    lap("drew the spectrum")

    rows = []
    for verdict in verdicts:
        pvalue = format_pvalue(verdict.best.log10_adjusted) if verdict.best else "-"
        said = verdict.verdict or verdict.status
        rows.append([Path(verdict.path).name, said, verdict.key or "-", pvalue, f"{verdict.seconds:.2f}"])
    say("")
    say(table(["image", "verdict", "key", "p-value", "seconds"], rows))
    say("")
    say(f"images, sidecars, key and spectrum.png are in {printable(str(folder))}/")
    return folder


def _free_folder() -> Path:
    number, folder = 1, Path("demo")
    while folder.exists():
        number += 1
        folder = Path(f"demo-{number}")
    return folder
