"""What a secure sum on a loopback fleet should have released: the sum of what its devices have in their stores.

A server does not keep what a single device sends, and a device not what it was asked. So the strategy writes the
request down, and the vectors are made again from the games that the devices have logged.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from flwr.serverapp import Grid

from ..client.app import private_games
from ..client.device.folder import DeviceFolder, joined
from ..client.device.runtime import DeviceRuntime
from ..client.store import Contents, TrajectoryStore, key_from_file
from ..codecs.encoder import encode, load_encoder, rewarded
from ..codecs.tactics.coordinates import DIMENSION
from ..codecs.tactics.policy import TacticsPolicy
from ..protocol.config import RunConfig
from ..protocol.experience import Aggregate, ExperienceVector, Vector, VectorSpec
from ..protocol.host.files import write_whole
from ..protocol.messages import PlayRequest
from ..protocol.play import Trajectory
from ..protocol.privacy.plan import PrivacyPlan
from ..protocol.secagg.masks import cell_type
from ..protocol.trials import is_trial
from ..server.cycle.phases import load_phase
from ..server.run_folder import stored_config
from ..server.safeguards import RunSafeguards
from ..strategies.secure_mean import SecureMean, Tally
from .loopback import NOTES

STRATEGY = f"{__name__}:NotedMean"


class NotedMean(SecureMean):
    """`secure-mean` that writes down what devices were asked, and changes nothing of it."""

    def sums(
        self, grid: Grid, draw: Callable[[list[int]], list[int]], request: PlayRequest, timeout: float, tally: Tally
    ) -> list[Aggregate]:
        """Write the request's specification, plan and baseline down, and sum."""
        if is_trial(request.spec):
            return super().sums(grid, draw, request, timeout, tally)
        head = json.dumps({"spec": request.spec.to_json(), "plan": self.plan(request.spec).to_json()})
        buffer = io.BytesIO()
        baseline = {} if request.baseline is None else {"baseline": request.baseline}
        np.savez(buffer, head=np.frombuffer(head.encode(), np.uint8), **baseline)  # type: ignore[arg-type]
        write_whole(_note(Path(os.environ[NOTES]), request.cycle), buffer.getvalue())
        return super().sums(grid, draw, request, timeout, tally)


def released(server: Path, cycle: int) -> Vector:
    """Read what a cycle's secure sum gave, shape ``(spec.size,)``."""
    found: Vector = load_phase(server / "run", cycle, "collect").arrays["vector"]
    return found


def expected(server: Path, devices: Sequence[Path], cycle: int, notes: Path) -> Vector:
    """Add up what devices had to send in a cycle, shape ``(spec.size,)``: exactly what a sum without noise releases.

    Parameters
    ----------
    devices
        Folders of those that are in the sum. Their codec must be `tactics`, which needs no policy.
    notes
        What `NotedMean` wrote.
    """
    with np.load(_note(notes, cycle)) as note:
        head, baseline = json.loads(note["head"].tobytes()), note.get("baseline")
    spec, plan, config = (
        VectorSpec.from_json(head["spec"]),
        PrivacyPlan.from_json(head["plan"]),
        stored_config(server / "run"),
    )
    encoder, policy = load_encoder(config.codec.name), TacticsPolicy("", np.zeros(DIMENSION, np.float32))
    total = np.zeros(plan.cells, np.int64)
    for device in devices:
        played = played_in(device, config, cycle, RunSafeguards(config).ledger.run)
        vector = encode(encoder, policy, rewarded(played, config.games.refusal), spec, baseline, config.codec.discount)
        total += plan.quantised(vector.parts())
    decoded = plan.decode(total.astype(cell_type(plan.bits)))
    return ExperienceVector.from_parts(spec, decoded).to_array()


def played_in(device: Path, config: RunConfig, cycle: int, run: str) -> list[Trajectory]:
    """Return what a device has logged of one cycle's games; what was played twice is there once.

    Parameters
    ----------
    run
        Name of the run in its secure sums.
    """
    number = joined(DeviceFolder(device)).number
    wanted, _ = private_games(config, cycle, number, number + 1, DeviceRuntime(device).game_secret(number, run))
    contents = stored(device)
    logged = {(row.trajectory.spec, row.trajectory.seed): row.trajectory for row in contents.rows}
    return [logged[game] for game in wanted]


def stored(device: Path) -> Contents:
    """Return what a device's store holds."""
    folder = DeviceFolder(device)
    return TrajectoryStore(folder.store, f"client-{joined(folder).number}", key_from_file(folder.store_key)).read()


def _note(folder: Path, cycle: int) -> Path:
    return folder / f"request-{cycle:03d}.npz"
