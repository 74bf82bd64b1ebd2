"""The newest notice of the fleet's owner on a device's disk, and that nothing happens while it says stop."""

from __future__ import annotations

from ...protocol.errors import TrustError
from ...protocol.fleet.notice import Notice, kept_notice, kept_text
from ...protocol.fleet.trust import Refusal
from ...protocol.host.files import write_whole
from ...protocol.host.lock import in_turn
from ...protocol.signing import check_notice
from .folder import DeviceFolder, membership_of


def take_notice(folder: DeviceFolder, notice: Notice | None) -> int:
    """Check a notice that came with a message, and keep it if it is newer than the one that the device has.

    Returns
    -------
    int
        Number of the newest notice; 0 if there is none.

    Raises
    ------
    VersionError
        If it is not signed by the fleet's key, older than the one that the device has, or another with its number.
    ConfigError
        If the one that the device has is damaged.
    FedoelError
        If it cannot be kept.
    """
    if notice is None:
        kept = kept_notice(folder.notice)
        return kept.number if kept else 0
    check_notice(membership_of(folder).fleet_key, notice)
    with in_turn(folder.notice.with_suffix(".lock")):  # messages are processes, and the older must not come last
        kept = kept_notice(folder.notice)
        if kept is not None:
            kept.check_replaceable_by(notice)
        if kept is None or kept.number < notice.number:
            write_whole(folder.notice, kept_text(notice))
    return notice.number


def check_going(folder: DeviceFolder) -> None:
    """Refuse everything while the newest notice says stop.

    Raises
    ------
    TrustError
        If it does.
    ConfigError
        If it is damaged.
    """
    kept = kept_notice(folder.notice)
    if kept is not None and kept.stop:
        raise TrustError(Refusal.STOPPED, f"the fleet is stopped: {kept}; only a newer notice of its owner lifts it")
