"""Published numbers of three papers, each with its source; tables show them beside ours, marked as published."""

from __future__ import annotations

from dataclasses import dataclass

PAPER = "Hong et al., NeurIPS 2024 (arXiv 2409.18442)"
SOURCE = f"{PAPER}, SD 2.1 on an RTX 3090 Ti"

SD, LAVIE, INSTAFLOW = "SD 2.1", "LaVie", "InstaFlow"
CARDS = {
    SD: "RTX 3090 Ti, guidance 3.0",
    LAVIE: "A100, guidance 7.5",
    INSTAFLOW: "RTX 3090, guidance 1.0",
}
"""Card and guidance of each model of table 1."""


@dataclass(frozen=True)
class Published:
    """One cell of table 1: NMSE of z_0 in dB, half of its 95 % interval (None where not at hand), seconds per image."""

    nmse: float
    half: float | None
    seconds: float


def _cells(*cells: tuple[int, float, float | None, float]) -> dict[int, Published]:
    return {iterations: Published(nmse, half, seconds) for iterations, nmse, half, seconds in cells}


_ADAM, _SIXTEEN = "adam .01 scheduled", "adam .01 scheduled, 16-bit"
# Tables 1 and S1, mean of 100 images: model -> our name for the method -> iterations -> cell.
TABLE_1: dict[str, dict[str, dict[int, Published]]] = {
    SD: {
        "gradient .1 scheduled": _cells(
            (20, -15.92, 0.44, 6.11), (30, -17.84, 0.55, 9.31), (50, -20.69, 0.73, 15.7), (100, -24.82, 1.08, 31.7)
        ),
        "gradient .01 fixed": _cells(
            (20, -18.61, 0.49, 6.29), (30, -19.51, 0.55, 9.37), (50, -20.93, 0.67, 16.0), (100, -23.00, 0.85, 32.8)
        ),
        _ADAM: _cells(
            (20, -19.39, 0.54, 3.34), (50, -20.84, 0.66, 8.53), (100, -21.71, 0.77, 17.7), (200, -21.85, 0.82, 34.5)
        ),
        _SIXTEEN: _cells(
            (20, -18.74, 0.48, 1.91), (50, -20.82, 0.66, 4.90), (100, -21.72, 0.77, 9.56), (200, -21.86, 0.82, 19.3)
        ),
    },
    LAVIE: {
        "gradient .1 scheduled": _cells(
            (20, -17.35, None, 24.9), (30, -18.12, None, 37.1), (50, -19.58, None, 61.4), (100, -22.20, None, 122)
        ),
        _SIXTEEN: _cells(
            (20, -19.86, None, 8.59), (50, -21.37, None, 21.2), (100, -21.52, None, 42.3), (200, -21.14, None, 83.5)
        ),
    },
    INSTAFLOW: {
        "gradient .1 scheduled": _cells(
            (20, -15.67, None, 6.29), (30, -16.22, None, 9.55), (50, -17.26, None, 16.1), (100, -19.15, None, 32.5)
        ),
        _SIXTEEN: _cells(
            (20, -16.38, None, 1.89), (50, -17.46, None, 4.93), (100, -17.76, None, 9.99), (200, -17.82, None, 20.0)
        ),
    },
}
PEAK_GB: dict[str, dict[str, float]] = {
    SD: {"gradient .1 scheduled": 8.83, "gradient .01 fixed": 8.83, _ADAM: 3.81, _SIXTEEN: 3.15},
    LAVIE: {"gradient .1 scheduled": 64.7, _SIXTEEN: 7.13},
    INSTAFLOW: {"gradient .1 scheduled": 8.38, _SIXTEEN: 2.62},
}
"""Peak memory in GB, of table 1."""
VIDEO_SOURCE = "the same, LaVie on an A100"
# Seconds of 50 steps and peak memory (MiB; printed in GB), by whether of a video, our name for the method, and precision.
# Hong et al. (2024), tables 1 and S1; gradient: learning rate .1, scheduled; adam: gradient-free, .01, scheduled.
_MIB = 1e9 / 2**20
PUBLISHED_COSTS: dict[tuple[bool, str, str], tuple[float, float]] = {
    (False, "gradient", "float32"): (15.7, 8.83 * _MIB),
    (False, "adam", "float32"): (8.53, 3.81 * _MIB),
    (False, "adam", "float16"): (4.90, 3.15 * _MIB),
    (True, "gradient", "float32"): (61.4, 64.7 * _MIB),
    (True, "adam", "float16"): (21.2, 7.13 * _MIB),
}
# Table S2, 32-bit, as printed; the header's iterations (20, 30, 50, 100) are probably wrong for the Adam row, which
# equals the row of 20, 50, 100 and 200 iterations above.
ABLATION_NOTE = (
    "table S2, whose header says 20, 30, 50 and 100 iterations; its Adam row equals table 1's of 20, 50, 100 and 200"
)
ABLATION: dict[str, dict[int, float]] = {
    "forward-step": {20: -16.87, 30: -17.42, 50: -18.21, 100: -19.35},
    "inertial-km": {20: -18.99, 30: -20.72, 50: -21.46, 100: -20.91},
    "adam .01 scheduled": {20: -19.39, 50: -20.84, 100: -21.71, 200: -21.85},
    "adam 0.01 fixed": {20: -20.05, 50: -21.07, 100: -21.22, 200: -20.61},
    "adam 0.002 fixed": {20: -17.85, 50: -19.28, 100: -20.59, 200: -21.57},
}
# Watermark classification, three keys x 100 prompts, closed set, 100 iterations, by model and our name for the method.
# Confusion matrices as printed: rows are actual keys, columns predicted ones.
CLASSIFICATION: dict[tuple[str, str], tuple[tuple[int, int, int], ...]] = {
    ("SD 2.1", "encoder"): ((54, 14, 32), (27, 47, 26), (12, 3, 85)),
    ("SD 2.1", "gradient"): ((47, 24, 29), (17, 66, 17), (4, 2, 94)),
    ("SD 2.1", "gradient-free"): ((52, 17, 31), (18, 57, 25), (5, 2, 93)),
    ("InstaFlow", "encoder"): ((29, 36, 35), (1, 36, 63), (0, 16, 84)),
    ("InstaFlow", "gradient"): ((31, 55, 14), (1, 96, 3), (0, 0, 100)),
    ("InstaFlow", "gradient-free"): ((30, 60, 10), (1, 97, 2), (0, 0, 100)),
}
CLASSIFICATION_COSTS: dict[tuple[str, str], tuple[float, float]] = {
    ("SD 2.1", "encoder"): (5.66, 5.71),
    ("SD 2.1", "gradient"): (38.0, 11.4),
    ("SD 2.1", "gradient-free"): (22.9, 6.35),
    ("InstaFlow", "encoder"): (3.55, 2.93),
    ("InstaFlow", "gradient"): (35.9, 8.84),
    ("InstaFlow", "gradient-free"): (13.6, 3.15),
}
"""Seconds per image, both inversions, and peak memory in GB of the same."""

