"""A device's personal context, computed from its log whenever its owner plays, and never stored or sent."""

from __future__ import annotations

from ...policies.policy import Policy
from ...protocol.config import RunConfig
from ...protocol.messages import PlayRequest
from ...protocol.play import Trajectory
from ..personal_context import check_personal, personalised
from ..store import TrajectoryStore
from ..store_key import key_from_file
from .folder import DeviceFolder, joined


def with_own_context(folder: DeviceFolder, config: RunConfig, request: PlayRequest, policy: Policy) -> Policy:
    """Return the last version under the personal context that this device has learned on top of it.

    The context is learned from the episodes in the log that were played with this version and no context of the cycle.
    If there are none, as when the version is new, the policy is returned as it is.

    Raises
    ------
    ConfigError
        If the run's codec is not `tactics`.
    """
    check_personal(config)
    version = request.spec.policy_version
    trajectories = [trajectory for trajectory in _log(folder) if trajectory.policy_version == version]
    return personalised(policy, trajectories, request.spec, request.baseline, config)


def _log(folder: DeviceFolder) -> list[Trajectory]:
    """Read every trajectory that the log holds undamaged; empty if the owner keeps no log.

    A server that resumes may repeat a request. An episode that was played twice is returned once.
    """
    if not folder.store.exists():
        return []
    store = TrajectoryStore(folder.store, f"client-{joined(folder).number}", key_from_file(folder.store_key))
    played = [row.trajectory for row in store.read().rows]
    return list({(episode.policy_version, episode.spec, episode.seed): episode for episode in played}.values())
