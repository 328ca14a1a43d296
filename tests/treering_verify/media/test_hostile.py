"""Hostile files: whatever is in them, the answer is an image or a code, soon, within bounded memory, and quotes nothing."""

from __future__ import annotations

import io
import json
import logging
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from helpers.hostile import files as hostile
from helpers.images import encoded, png, smooth
from helpers.places import ROOT
from PIL import Image

from treering_verify.detection.verification import verify_many
from treering_verify.errors import ImageError
from treering_verify.inversion.recovery import InversionOptions
from treering_verify.media import images
from treering_verify.media.conversion import fit
from treering_verify.media.decoder_limits import count_scans, quiet_decoders
from treering_verify.media.headers.part_counts import count_parts
from treering_verify.media.images import open_image
from treering_verify.models import LatentModel
from treering_verify.report import format_verdicts
from treering_verify.watermark.keys.key import Key


def outcome(data: bytes) -> str:
    """Return "ok" after all that happens to an image before the model, or the code; check that nothing is quoted."""
    try:
        image, _ = fit(open_image(data), (32, 32))
    except ImageError as error:
        assert error.code in images.CODES
        assert hostile.SECRET[:6] not in str(error) and str(error).isprintable()
        return error.code
    assert (image.mode, image.size, dict(image.getexif())) == ("RGB", (32, 32), {})
    assert not set(image.info) - {"cut_short", "file_note"}
    return "ok"


