"""Generate the files of this folder: `python samples/make.py`. The key is public; never mark images of your own with it."""

from __future__ import annotations

import json
from pathlib import Path

from PIL import Image

import treering_verify as tv
from treering_verify.attacks import parse
from treering_verify.media.conversion import save_png, to_tensor
from treering_verify.report import save_spectrum_figure

HERE = Path(__file__).parent
SEED = 5 << 32  # of key and images; far from the seeds of users and benchmarks


def main() -> None:
    model = tv.load_model("landscape")
    key_file = HERE / "sample.key.json"
    key_file.unlink(missing_ok=True)
    key = tv.Key.generate(model.latent_shape, name="sample", seed=SEED)
    key.save(key_file)
    marked = [g.image for g in tv.generate(model, key, seeds=[SEED, SEED + 1, SEED + 2])]
    unmarked = [g.image for g in tv.generate(model, None, seeds=[SEED, SEED + 1])]
    for i, image in enumerate(marked):
        save_png(image, HERE / f"marked-{i}.png")
    for i, image in enumerate(unmarked):
        save_png(image, HERE / f"unmarked-{i}.png")
    marked[0].save(HERE / "marked-0-jpeg25.jpg", quality=25)
    save_png(parse("noise:sigma=0.05").apply(marked[1], seed=1), HERE / "marked-1-noise.png")
    save_png(photograph(), HERE / "photograph.png")
    draw_overview(model, key)
    expected = {}
    detector = tv.Detector(key, model=model)
    for path in sorted(
        p for p in HERE.iterdir() if p.suffix in (".png", ".jpg") and p.stem not in ("overview", "edit")
    ):
        verdict = detector.verify(path)
        assert verdict.best is not None
        expected[path.name] = {
            "verdict": verdict.verdict,
            "key": verdict.key or None,
            "log10_pvalue": round(verdict.best.log10_adjusted, 2),
        }
    (HERE / "expected.json").write_text(json.dumps(expected, indent=2) + "\n")


def draw_overview(model: tv.models.LatentModel, key: tv.Key) -> None:
    """Draw the figure at the top of the README: marked images above their unmarked twins, and the recovered spectrum."""
    seeds = range(SEED + 100, SEED + 109)
    marked, unmarked = (list(tv.generate(model, k, seeds=seeds)) for k in (key, None))
    recovered, control = (
        tv.inversion.recover_noise(model, to_tensor(made[0].image))[0][0] for made in (marked, unmarked)
    )
    path = HERE / "overview.png"
    save_spectrum_figure(path, key, marked[0].noise, recovered, control)
    with Image.open(path) as spectrum:
        width = len(marked) * 132 - 4
        below = spectrum.convert("RGB").resize((width, round(spectrum.height * width / spectrum.width)))
    whole = Image.new("RGB", (width, 2 * 132 + below.height), "white")
    for row, made in enumerate((marked, unmarked)):
        for i, one in enumerate(made):
            whole.paste(one.image, (132 * i, 132 * row))
    whole.paste(below, (0, 264))
    save_png(whole, path)


def photograph() -> Image.Image:
    """Return a crop of scikit-image's coffee cup, 128 x 128 (public domain, CC0; see README.md in this folder)."""
    from skimage import data

    return Image.fromarray(data.coffee()).crop((200, 0, 600, 400)).resize((128, 128), Image.Resampling.LANCZOS)


if __name__ == "__main__":
    main()
