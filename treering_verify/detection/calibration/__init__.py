"""Calibrated detectors: the literature's tests and a learned classifier, with p-values that unmarked images calibrate.

`registry` names the detectors. `build` scores unmarked images and trains the classifier, `scores` says how well a key fits a
noise estimate, `calibration_file` stores the scores with all that they hold for, and `verify` turns an image's score into a
conformal p-value. The exact test (`detection.verification`) needs none of this.
"""