TREE_RING = "Wen et al., NeurIPS 2023 (arXiv 2305.20030), 1000 + 1000 images"
# AUC by attack, as printed: clean, rotation 75, JPEG 25, crop & scale .75, blur r4, noise .1, colour jitter 6; the mean.
TREE_RING_AUC: dict[str, tuple[float, ...]] = {
    "DwtDct": (0.974, 0.596, 0.492, 0.640, 0.503, 0.293, 0.519, 0.574),
    "RivaGAN": (0.999, 0.173, 0.981, 0.999, 0.974, 0.888, 0.963, 0.854),
    "Tree-Ring zeros": (0.999, 0.994, 0.984, 0.999, 0.977, 0.877, 0.907, 0.963),
    "Tree-Ring rand": (1.0, 0.486, 0.999, 0.971, 0.999, 0.972, 0.994, 0.918),
    "Tree-Ring rings": (1.0, 0.935, 0.999, 0.961, 0.999, 0.944, 0.983, 0.975),
}
SFWMARK = "Lee and Cho, ICCV 2025 (arXiv 2509.07647), SD 2.1, 1000 MS-COCO prompts, 2048 keys"
# Means over twelve conditions: TPR at 1 % FPR, the threshold refitted under each, and identification among 2048 keys.
SFWMARK_MEANS: dict[str, tuple[float, float | None]] = {
    "Tree-Ring": (0.655, 0.114),
    "ZoDiac": (0.962, None),
    "RingID": (0.997, 0.964),
    "HSTR": (0.971, 0.889),
    "HSQR": (0.997, 0.985),
}
# With one threshold from clean images, false positives among processed unmarked ones, least and greatest share.
SFWMARK_FALSE: dict[tuple[str, str], tuple[float, float]] = {
    ("RingID", "centre crop"): (0.11, 0.14),
    ("RingID", "brightness"): (0.06, 0.09),
    ("HSQR", "brightness"): (0.05, 0.08),
}
