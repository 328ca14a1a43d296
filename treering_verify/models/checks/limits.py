"""Limits on the fields of configurations: numbers, lists, and fields that name code or other files."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any

from treering_verify.errors import ModelError
from treering_verify.files import printable

# Fields by which diffusers or transformers find code, kernels, quantisers or another model than the folder's.
CODE = (
    "auto_map",
    "custom_pipeline",
    "custom_pipelines",
    "custom_generate",
    "custom_revision",
    "trust_remote_code",
    "code_revision",
    "_module_name",
    "attn_implementation",
    "_attn_implementation",
    "_attn_implementation_internal",
    "experts_implementation",
    "_experts_implementation",
    "use_kernels",
    "kernel_config",
    "quantization_config",
    "compression_config",
    "base_model_name_or_path",
)
# What a class needs no code for: a field says only that there is none, or names how torch computes attention.
_HARMLESS = (None, False, "", "eager", "sdpa")
# Words that diffusers looks at only when a grid is asked for.
_CHOICES = {"timestep_spacing": ("leading", "trailing", "linspace")}
_LARGEST = 2**20
_LONGEST, _STAGES = 1024, 64
_LIMITS: tuple[tuple[re.Pattern[str], int], ...] = tuple(
    (re.compile(pattern), limit)
    for pattern, limit in (
        (r"layers|num_(\w+_)?blocks|^blocks$", 512),
        (r"channels|_dim$|^dim$|^d_(model|ff|kv)$|hidden_size|intermediate_size|^width$", 2**16),
        (r"sample_size|image_size|pos_embed_max_size", 2**14),
        (
            r"^max_position_embeddings$",
            2**18,
        ),  # chat models count so far; a table of so many is compared with the weights
        (r"position_embeddings|max_seq|positional|^n_positions$|^axes_lens$", 2**16),
        (r"heads", 2**12),
        (r"^num_train_timesteps$", 100_000),
        (r"^extra_ids$", _LONGEST),
    )
)
_STAGE_LIST = re.compile(r"block|channels|layers|mult")
_UNBOUNDED = ("model_max_length", "total_size", "id2label", "label2id")
_MAX_LAYERS = 1024  # of all stages of a network together
_MAX_TABLE = 2**29  # numbers in a table of positions: a side squared, times the width


def check_config(config: dict[str, Any], where: str) -> None:
    """Check the fields of a configuration, whatever it belongs to.

    Parameters
    ----------
    config : dict
        The content of a JSON file.
    where : str
        Printable names of model and file, for messages.

    Raises
    ------
    ModelError
        If a field names code or a file, a number or a list exceeds its limit, or the product of layers or of sizes does. The
        message names the field.
    """
    for field, value in _fields(config):
        _check_field(field, value, where)
    kind = config.get("_class_name")
    if kind is not None and not (isinstance(kind, str) and kind.isidentifier()):
        raise ModelError(f"{where}: _class_name is {_short(kind)}, which is not a class of a library: {_NO_CODE}")
    _check_layers(config, where)
    _check_table(config, where)


_NO_CODE = "code that comes with a model is never run"


def _check_field(field: str, value: Any, where: str) -> None:
    shown = f"{where}: {printable(field)[:80]}"
    if field in CODE and not any(value is harmless or value == harmless for harmless in _HARMLESS):
        raise ModelError(
            f"{shown} is {_short(value)}: it names code, another model or quantised weights, which are never loaded; "
            "use a folder without it"
        )
    if field in _CHOICES and value not in _CHOICES[field]:
        raise ModelError(f"{shown} is {_short(value)}: choose one of {', '.join(_CHOICES[field])}")
    if field.endswith("_file") and value is not None and field != "special_tokens_map_file":
        raise ModelError(f"{shown} is {_short(value)}: only files of the folder are read, by their standard names")
    if isinstance(value, list) and field not in _UNBOUNDED:
        most = _STAGES if _STAGE_LIST.search(field) else _LONGEST
        if len(value) > most:
            raise ModelError(f"{shown} has {len(value)} entries, more than {most}")
    elif isinstance(value, int | float) and not isinstance(value, bool) and field not in _UNBOUNDED:
        largest = next((limit for pattern, limit in _LIMITS if pattern.search(field)), _LARGEST)
        if not math.isfinite(value) or abs(value) > largest:
            raise ModelError(f"{shown} is {_short(value)}, beyond {largest}")


def _fields(config: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield every value at every depth, with the name of the nearest field."""
    waiting: list[tuple[str, Any]] = list(config.items())
    while waiting:
        field, value = waiting.pop()
        yield field, value
        if isinstance(value, dict):
            waiting += value.items()
        elif isinstance(value, list):
            waiting += [(field, inner) for inner in value]


def _check_layers(config: dict[str, Any], where: str) -> None:
    stages = max([len(value) for name, value in config.items() if _STAGE_LIST.search(name) and _is_list(value)] or [1])
    layers = 1
    for name, value in config.items():
        if re.search(r"layers_per_block$|num_res_blocks$", name):
            layers = max(layers, _largest(value))
    inner = max(
        [_largest(value) for name, value in config.items() if name.endswith("transformer_layers_per_block")] or [1]
    )
    if stages * layers > _MAX_LAYERS or stages * inner * min(layers, 8) > _MAX_LAYERS:
        raise ModelError(f"{where}: layers_per_block asks for {stages} stages of {max(layers, inner)} layers, too many")


def _check_table(config: dict[str, Any], where: str) -> None:
    if not config.get("patch_size"):
        return
    patch = max(1, _largest(config["patch_size"]))
    side = max(_largest(config.get("sample_size")) // patch, _largest(config.get("pos_embed_max_size")))
    width = _largest(config.get("num_attention_heads")) * _largest(config.get("attention_head_dim"))
    if side * side * width > _MAX_TABLE:
        raise ModelError(
            f"{where}: sample_size asks for a table of {side} x {side} positions of {width} numbers, too many"
        )


def _is_list(value: Any) -> bool:
    return isinstance(value, list)


def _largest(value: Any) -> int:
    """Return the largest whole number in a field; 0 if there is none."""
    found = [int(v) for _, v in _fields({"": value}) if isinstance(v, int | float) and not isinstance(v, bool)]
    return max([0, *found])


def _short(value: Any) -> str:
    text = f"a number of {value.bit_length()} bits" if isinstance(value, int) and abs(value) > 2**64 else repr(value)
    return printable(text if len(text) <= 80 else text[:77] + "...")
