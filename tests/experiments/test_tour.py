"""The notebook runs from its first cell to its last, and its tables are those of the command line."""

from __future__ import annotations

import contextlib
import io
import json
import re
from pathlib import Path

import nbformat
import pandas as pd
import pytest
from IPython.core.inputtransformer2 import TransformerManager
from nbclient import NotebookClient

TOUR = Path(__file__).parents[2] / "experiments" / "tour.ipynb"
MOST_BYTES = 200_000
TABLE = "print(sweep.table.to_csv(index=False))"


def with_the_table():
    """The notebook with a cell at its end that prints the sweep's table."""
    notebook = nbformat.read(TOUR, as_version=4)
    notebook.cells.append(nbformat.v4.new_code_cell(TABLE))
    return notebook


def assert_as_compare_prints(told, table, cifar):
    of_command = cifar("compare", "tour", "--format", "csv").stdout
    pd.testing.assert_frame_equal(pd.read_csv(io.StringIO(table)), pd.read_csv(io.StringIO(of_command)))
    assert "digits version 1 became champion, the first" in told


@pytest.mark.filterwarnings("ignore:FigureCanvasAgg is non-interactive")
def test_its_code_runs_and_its_table_is_what_compare_prints(work, cifar, smoke_here, monkeypatch):
    """In short, and in this process: less the imports of a kernel, of its sweep's workers and of the smoke gate."""
    monkeypatch.setenv("MPLBACKEND", "agg")
    notebook, names, printed = with_the_table(), {"__name__": "__main__"}, []
    (cell,) = [cell for cell in notebook.cells if "EPOCHS, SEEDS =" in cell.source]
    cell.source = re.sub(r"EPOCHS, SEEDS = .*", "EPOCHS, SEEDS = 1, 2", cell.source)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            with contextlib.redirect_stdout(io.StringIO()) as output:
                exec(TransformerManager().transform_cell(cell.source), names)
            printed.append(output.getvalue())
    names["plt"].close("all")
    assert_as_compare_prints("".join(printed), printed[-1], cifar)


@pytest.mark.long
def test_it_runs_from_its_first_cell_to_its_last(work, cifar):
    resources = {"metadata": {"path": str(work)}}
    notebook = NotebookClient(with_the_table(), timeout=600, resources=resources).execute()
    told = "".join(output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", []))
    assert_as_compare_prints(told, notebook.cells[-1].outputs[0].text, cifar)
    assert "IProgress" not in told


def test_it_is_committed_with_what_it_printed_and_is_small():
    notebook = json.loads(TOUR.read_text(encoding="utf-8"))
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    printing = [cell for cell in code if cell["outputs"]]
    assert len(printing) >= len(code) - 2  # all but the imports and what is for Colab
    outputs = [output for cell in printing for output in cell["outputs"]]
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 3
    assert not [output for output in outputs if output["output_type"] == "error" or output.get("name") == "stderr"]
    assert TOUR.stat().st_size <= MOST_BYTES
    assert "/root" not in TOUR.read_text()


def test_its_first_cell_is_for_colab():
    first = next(cell for cell in nbformat.read(TOUR, as_version=4).cells if cell.cell_type == "code")
    assert "google.colab" in first.source
    assert "%pip install" in first.source
    assert "drive.mount" in first.source
