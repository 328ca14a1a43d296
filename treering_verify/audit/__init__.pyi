from .folder import audit_folder as audit_folder
from .inputs.reader_pool import Limits as Limits
from .inputs.sources import Inputs as Inputs
from .options import ENGINES as ENGINES
from .options import Options as Options
from .output.rows import Row as Row
