"""Convert a pickled file of weights, of a user's own, into a model folder of safetensors."""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
import zipfile
from pathlib import Path
from typing import Any

from treering_verify.errors import ModelError, UsageError
from treering_verify.files import printable
from treering_verify.media.isolation.child_process import HUB_TOKENS, SECRETS, ChildProcess
from treering_verify.models.checks.json_files import read_object
from treering_verify.models.checks.tensor_files import header_of
from treering_verify.models.diffusers.families import FAMILIES
from treering_verify.models.diffusers.folder import check_pipeline_folder
from treering_verify.models.diffusers.kinds.lavie import RELEASED
from treering_verify.models.diffusers.loading import INDEX, pipeline_family, read_index

_HIDDEN = re.compile(f"{SECRETS.pattern}|{HUB_TOKENS.pattern}")
_TOLD = ".attn_temp."  # in names of weights of LaVie, and of nothing else that is known here
_SHARED = ("vae", "text_encoder", "tokenizer")
_COPIED = (".json", ".txt", ".safetensors", ".model")
# The noise schedule that LaVie was trained with; Stable Diffusion's is another.
_SCHEDULER = {
    "_class_name": "DDIMScheduler",
    "beta_schedule": "linear",
    "beta_start": 0.0001,
    "beta_end": 0.02,
    "clip_sample": False,
    "num_train_timesteps": 1000,
    "prediction_type": "epsilon",
    "set_alpha_to_one": False,
    "steps_offset": 1,
}


def convert(source: str | Path, base: str | Path, output: str | Path) -> int:
    """Convert LaVie's base model, as it was released, into a folder that `load_model` reads.

    The file is pickled. It is read by a process of its own, with limits, that builds tensors alone.

    Parameters
    ----------
    source : path
        The released file: lavie_base.pt.
    base : path
        Folder of Stable Diffusion 1.4 in the diffusers layout, in safetensors, from which autoencoder, text encoder and
        tokenizer are copied.
    output : path
        Folder to make; it must not exist.

    Returns
    -------
    int
        Number of tensors.

    Raises
    ------
    ModelError
        If the file holds anything but the weights of LaVie's base model, or the base is no Stable Diffusion 1.
    UsageError
        If the output exists or cannot be written.
    """
    source, base, output = Path(source), Path(base), Path(output)
    if os.path.lexists(output):
        raise UsageError(f"{printable(str(output))} exists: name a new folder")
    _check_zip(source)
    shown, index = printable(str(base)), read_index(base)
    if pipeline_family(index, shown).name != "stable-diffusion":
        raise ModelError(
            f"{shown} is not a Stable Diffusion model: name a folder of Stable Diffusion 1.4 in the diffusers layout"
        )
    check_pipeline_folder(base, index, FAMILIES["stable-diffusion"], shown)
    config = read_object(base, "unet/config.json", shown)
    try:
        work = Path(tempfile.mkdtemp(prefix=".converting-", dir=output.parent or "."))
    except OSError as error:
        raise UsageError(f"cannot write {printable(str(output))}: {error.strerror}") from error
    try:
        count = _write(source, base, work, config, {part: index[part] for part in _SHARED})
        os.chmod(work, 0o755)
        os.rename(work, output)
    except OSError as error:
        raise UsageError(f"cannot write {printable(str(output))}: {error.strerror}") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return count


def _check_zip(source: Path) -> None:
    shown = printable(str(source))
    if not source.is_file() or not zipfile.is_zipfile(source):
        raise ModelError(f"{shown} was not written by torch.save, or has its old format, which is not read")


def _write(source: Path, base: Path, work: Path, config: dict[str, Any], shared: dict[str, Any]) -> int:
    shown, weights = printable(str(source)), work / "unet/diffusion_pytorch_model.safetensors"
    weights.parent.mkdir()
    count = _read_in_child(source, weights, shown)
    if not any(_TOLD in name for name in header_of(weights, shown)):
        raise ModelError(f"{shown} does not hold LaVie's base model, the only one that is converted")
    own = {name: value for name, value in config.items() if not name.startswith("_")}
    _write_json(weights.with_name("config.json"), {"_class_name": "LaVieUNet", **own})
    _check_weights(weights, own, shown)
    for part in _SHARED:
        (work / part).mkdir()
        for file in (base / part).iterdir():
            if file.suffix in _COPIED and file.is_file():
                shutil.copyfile(file, work / part / file.name)
    (work / "scheduler").mkdir()
    _write_json(work / "scheduler/scheduler_config.json", _SCHEDULER)
    parts = {**shared, "unet": ["diffusers", "UNet2DConditionModel"], "scheduler": ["diffusers", "DDIMScheduler"]}
    _write_json(work / INDEX, {"_class_name": RELEASED, **parts})
    return count


def _read_in_child(source: Path, weights: Path, shown: str) -> int:
    child = ChildProcess(
        "treering_verify.training.pickled_tensors",
        [str(source.absolute()), source.stat().st_size, str(weights.absolute())],
        hidden=_HIDDEN,
    )
    try:
        answer = child.receive()
    except (EOFError, OSError, ValueError) as error:
        raise ModelError(f"{shown}: reading it took more memory, time or space than a file of its size may") from error
    finally:
        child.kill()
    if not isinstance(answer, dict) or not isinstance(answer.get("tensors"), int):
        reason = printable(str(answer.get("error") if isinstance(answer, dict) else ""))[:200]
        raise ModelError(f"{shown} does not hold tensors alone ({reason}): what else it holds is never built")
    return int(answer["tensors"])


def _check_weights(weights: Path, config: dict[str, Any], shown: str) -> None:
    """Compare names and shapes of all tensors with the network's."""
    import torch

    from treering_verify.models.diffusers.kinds.lavie_network import LaVieUNet

    with torch.device("meta"):
        wanted = {name: list(tensor.shape) for name, tensor in LaVieUNet.from_config(config).state_dict().items()}
    found = {name: entry["shape"] for name, entry in header_of(weights, shown).items()}
    if wrong := sorted(name for name in {*wanted, *found} if wanted.get(name) != found.get(name)):
        raise ModelError(
            f"{shown}: {len(wrong)} tensors are not those of LaVie on that base, as {printable(wrong[0])[:80]}"
        )


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n")
