"""Published figures to print beside ours, and never as ours: Hong et al., NeurIPS 2024, arXiv 2409.18442.

NMSE of z_0 in dB and seconds per image; mean of 100 images.
"""

from __future__ import annotations

SOURCE = "Hong et al., NeurIPS 2024 (arXiv 2409.18442), SD 2.1 on an RTX 3090 Ti"

# Table 1 / S1, by our name for the method: {iterations: (NMSE, half of the 95 % interval, seconds)}.
INVERSION: dict[str, dict[int, tuple[float, float, float]]] = {
    "gradient .1 scheduled": {
        20: (-15.92, 0.44, 6.11),
        30: (-17.84, 0.55, 9.31),
        50: (-20.69, 0.73, 15.7),
        100: (-24.82, 1.08, 31.7),
    },
    "gradient .01 fixed": {
        20: (-18.61, 0.49, 6.29),
        30: (-19.51, 0.55, 9.37),
        50: (-20.93, 0.67, 16.0),
        100: (-23.00, 0.85, 32.8),
    },
    "adam .01 scheduled": {
        20: (-19.39, 0.54, 3.34),
        50: (-20.84, 0.66, 8.53),
        100: (-21.71, 0.77, 17.7),
        200: (-21.85, 0.82, 34.5),
    },
}
# Table S2, 32-bit, as printed; the header's iterations (20, 30, 50, 100) are probably wrong for the Adam row, which
# equals the row of 20, 50, 100 and 200 iterations above.
ABLATION: dict[str, dict[int, float]] = {
    "forward-step": {20: -16.87, 30: -17.42, 50: -18.21, 100: -19.35},
    "inertial-km": {20: -18.99, 30: -20.72, 50: -21.46, 100: -20.91},
    "adam .01 scheduled": {20: -19.39, 50: -20.84, 100: -21.71, 200: -21.85},
    "adam .01 fixed": {20: -20.05, 50: -21.07, 100: -21.22, 200: -20.61},
    "adam .002 fixed": {20: -17.85, 50: -19.28, 100: -20.59, 200: -21.57},
}
# Watermark classification, three keys x 100 prompts, closed set: right of 300.
CLASSIFICATION = {"encoder": 186, "gradient": 207, "gradient-free": 202}
