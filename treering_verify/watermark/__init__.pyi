from .embedding import embed as embed
from .embedding import extract as extract
from .embedding import features as features
from .keys.index import KeyIndex as KeyIndex
from .keys.index import load_keys as load_keys
from .keys.key import Family as Family
from .keys.key import Key as Key
from .patterns.registry import PATTERNS as PATTERNS
