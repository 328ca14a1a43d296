"""Model folders that were made to do harm: each is a Stable Diffusion folder with one thing changed.

`python -m helpers.hostile.models OUT CANARIES` (with tests/ on PYTHONPATH) writes them all, to try another release of
diffusers or transformers. Code that runs leaves a file in CANARIES.
"""

from __future__ import annotations

import json
import os
import shutil
import struct
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

INDEX = "model_index.json"
UNET = "unet/diffusion_pytorch_model.safetensors"
TEXT = "text_encoder/model.safetensors"

Change = Callable[[Path, str], object]
"""(the folder, Python code that leaves a canary) -> None: changes the folder."""


@dataclass(frozen=True)
class HostileModel:
    """A change of a sound folder, and a pattern of the message that refuses it."""

    change: Change
    message: str


class Canary:
    """An object whose pickle opens a file for writing when it is loaded."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (self.path, "w")


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def index(**changes: object) -> Change:
    """Change the index."""
    return lambda folder, code: edit(folder / INDEX, **changes)


def config(path: str, **changes: object) -> Change:
    """Change a configuration."""
    return lambda folder, code: edit(folder / path, **changes)


def text(path: str, content: str | bytes) -> Change:
    """Replace or add a file."""

    def change(folder: Path, code: str) -> None:
        target = folder / path
        target.unlink(missing_ok=True)
        target.write_bytes(content.encode() if isinstance(content, str) else content)

    return change


def code_in(path: str, kind: str = "diffusers.DDIMScheduler", name: str = "My", **changes: object) -> Change:
    """Add a Python file with a class of a name, and change the index."""

    def change(folder: Path, code: str) -> None:
        library, base = kind.split(".")
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).write_text(f"{code}\nfrom {library} import {base} as Base\nclass {name}(Base):\n    pass\n")
        edit(folder / INDEX, **changes)

    return change


def both(*changes: Change) -> Change:
    def change(folder: Path, code: str) -> None:
        for one in changes:
            one(folder, code)

    return change


def fifo(path: str) -> Change:
    def change(folder: Path, code: str) -> None:
        (folder / path).unlink(missing_ok=True)
        os.mkfifo(folder / path)

    return change


def moved_out(path: str) -> Change:
    """Move a file or folder beside the model and put a link in its place."""

    def change(folder: Path, code: str) -> None:
        outside = folder.parent / f"{folder.name}-outside"
        shutil.move(folder / path, outside)
        (folder / path).symlink_to(outside)

    return change


def pickled(path: str, instead: str = "", kept: str = "") -> Change:
    """Write a pickle with a canary; the weights `instead` are removed, or renamed to `kept`."""

    def change(folder: Path, code: str) -> None:
        import torch

        if instead and kept:
            (folder / instead).rename((folder / instead).with_name(kept))
        elif instead:
            (folder / instead).unlink()
        torch.save({"a": Canary(code.split("'")[1])}, folder / path)

    return change


def listing(part: str, stem: str, name: object, **other: object) -> Change:
    """Divide weights by a list that names one file; the weights have another name."""

    def change(folder: Path, code: str) -> None:
        (folder / part / f"{stem}.safetensors").rename(folder / part / "x.safetensors")
        table = {"metadata": {"total_size": 1}, "weight_map": {"a": name}, **other}
        (folder / part / f"{stem}.safetensors.index.json").write_text(json.dumps(table))

    return change


def tensors(header: object, data: bytes = b"", length: int | None = None, size: int = 0) -> Change:
    """Replace the network's weights by a header and data, or by a sparse file of a size."""

    def change(folder: Path, code: str) -> None:
        head = header if isinstance(header, bytes) else json.dumps(header).encode()
        (folder / UNET).write_bytes(struct.pack("<Q", len(head) if length is None else length) + head + data)
        if size:
            os.truncate(folder / UNET, size + 8 + len(head))

    return change


