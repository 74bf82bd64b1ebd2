"""The tutorial as a notebook: it runs from its first cell to its last, and what it shows has improved."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from .pages import ROOT

NOTEBOOK = ROOT / "docs" / "tutorial.ipynb"


def outputs(cell: Any) -> str:
    return "".join(output.get("text", "") for output in cell.get("outputs", []))


@pytest.mark.slow
def test_the_notebook_of_the_tutorial_runs_and_its_devices_learn(tmp_path: Path, cache: Path) -> None:
    nbformat = pytest.importorskip("nbformat", reason="pip install nbclient ipykernel")
    nbclient = pytest.importorskip("nbclient", reason="pip install nbclient ipykernel")
    pytest.importorskip("ipykernel", reason="pip install nbclient ipykernel")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in cells), "clear all outputs before committing"
    nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    for cell in (cell for cell in cells if "result(" in cell.source.splitlines()[-1]):
        rates = [int(rate) for rate in re.findall(r"^cycle \d: +(\d+)% won", outputs(cell), flags=re.MULTILINE)]
        assert len(rates) == 3 and rates[-1] >= rates[0] + 20, outputs(cell)
    assert any("won after" in outputs(cell) or "turns, score" in outputs(cell) for cell in cells)
    assert (tmp_path / "runs" / "loudest" / "report.html").is_file()
