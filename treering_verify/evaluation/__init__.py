"""Figures of how well keys are named: confusion matrices, and exact tests between methods on the same images.

`ConfusionMatrix` (module `confusion_matrix`) counts and draws one method's predictions, `MethodDifferences` (`differences`)
compares several, and `labelled_images` (`labelled`) reads a folder of images whose keys are known.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
