from .confusion_matrix import ConfusionMatrix as ConfusionMatrix
from .differences import MethodDifferences as MethodDifferences
from .labelled import labelled_images as labelled_images
