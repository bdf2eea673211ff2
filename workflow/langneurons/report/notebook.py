"""The notebook of the report: made of its source in percent format, executed, and the same whenever the tables are."""

from __future__ import annotations

import ast
import copy
import json
import os
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jupytext  # type: ignore[import-untyped]
import matplotlib as mpl
import nbformat
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat import NotebookNode

from langneurons.errors import UserError
from langneurons.report.looks import look

PARAMETERS = "parameters"
"""The tag of the cell that is replaced."""
METADATA = {
    "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
    "language_info": {"file_extension": ".py", "mimetype": "text/x-python", "name": "python"},
}
"""Of the notebook; no versions, and no times."""
STARTUP_SECONDS = 300
"""How long a kernel may take to start, such as from a slow file system."""
LONGEST = 80
"""Characters of a folder's path; of a socket in it, the system allows 107."""
PRINTED = 300
"""So many characters of an exception's own message are repeated."""
FOLDERS = ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR")
"""Where Jupyter and IPython read settings and write files."""
FOREIGN = ("JUPYTER_PATH", "JUPYTER_CONFIG_PATH", "PYTHONSTARTUP", "MPLBACKEND", "JPY_SESSION_NAME")
"""Other settings of the user, which a kernel does not get."""
ESCAPES = re.compile(r"\x1b\[[0-9;]*m")
CELL = re.compile(r"\S*ipykernel_\d+/\d+\.py")
"""The file of a cell, with the number of the process, in warnings."""
LINE = re.compile(r"Cell In\[(\d+)\], line (\d+)")


class NotebookError(UserError):
    """A notebook that cannot be made or executed, with the cell and the exception."""


# -- from the source ---------------------------------------------------------------------------------------------------


def colours(languages: Sequence[str]) -> dict[str, str]:
    """The colour of every language in the figures of the report, as `#rrggbb`."""
    return {language: look(language, languages).colour for language in languages}


def build(source: str, parameters: dict[str, Any]) -> NotebookNode:
    """A notebook without outputs, the same byte for byte whenever source and parameters are.

    Args:
        source: in jupytext's percent format, with one cell tagged `parameters`, which assigns names.
        parameters: the value of every name that this cell assigns: text, numbers, lists and dicts of these. They take
            its place.

    Raises:
        NotebookError: no such cell or several, or it assigns other names than these.
    """
    notebook = jupytext.reads(source, fmt="py:percent")
    notebook.metadata = nbformat.from_dict(METADATA)
    for number, cell in enumerate(notebook.cells, 1):
        cell.id = f"cell-{number}"  # random otherwise
        tags = cell.metadata.get("tags", [])
        cell.metadata = nbformat.from_dict({"tags": tags} if tags else {})
    tagged = [cell for cell in notebook.cells if PARAMETERS in cell.metadata.get("tags", [])]
    if len(tagged) != 1:
        raise NotebookError(f"The source has {len(tagged)} cells with the tag {PARAMETERS}. Give this tag to one cell.")
    names = _assigned(tagged[0].source)
    if names != list(parameters):
        raise NotebookError(
            f"The cell {PARAMETERS} assigns {', '.join(names)}. Let it assign {', '.join(parameters)}, in this order."
        )
    tagged[0].source = "\n".join(f"{name} = {_literal(value)}" for name, value in parameters.items())
    return notebook


def _assigned(code: str) -> list[str]:
    targets = [target for node in ast.parse(code).body if isinstance(node, ast.Assign) for target in node.targets]
    return [target.id for target in targets if isinstance(target, ast.Name)]


def _literal(value: Any) -> str:
    """Python code of a value, with the project's quotes."""
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, dict):
        return f"{{{', '.join(f'{_literal(key)}: {_literal(item)}' for key, item in value.items())}}}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(_literal(item) for item in value)}]"
    return repr(value)


# -- execution ---------------------------------------------------------------------------------------------------------


