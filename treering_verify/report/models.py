"""Models as text: the supported families, and the results of a self-test."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from treering_verify.models import EMBEDDED, FAMILIES
from treering_verify.models.source import CLASS_CONDITIONAL
from treering_verify.report.text import format_pvalue, table


def format_families() -> Iterator[str]:
    """Yield a table of the families of models, and the limits of each."""
    ours = ", ".join(CLASS_CONDITIONAL)
    rows = [["class-conditional", "UNet2DModel + DDIM", f"{ours}; local folders", "one size, float32"]]
    rows += [[family.name, *family.pipelines[:1], family.covers, family.limits] for family in FAMILIES.values()]
    yield table(["family", "class", "models", "limits"], rows)
    yield ""
    yield f"--model takes an embedded name ({', '.join(EMBEDDED)}), a local folder, a .safetensors file or a hub id;"
    yield "treering models check tries one"


def format_self_test(record: dict[str, Any]) -> Iterator[str]:
    """Yield the results of a self-test (`SelfTest.record`): a line for each setting, and the recommended one."""
    shape, size = "x".join(map(str, record["latent_shape"])), "x".join(map(str, record["image_size"]))
    yield f"{record['model']}: noise {shape}, images {size}; generating {record['seconds_generating']:.2f} s an image"
    yield (
        f"relative errors: autoencoder {record['autoencoder_error']:.3g}, "
        f"ODE without prompt and guidance {record['ode_error']:.3g}"
    )
    rows = [
        [
            trial["inversion"],
            trial["noise_method"],
            str(trial["steps"]),
            f"{trial['error']:.3f}",
            " ".join(f"{value:.2f}" for value in trial["agreement"]),
            format_pvalue(trial["log10_marked"]),
            format_pvalue(trial["log10_attacked"]),
            format_pvalue(trial["log10_unmarked"]),
            f"{trial['seconds']:.2f}",
        ]
        for trial in record["trials"]
    ]
    header = ["inversion", "noise", "steps", "error", "agreement by frequency", "median p marked", "after JPEG 50"]
    yield table([*header, "least p unmarked", "seconds"], rows)
    chosen = record["recommended"]
    yield (
        f"{record['images']} marked and {record['images']} unmarked images. Recommended: --inversion {chosen['inversion']} "
        f"--noise-inversion {chosen['noise_inversion']} --steps {chosen['steps']}"
        if record["usable"]
        else "not usable: no setting finds the median marked image at 1e-6, and no verdict could be relied on"
    )
