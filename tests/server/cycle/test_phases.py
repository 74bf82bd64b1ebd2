"""Finished phases on disk: damage and absence are said, whatever form they take."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fedoel.protocol.errors import FedoelError
from fedoel.server.cycle.phases import Outcome, Phases, load_phase
from fedoel.server.events import EventLog


@pytest.mark.parametrize("kept", [0, 10, 300])
def test_a_phase_that_was_cut_off_is_damaged(tmp_path: Path, kept: int) -> None:
    with EventLog(tmp_path / "events.jsonl") as log:
        Phases(tmp_path, log).keep(1, "collect", Outcome({"cohort": 2}, {"vector": np.arange(90.0)}))
    assert load_phase(tmp_path, 1, "collect").values == {"cohort": 2}
    path = tmp_path / "checkpoints" / "cycle-001" / "collect.npz"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(FedoelError, match="is damaged"):
        load_phase(tmp_path, 1, "collect")


def test_a_phase_that_is_not_there_is_not_called_damaged(tmp_path: Path) -> None:
    with pytest.raises(FedoelError, match="is not there"):
        load_phase(tmp_path, 1, "collect")
