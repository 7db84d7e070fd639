"""The notebook runs from its first cell to its last, and its tables are those of the command line."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import nbformat
import pandas as pd
import pytest
from nbclient import NotebookClient

TOUR = Path(__file__).parents[2] / "experiments" / "tour.ipynb"
MOST_BYTES = 200_000
TABLE = "print(sweep.table.to_csv(index=False))"


def executed(epochs=None, seeds=None):
    """The notebook with a cell at its end that prints the sweep's table, executed in the current directory."""
    notebook = nbformat.read(TOUR, as_version=4)
    if epochs:
        (cell,) = [cell for cell in notebook.cells if "EPOCHS, SEEDS =" in cell.source]
        cell.source = re.sub(r"EPOCHS, SEEDS = .*", f"EPOCHS, SEEDS = {epochs}, {seeds}", cell.source)
    notebook.cells.append(nbformat.v4.new_code_cell(TABLE))
    return NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(Path.cwd())}}).execute()


@pytest.mark.parametrize(
    "size", [pytest.param((1, 2), id="short"), pytest.param((None, None), id="whole", marks=pytest.mark.long)]
)
def test_it_runs_and_its_table_is_what_compare_prints(size, work, cifar):
    notebook = executed(*size)
    printed = notebook.cells[-1].outputs[0].text
    of_command = cifar("compare", "tour", "--format", "csv").stdout
    pd.testing.assert_frame_equal(pd.read_csv(io.StringIO(printed)), pd.read_csv(io.StringIO(of_command)))
    told = "".join(output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", []))
    assert "digits version 1 became champion, the first" in told


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
