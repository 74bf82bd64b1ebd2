"""The last good version of a device, loaded for its owner: its signature is checked, and no network is needed."""

from __future__ import annotations

from ...policies.backend import load_version
from ...policies.policy import Policy
from ...protocol.config import RunConfig
from ...protocol.messages import PlayRequest
from ...protocol.play import Trajectory
from ..personal_context import check_personal, personalised
from .folder import DeviceFolder, membership_of, open_store
from .last_version import last_version
from .model import check_model
from .notice import check_going
from .runtime import DeviceRuntime
from .success import fallen_back


def load_last_version(folder: DeviceFolder, personal: bool = False) -> tuple[RunConfig, Policy]:
    """Load the last good version of a device, or the one before if the last is clearly worse on this device.

    Parameters
    ----------
    personal
        Whether to add the context that the device has learned for itself alone.

    Returns
    -------
    config, policy
        The configuration of the run with the device's own settings, and the policy.

    Raises
    ------
    VersionError
        If there is no version that is whole and signed by the fleet's owner.
    ConfigError
        If the device has joined no fleet, or the run's codec knows no context of a device's own.
    ModelError
        If the device's base model is not the fleet's, or what is made of it is another version.
    TrustError
        If the fleet is stopped.
    """
    check_going(folder)
    key, before = membership_of(folder).fleet_key, bool(fallen_back(folder))
    config, request = last_version(folder.versions, key, before)
    config = DeviceRuntime(folder.path).own(config)
    check_model(folder, config)
    policy = load_version(config.policy, request.adapter, request.spec.policy_version, folder.cache)
    return config, with_own_context(folder, config, request, policy) if personal else policy


def with_own_context(folder: DeviceFolder, config: RunConfig, request: PlayRequest, policy: Policy) -> Policy:
    """Return the last version under the personal context that this device has learned on top of it.

    It is computed from the log whenever the owner plays, and never stored or sent.

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
    played = [row.trajectory for row in open_store(folder).read().rows]
    return list({(episode.policy_version, episode.spec, episode.seed): episode for episode in played}.values())
