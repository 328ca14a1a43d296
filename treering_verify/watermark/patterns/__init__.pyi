from .base import Agreement as Agreement
from .base import Distribution as Distribution
from .base import Layout as Layout
from .base import Pattern as Pattern
from .base import Place as Place
from .registry import PATTERNS as PATTERNS
