"""Whether the audit that a command line asks for has been finished before, without loading the model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from treering_verify.audit.inputs.sources import Inputs
    from treering_verify.audit.options import Options
    from treering_verify.cli.options.inversion import InversionChoice
    from treering_verify.models import ModelSource
    from treering_verify.watermark.keys.index import KeyIndex
    from treering_verify.watermark.keys.key import Key

_MOST_KEYS = 1000  # of more, a digest


def request_for(
    keys: Sequence[Key | KeyIndex],
    model: ModelSource,
    inversion: InversionChoice,
    inputs: Inputs,
    options: Options,
    test: Sequence[Any],
) -> str | None:
    """Return the digest of all that an audit's rows depend on; None if the model's files cannot be told.

    Parameters
    ----------
    keys, model, inversion, inputs, options
        What the command line names.
    test : sequence, JSON-ready
        The other options that verdicts depend on.
    """
    from treering_verify.audit.output.repeat import request_of
    from treering_verify.models.loading import files_of
    from treering_verify.models.provenance import versions
    from treering_verify.watermark.keys.index import public_keys, retired_keys

    files = files_of(model)
    if files is None:
        return None
    facts = {
        "keys": public_keys(keys, _MOST_KEYS),
        "retired": retired_keys(keys),
        "model": asdict(model),
        "inversion": [inversion.fields, str(inversion.profile), inversion.allow_weak],
        "inputs": inputs.facts(),
        "rows": [options.shard_rows, options.q_values],
        "test": list(test),
        "versions": versions(),
    }
    return request_of(facts, [*files, inversion.profile])


def is_repeated(output: Path, request: str | None, options: Options) -> bool:
    """Return whether the audit in a folder was finished under a request and nothing in it is to be done again."""
    from treering_verify.audit.output.repeat import is_finished

    if options.overwrite or not is_finished(output, request):
        return False
    return not (options.retry_errors and json.loads((output / "summary.json").read_bytes())["status"].get("error"))