def execute(notebook: NotebookNode, folder: Path) -> NotebookNode:
    """Execute all cells in a folder, by the interpreter that runs this; outputs have no times and no random ids.

    Neither settings of the user (of Jupyter, IPython and matplotlib) nor files of their home are read or written.

    Args:
        notebook: without outputs; it is not changed.
        folder: in which the cells run; it exists.

    Returns:
        The notebook with its outputs.

    Raises:
        NotebookError: a cell raised an exception, or ended the kernel.
    """
    executed = copy.deepcopy(notebook)
    begun: list[int] = []
    client = NotebookClient(
        executed,
        timeout=None,
        startup_timeout=STARTUP_SECONDS,
        record_timing=False,
        shutdown_kernel="immediate",
        on_cell_execute=lambda cell, cell_index: begun.append(cell_index),
    )
    with tempfile.TemporaryDirectory(prefix="langneurons-", ignore_cleanup_errors=True) as temporary:
        client.km = _kernel(Path(temporary))
        try:
            client.execute(cwd=str(folder), env=_environment(Path(temporary)))
        except CellExecutionError as error:
            raise NotebookError(_failure(executed, begun[-1], error)) from None
        except RuntimeError as error:
            what = f"{_place(executed, begun[-1])} ended" if begun else "The notebook did not start"
            raise NotebookError(f"{what}: {error}. Was it stopped, or was there too little memory?") from None
    executed.metadata = nbformat.from_dict(METADATA)
    for output in [output for cell in executed.cells for output in cell.get("outputs", [])]:
        if output.output_type == "stream":
            output.text = CELL.sub("a cell", output.text)
    return executed


def _kernel(temporary: Path) -> AsyncKernelManager:
    """A kernel of this interpreter, since no folder of kernels is searched, that is reached by sockets in a folder.

    Where their paths would be too long for sockets, by ports of this machine.
    """
    kernel = AsyncKernelManager(kernel_name="python3", kernel_spec_manager=KernelSpecManager(kernel_dirs=[]))
    kernel.connection_file = str(temporary / "kernel.json")
    if len(str(temporary)) <= LONGEST:
        kernel.transport, kernel.ip = "ipc", str(temporary / "socket")
    return kernel


def _environment(temporary: Path) -> dict[str, str]:
    """The environment of the kernel: of this process, with the default settings of Jupyter, IPython and matplotlib."""
    kept = {name: value for name, value in os.environ.items() if name not in FOREIGN}
    folders = {name: str(temporary / name.lower()) for name in FOLDERS}
    fonts = mpl.get_cachedir()  # found once, which takes long
    return kept | folders | {"MPLCONFIGDIR": fonts, "MATPLOTLIBRC": mpl.get_data_path()}


def _failure(notebook: NotebookNode, index: int, error: CellExecutionError) -> str:
    """What failed: the cell, the exception, and the line of the innermost cell."""
    said = " ".join(ESCAPES.sub("", error.evalue).split())
    message = f"{_place(notebook, index)} raised {error.ename}" + (f": {said[:PRINTED]}" if said else "")
    lines = LINE.findall(ESCAPES.sub("", error.traceback))
    where = f", in line {lines[-1][1]} of cell {lines[-1][0]}" if lines else ""
    return f"{message}{where}. Correct that cell in the notebook's source, or the table that it reads."


def _place(notebook: NotebookNode, index: int) -> str:
    """A cell by its number among those with code, as in `In [3]`, and by the heading above it."""
    before = notebook.cells[: index + 1]
    titles = [
        line.lstrip("# ").strip()
        for cell in before
        if cell.cell_type == "markdown"
        for line in cell.source.splitlines()
        if line.startswith("#")
    ]
    number = sum(cell.cell_type == "code" for cell in before)
    return f"Cell {number} of the notebook" + (f" (below “{titles[-1]}”)" if titles else "")
