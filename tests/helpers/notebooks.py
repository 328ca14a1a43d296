"""Runs the code of a notebook, cell by cell.

nbclient would need a kernel, and with it pyzmq, tornado and some twenty packages more, for what `exec` does here: the
notebooks have neither magics nor widgets.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def cells_of(path: Path) -> list[dict[str, Any]]:
    """Return the code cells of a notebook."""
    return [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]


def run_notebook(path: Path, **parameters: Any) -> dict[str, Any]:
    """Run the code cells in order, and return the names that they defined.

    `parameters` replace values that the cell tagged "parameters" gives.

    Raises
    ------
    KeyError
        If that cell does not give a value to such a name.
    """
    names: dict[str, Any] = {"__name__": "__main__"}
    for i, cell in enumerate(cells_of(path)):
        exec(compile("".join(cell["source"]), f"{path.name}, code cell {i + 1}", "exec"), names)
        if "parameters" in cell["metadata"].get("tags", ()):
            for name, value in parameters.items():
                if name not in names:
                    raise KeyError(f"{path.name} has no parameter {name}")
                names[name] = value
    return names
