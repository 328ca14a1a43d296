from .catalogue import BENCHMARKS as BENCHMARKS
from .catalogue import GROUPS as GROUPS
from .catalogue import SHARED as SHARED
from .catalogue import Benchmark as Benchmark
from .catalogue import format_group as format_group
from .harness.scope import Scope as Scope
from .runner import run as run
from .runner import run_shared as run_shared