def entry(shape: list[int], *ends: int, dtype: str = "F32") -> dict[str, object]:
    return {"conv_in.weight": {"dtype": dtype, "shape": shape, "data_offsets": list(ends)}}


NETWORK, ENCODER, CODER = "unet/config.json", "text_encoder/config.json", "vae/config.json"
SAMPLER, WORDS = "scheduler/scheduler_config.json", "tokenizer/tokenizer_config.json"
ONLY, RUN = "only .* can be", "code, which is never run"
HUGE = 10**6

MODELS: dict[str, HostileModel] = {
    name: HostileModel(change, message)
    for name, (change, message) in {
        # --- code that a folder names
        "scheduler of the folder": (code_in("scheduler/my.py", scheduler=["my", "My"]), f"scheduler .*{ONLY}"),
        "unet of the folder": (code_in("unet/my.py", "diffusers.UNet2DConditionModel", unet=["my", "My"]), ONLY),
        "vae of the folder": (code_in("vae/my.py", "diffusers.AutoencoderKL", vae=["my", "My"]), ONLY),
        "tokenizer of the folder": (
            code_in("tokenizer/my.py", "transformers.CLIPTokenizer", tokenizer=["my", "My"]),
            ONLY,
        ),
        "text encoder of the folder": (
            code_in("text_encoder/my.py", "transformers.CLIPTextModel", text_encoder=["my", "My"]),
            ONLY,
        ),
        "feature extractor of the folder": (code_in("feature_extractor/my.py", feature_extractor=["my", "My"]), ONLY),
        "a component of no family": (code_in("extra/my.py", extra=["my", "My"]), "extra .*no such part"),
        "code above the component": (code_in("my.py", scheduler=["../my", "My"]), ONLY),
        "code by an absolute path": (code_in("my.py", scheduler=["/tmp/my", "My"]), ONLY),
        "a component's name that leads out": (
            lambda folder, code: edit(folder / INDEX, **{"../unet": ["diffusers", "UNet2DConditionModel"]}),
            "no such part",
        ),
        "a module of Python": (index(scheduler=["subprocess", "Popen"]), ONLY),
        "a function of Python": (index(tokenizer=["os", "system"]), ONLY),
        "a module beside": (code_in("evilmod.py", scheduler=["evilmod", "My"]), ONLY),
        "a module of diffusers": (index(scheduler=["diffusers.utils", "logging"]), ONLY),
        "a class chosen by its configuration": (index(unet=["diffusers", "AutoModel"]), ONLY),
        "an encoder chosen by its configuration": (index(text_encoder=["transformers", "AutoModel"]), ONLY),
        "a tokenizer chosen by its configuration": (index(tokenizer=["transformers", "AutoTokenizer"]), ONLY),
        "a class that loads models itself": (index(unet=["diffusers", "DiffusionPipeline"]), ONLY),
        "a class of another library": (index(unet=["onnxruntime", "InferenceSession"]), ONLY),
        "a component that is a text": (index(unet="my"), ONLY),
        "a component of three": (index(unet=["my", "diffusers", "UNet2DConditionModel"]), ONLY),
        "a pipeline of the folder": (code_in("my.py", _class_name=["my", "My"]), "is not supported"),
        "a pipeline that is not named so": (
            code_in(
                "StableDiffusionPipeline.py",
                "diffusers.StableDiffusionPipeline",
                "StableDiffusionPipeline",
                _class_name=["StableDiffusionPipeline", "StableDiffusionPipeline"],
            ),
            "is not supported",
        ),
        "a pipeline's file": (code_in("pipeline.py", "diffusers.StableDiffusionPipeline"), f"pipeline.py is {RUN}"),
        "a custom pipeline": (code_in("my.py", custom_pipeline="my", trust_remote_code=True), "custom_pipeline"),
        # diffusers looks for the file None.py where no custom pipeline is asked for
        "code by the name of nothing": (code_in("None.py", "diffusers.StableDiffusionPipeline"), f"None.py is {RUN}"),
        # diffusers 0.35 looks for COMPONENT/LIBRARY.py before it imports the library
        "code by the name of diffusers": (
            code_in("unet/diffusers.py", "diffusers.UNet2DConditionModel", "UNet2DConditionModel"),
            f"unet/diffusers.py is {RUN}",
        ),
        "code by the name of transformers": (
            code_in("text_encoder/transformers.py", "transformers.CLIPTextModel", "CLIPTextModel"),
            f"text_encoder/transformers.py is {RUN}",
        ),
        "code in capitals": (code_in("vae/DIFFUSERS.PY"), f"vae/DIFFUSERS.PY is {RUN}"),
        "auto_map of the network": (config(NETWORK, auto_map={"AutoModel": "my.My"}), "unet/config.json: auto_map"),
        "auto_map of the encoder": (config(ENCODER, auto_map={"AutoModel": "my.My"}), "config.json: auto_map"),
        "auto_map of the tokenizer": (config(WORDS, auto_map={"AutoTokenizer": ["my.My", None]}), "auto_map"),
        "auto_map within": (config(ENCODER, text_config={"auto_map": {"AutoConfig": "x/y--my.My"}}), "auto_map"),
        "auto_map of the sampler": (config(SAMPLER, auto_map={"DDIMScheduler": "my.My"}), "auto_map"),
        "a class in a list": (config(NETWORK, _class_name=["my", "My"]), "unet/config.json: _class_name"),
        "kernels of the hub": (config(ENCODER, attn_implementation="somebody/kernel"), "attn_implementation"),
        "weights of a quantiser": (config(NETWORK, quantization_config={"quant_method": "bnb"}), "quantization_config"),
        "an adapter of another model": (
            text("text_encoder/adapter_config.json", '{"base_model_name_or_path": "somebody/else"}'),
            "adapter_config.json leads to another model",
        ),
        # --- names that look like others
        "a component in other letters": (
            lambda folder, code: edit(folder / INDEX, **{"\uff55net": ["diffusers", "UNet2DConditionModel"]}),
            "no such part",
        ),
        "a class in other letters": (index(unet=["diffusers", "\uff35Net2DConditionModel"]), ONLY),
        "a library with an invisible letter": (index(unet=["diffusers\u200b", "UNet2DConditionModel"]), ONLY),
        "a pipeline with an invisible letter": (index(_class_name="StableDiffusionPipeline\u200b"), "is not supported"),
        "a component that occurs twice": (
            lambda folder, code: text(INDEX, (folder / INDEX).read_text()[:-2] + ', "unet": ["my", "My"]}')(
                folder, code
            ),
            "occurs twice",
        ),
        # --- files outside
        "a vocabulary elsewhere": (config(WORDS, vocab_file="/etc/passwd"), "vocab_file"),
        "a linked component": (moved_out("unet"), "unet is a link out"),
        "a linked configuration": (moved_out(NETWORK), "unet/config.json is a link out"),
        "linked weights": (moved_out(UNET), "is a link out"),
        "a linked vocabulary": (moved_out("tokenizer/tokenizer.json"), "is a link out"),
        "a link to nothing": (
            lambda folder, code: (folder / "vae" / "x.json").symlink_to("y.json"),
            "vae/x.json: No such file",
        ),
        # --- pickles
        "a pickle alone": (pickled("unet/diffusion_pytorch_model.bin", UNET), "weights of unet are pickled"),
        "a pickle beside other weights": (
            pickled("unet/diffusion_pytorch_model.bin", UNET, "other.safetensors"),
            "weights of unet are pickled",
        ),
        "an encoder's pickle beside": (
            pickled("text_encoder/pytorch_model.bin", TEXT, "other.safetensors"),
            "weights of text_encoder are pickled",
        ),
        "a pickle named safetensors": (pickled(UNET, UNET), "not a safetensors file"),
        "an encoder's pickle named safetensors": (pickled(TEXT, TEXT), "not a safetensors file"),
        "a list that names a pickle": (
            both(pickled("unet/evil.bin"), listing("unet", "diffusion_pytorch_model", "evil.bin")),
            "weight_map names 'evil.bin'",
        ),
        "an encoder's list that names a pickle": (
            both(pickled("text_encoder/evil.bin"), listing("text_encoder", "model", "evil.bin")),
            "weight_map names 'evil.bin'",
        ),
        "a list that leads up": (listing("unet", "diffusion_pytorch_model", "../x.safetensors"), "weight_map names"),
        "a list that leads away": (listing("unet", "diffusion_pytorch_model", "/x.safetensors"), "weight_map names"),
        "a list of numbers": (listing("unet", "diffusion_pytorch_model", 7), "weight_map names 7"),
        "a list of no files": (listing("unet", "diffusion_pytorch_model", "y.safetensors"), "No such file"),
        "a list without a table": (
            listing("unet", "diffusion_pytorch_model", "x", weight_map=["x.safetensors"]),
            "weight_map is not a table",
        ),
        # --- weights
        "a header longer than the file": (tensors(b"{}", length=2**63), "cut short"),
        "a header of megabytes": (tensors(b" " * 20_000_000 + b"{}"), "a header of 20000002 bytes"),
        "a tensor of 100 GB": (tensors(entry([25 * 10**9], 0, 10**11)), "does not fit the file"),
        "a tensor larger than its place": (tensors(entry([25 * 10**9], 0, 4), b"1234"), "does not fit the file"),
        "a tensor that ends before it begins": (tensors(entry([1], 4, 0), b"1234"), "does not fit the file"),
        "a tensor of negative size": (tensors(entry([-1], 0, 4), b"1234"), "no number, or too large"),
        "a tensor of no known kind": (tensors(entry([1], 0, 4, dtype="PYOBJ"), b"1234"), "no known dtype"),
        "a header that is a list": (tensors([1, 2, 3]), "not a JSON object"),
        "a header nested deep": (tensors(b"[" * HUGE + b"]" * HUGE), "nested more than"),
        "a sparse file": (tensors(entry([10**9], 0, 4 * 10**9), size=4 * 10**9), "most of the file is holes"),
        "many tensors": (
            tensors({f"t{i}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for i in range(150_000)}),
            "150000 tensors",
        ),
        "many tensors by another spelling": (
            tensors(
                b"{"
                + b",".join(b'"t%d":{"dtype":"U8","shape":[0],"data\\u005foffsets":[0,0]}' % i for i in range(150_000))
                + b"}"
            ),
            "150000 tensors",
        ),
        "tensors that share bytes": (
            tensors({name: entry([1], 0, 4)["conv_in.weight"] for name in "ab"}, b"1234"),
            "share bytes",
        ),
        "weights of another size": (
            tensors(entry([10**7], 0, 4 * 10**7), bytes(4 * 10**7)),
            "do not belong together",
        ),
        # --- configurations
        "a network wider than its weights": (
            config(NETWORK, block_out_channels=[8192, 8192]),
            "do not belong together",
        ),
        "an encoder wider than its weights": (config(ENCODER, vocab_size=HUGE), "do not belong together"),
        "an autoencoder wider than its weights": (config(CODER, block_out_channels=[8192, 8192]), "do not belong"),
        "images of a million cells": (config(NETWORK, sample_size=10**9), "sample_size is 1000000000"),
        "images of two sizes": (config(NETWORK, sample_size=[24, 10**9]), "sample_size is 1000000000"),
        "a million layers": (config(NETWORK, layers_per_block=HUGE), "layers_per_block is 1000000"),
        "a million layers of an autoencoder": (config(CODER, layers_per_block=HUGE), "layers_per_block is 1000000"),
        "a million layers of an encoder": (config(ENCODER, num_hidden_layers=HUGE), "num_hidden_layers is 1000000"),
        "layers in a list": (config(NETWORK, layers_per_block=[1, HUGE]), "layers_per_block is 1000000"),
        "layers of many stages": (
            config(NETWORK, layers_per_block=500, block_out_channels=[8] * 60),
            "60 stages of 500 layers",
        ),
        "channels by the million": (config(NETWORK, block_out_channels=[HUGE, HUGE]), "block_out_channels is 1000000"),
        "many stages": (config(NETWORK, block_out_channels=[8] * 10_000), "block_out_channels has 10000 entries"),
        "a vocabulary of billions": (config(ENCODER, vocab_size=10**11), "vocab_size is 100000000000"),
        "positions by the million": (config(ENCODER, max_position_embeddings=HUGE), "max_position_embeddings"),
        "words by the million": (config(WORDS, extra_ids=HUGE), "extra_ids is 1000000"),
        "many time steps": (config(SAMPLER, num_train_timesteps=10**11), "num_train_timesteps"),
        "images of a word": (config(NETWORK, sample_size="large"), "cannot load"),
        "a spacing of no kind": (config(SAMPLER, timestep_spacing=[]), "timestep_spacing is "),
        "a number as a float": (config(NETWORK, in_channels=1e300), r"in_channels is 1e\+300"),
        "a number of many digits": (text(NETWORK, '{"sample_size": ' + "9" * 100_000 + "}"), "100000 digits"),
        "not a number": (text(NETWORK, '{"sample_size": NaN}'), "NaN is not a number"),
        "infinity by its size": (text(NETWORK, '{"sample_size": 1e999}'), "sample_size is inf"),
        "a field that occurs twice": (text(NETWORK, '{"a": 1, "a": 2}'), "occurs twice"),
        "an index nested deep": (text(INDEX, "[" * 200_000 + "]" * 200_000), "nested more than"),
        "a configuration nested deep": (text(NETWORK, '{"a":' * 40 + "1" + "}" * 40), "nested more than 32 deep"),
        "an index of megabytes": (index(x="a" * 2_000_000), "larger than 1048576 bytes"),
        "a vocabulary of megabytes": (
            lambda folder, code: os.truncate(folder / "tokenizer" / "tokenizer.json", 10**9),
            "larger than",
        ),
        "an index in another encoding": (text(INDEX, b"\xff\xfe{}"), "utf-8"),
        "an index that is a FIFO": (fifo(INDEX), "not a regular file"),
        "a configuration that is a FIFO": (fifo(NETWORK), "not a regular file"),
        "a vocabulary that is a FIFO": (fifo("tokenizer/tokenizer.json"), "not a regular file"),
        "weights that are a FIFO": (fifo(UNET), "not a regular file"),
        # --- strings for the terminal
        "a class with escapes": (index(_class_name="\x1b]0;owned\x07"), r"\\x1b\]0;owned\\x07"),
        "a component with escapes": (
            lambda folder, code: edit(folder / INDEX, **{"\x1b[2J": ["my", "My"]}),
            r"\\x1b\[2J",
        ),
        "a library with escapes": (index(unet=["\x1b[2J\u202e", "My"]), r"\\x1b\[2J\\u202e"),
        "a field with escapes": (
            lambda folder, code: edit(folder / NETWORK, **{"\x1b[2Jlayers": HUGE}),
            r"\\x1b\[2Jlayers is 1000000",
        ),
        "a file with escapes": (text("unet/\x1b[2J.json", "["), r"unet/\\x1b\[2J.json"),
        "a tensor with escapes": (tensors({"\x1b[2J": 1}), r"\\x1b\[2J"),
    }.items()
}


def make(name: str, sound: Path, target: Path, canaries: Path) -> Path:
    """Copy a sound folder and change the copy; return it."""
    shutil.copytree(sound, target)
    canary = canaries / name.replace(" ", "-")
    MODELS[name].change(target, f"open({str(canary)!r}, 'w').close()")
    return target


def main(target: Path, canaries: Path) -> None:
    from helpers.models.pipelines import stable_diffusion

    sound = target / "sound"
    stable_diffusion().save_pretrained(sound)
    canaries.mkdir()
    for name in MODELS:
        make(name, sound, target / name.replace(" ", "-"), canaries)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