def run_alone(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run Python in a process of its own, with one thread and the tests' helpers at hand."""
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *([code] if code.endswith(".py") else ["-c", code]), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


# --- the corpus -------------------------------------------------------------------------------------------------------


def test_cut_flipped_and_disguised_files_are_read_or_refused() -> None:
    seen: Counter[str] = Counter()
    for case in hostile.damaged():
        code = outcome(case.data)
        assert code in case.codes, f"{case.name}: {code}"
        seen[code] += 1
    assert min(seen["ok"], seen["corrupt"], seen["not_an_image"]) > 300


def test_every_trick_gets_the_answer_that_it_should() -> None:
    found = {}
    for cases in (hostile.tricks(), hostile.heavy()):
        found |= {case.name: (outcome(case.data), case.codes) for case in cases}
    assert {name: code for name, (code, codes) in found.items() if code not in codes} == {}
    assert len(found) > 55


def test_the_first_frame_of_what_moves_is_shown() -> None:
    moving = {case.name: case.data for case in hostile.tricks() if case.name.startswith("animated")}
    assert set(moving) == {f"animated.{kind}" for kind in ("gif", "webp", "png", "avif", "tiff")}
    for name, data in moving.items():
        with Image.open(io.BytesIO(data)) as image:
            assert image.n_frames == 5, name
        red, green, blue = open_image(data).getpixel((16, 16))  # type: ignore[misc]
        assert red < 12 and green < 12 and blue > 243, name


def test_a_batch_of_hostile_files_gives_one_verdict_each_and_leaks_nothing(
    tiny_model: LatentModel, tmp_path: Path
) -> None:
    cases = list(hostile.tricks())
    paths = []
    for number, case in enumerate(cases):
        path = tmp_path / f"{number:03d} =1+1 <img src=x onerror=alert(1)>\x1b[31m\u202e\n{case.name}"
        path.write_bytes(case.data)
        paths.append(path)
    key = Key.generate(tiny_model.latent_shape, seed=1)
    inversion = InversionOptions(method="encoder", steps=1, batch_size=32)
    verdicts = list(verify_many(paths, key, model=tiny_model, inversion=inversion, search="quick"))
    assert [verdict.path for verdict in verdicts] == [str(path) for path in paths]
    for case, verdict in zip(cases, verdicts, strict=True):
        assert (verdict.code if verdict.status == "error" else "ok") in case.codes, case.name
        assert verdict.verdict != "detected"
    for style in ("text", "json", "jsonl"):
        output = "\n".join(format_verdicts(verdicts, style))
        assert hostile.SECRET[:12] not in output
        assert all(line.isprintable() for line in output.splitlines()) and "\u202e" not in output


# --- what the decoders are kept from ----------------------------------------------------------------------------------


def test_scans_are_counted_as_a_decoder_meets_them() -> None:
    assert count_scans(encoded(smooth(), "JPEG"), 100) == 1
    assert 5 < count_scans(encoded(smooth(), "JPEG", progressive=True), 100) < 20
    assert count_scans(hostile.scans(64, 30), 1000) == 31
    assert count_scans(hostile.scans(64, 300), 201) == 201  # as far as was asked
    jpeg = encoded(smooth(), "JPEG")
    hidden = (
        jpeg[:2] + hostile.segment(0xE1, b"\xff\xda" * 500) + jpeg[2:] + b"\xff\xda" * 500
    )  # in metadata, after the end
    assert count_scans(hidden, 100) == 1
    restarts = encoded(smooth(160, 160), "JPEG", restart_marker_blocks=1)
    assert count_scans(restarts + b"\xff\xda" * 20, 20) == 1
    for place in range(len(jpeg)):
        assert count_scans(jpeg[:place], 2) <= 1


def test_parts_are_counted_before_the_pixels() -> None:
    rows = b"\0" * 49 * 16
    assert count_parts(png(16, 16, 8, 2, rows), 100) == 3
    assert count_parts(png(16, 16, 8, 2, rows, hostile.chunk(b"tEXt", b"a\0b") * 40), 100) == 43
    jpeg = encoded(smooth(), "JPEG")
    sound = count_parts(jpeg, 100)
    assert sound == jpeg[2 : jpeg.index(b"\xff\xda")].count(b"\xff")
    assert count_parts(jpeg[:2] + hostile.segment(0xFE, b"\xff\xd8") * 7 + b"\xff" * 5 + jpeg[2:], 100) == sound + 12
    gif = encoded(smooth(), "GIF")
    palette = 13 + 3 * (2 << (gif[10] & 7))
    comments = b"\x21\xfe\x02hi\x03you\0"  # a label and two sub-blocks
    assert count_parts(gif[:palette] + comments * 9 + gif[palette:], 100) == count_parts(gif, 100) + 27
    header = b"P6 # two\n# comments\n 4 4\n255\n"
    assert count_parts(header + b"\0" * 48, 100) in range(len(header) - 1, len(header) + 1)
    assert count_parts(b"P" * 500, 100) == count_parts(b"", 100) == count_parts(encoded(smooth(), "BMP"), 100) == 0
    for data in hostile.samples().values():
        for length in range(0, len(data), 7):
            assert count_parts(data[:length], 500) < 500


def test_decoders_say_nothing_and_the_callers_log_still_hears_them() -> None:
    silent = run_alone(
        "from helpers.hostile import files as hostile\n"
        "from treering_verify.media.images import open_image\n"
        "from treering_verify.errors import ImageError\n"
        "for case in hostile.damaged():\n"
        "    if case.name.startswith(('tiff jpeg', 'tiff lzw')):\n"
        "        try: open_image(case.data)\n"
        "        except ImageError: pass\n"
    )
    assert (silent.returncode, silent.stdout, silent.stderr) == (0, "", "")
    heard: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: heard.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger().addHandler(handler)
    try:
        with quiet_decoders():
            logging.getLogger("PIL.TiffImagePlugin").error("for whoever listens")
    finally:
        logging.getLogger().removeHandler(handler)
    assert heard == ["for whoever listens"]


def test_what_does_not_fit_into_memory_is_not_called_damaged() -> None:
    answer = run_alone(
        "import resource\n"
        "from helpers.images import encoded\n"
        "from PIL import Image\n"
        "from treering_verify.errors import ImageError\n"
        "from treering_verify.media.images import open_image\n"
        "data = encoded(Image.new('RGB', (7000, 7000)), 'PNG', compress_level=1)\n"
        "open_image(encoded(Image.new('RGB', (16, 16)), 'PNG'))\n"
        "used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + (100 << 20),) * 2)\n"
        "try: open_image(data)\n"
        "except ImageError as error: print(error.code)\n"
    )
    assert answer.stdout.strip() == "no_memory", answer.stderr


# --- mutated files ----------------------------------------------------------------------------------------------------


def fuzz(count: int, seed: int) -> dict[str, Any]:
    """Decode mutated files in a process with 1.5 GB of address space; `hostile.fuzz` ends it when one takes too long."""
    done = run_alone(str(ROOT / "tests" / "helpers" / "hostile" / "files.py"), count, seed, 1536)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stderr == ""
    answer = json.loads(done.stdout)
    assert sum(answer["codes"].values()) == count
    assert set(answer["codes"]) <= {"RGB", *images.CODES}
    print(answer)
    return answer


def test_mutated_files_are_a_stream_that_can_be_repeated() -> None:
    first, again, other = (list(hostile.mutations(50, seed)) for seed in (1, 1, 2))
    assert first == again != other and len(set(first)) > 45


def test_ten_thousand_mutated_files_raise_nothing_and_end() -> None:
    answer = fuzz(10_000, 2026)
    assert min(answer["codes"][code] for code in ("RGB", "corrupt", "not_an_image")) > 500  # sound and broken alike


@pytest.mark.slow
def test_a_hundred_thousand_mutated_files_raise_nothing_and_end() -> None:
    fuzz(100_000, 7)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "I;16", "F", "CMYK", "P", "LA"])
def test_the_largest_image_that_is_read_stays_within_its_memory(mode: str) -> None:
    """One of 64 million pixels, in any mode, needs no more than 1.2 GB of address space on top of the libraries."""
    kind, options = ("TIFF", {"compression": "tiff_lzw"}) if mode in ("F", "CMYK") else ("PNG", {"compress_level": 1})
    answer = run_alone(
        "import resource, sys\n"
        "from helpers.images import encoded\n"
        "from PIL import Image\n"
        "from treering_verify.media.images import open_image\n"
        f"data = encoded(Image.new({mode!r}, (8000, 8000)), {kind!r}, **{options})\n"
        f"open_image(encoded(Image.new({mode!r}, (16, 16)), {kind!r}))\n"
        "used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + (1200 << 20),) * 2)\n"
        "print(open_image(data).size)\n"
    )
    assert answer.stdout.strip() == "(8000, 8000)", answer.stderr
