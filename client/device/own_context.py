"""What a device has learned for itself alone: made from its log when its owner plays, kept nowhere, sent to nobody."""

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
    """Give the last version the context that this device has learned on top of it.

    Counted are the episodes in its log that it played with this very version and no context of the cycle. Without any,
    as when the version has only just come, the policy stays as it is.

    Raises
    ------
    ConfigError
        If the run's codec is not `tactics`.
    """
    check_personal(config)
    played = [each for each in _log(folder) if each.policy_version == request.spec.policy_version]
    return personalised(policy, played, request.spec, request.baseline, config)


def _log(folder: DeviceFolder) -> list[Trajectory]:
    """Read what can be read of the log; a device whose owner keeps none has none.

    A server that was asked to go on may have asked twice: what was played twice is there once.
    """
    if not folder.store.exists():
        return []
    store = TrajectoryStore(folder.store, f"client-{joined(folder).number}", key_from_file(folder.store_key))
    episodes = [row.trajectory for row in store.read().rows]
    return list({(each.policy_version, each.spec, each.seed): each for each in episodes}.values())
