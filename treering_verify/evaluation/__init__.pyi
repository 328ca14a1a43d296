from .confusion_matrix import ConfusionMatrix as ConfusionMatrix
from .differences import MethodDifferences as MethodDifferences
