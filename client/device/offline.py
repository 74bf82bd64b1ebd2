"""The last good version of a device, loaded for its owner: its signature is checked, and no network is needed."""

from __future__ import annotations

from ...policies.backend import load_version
from ...policies.policy import Policy
from ...protocol.config import RunConfig
from .folder import DeviceFolder, membership_of
from .last_version import last_version
from .own_context import with_own_context
from .runtime import DeviceRuntime


def load_last_version(folder: DeviceFolder, personal: bool = False) -> tuple[RunConfig, Policy]:
    """Load the last good version of a device.

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
    """
    config, request = last_version(folder.versions, membership_of(folder).fleet_key)
    config = DeviceRuntime(folder.path).own(config)
    policy = load_version(config.policy, request.adapter, request.spec.policy_version, folder.cache)
    return config, with_own_context(folder, config, request, policy) if personal else policy
