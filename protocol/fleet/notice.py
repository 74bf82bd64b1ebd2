"""The owner's notice to all devices of a fleet: to stop, or to go on.

Each notice is signed by the fleet's key and has a number. The server sends the newest one along with every message. A
device obeys it before it looks at anything else in the message, keeps it on its disk, and takes a newer one only in its
place. While that says stop, the device refuses whatever it is asked, and its owner does not play the fleet's version.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ..errors import ConfigError, VersionError

ACTION = "query.notice"  # a message that has a notice and asks for nothing
RECORD = "notice"
FIELDS = MappingProxyType({"number": int, "stop": bool, "at": int, "reason": str, "signature": bytes})
LONGEST = 500  # characters of a reason


@dataclass(frozen=True, slots=True)
class Notice:
    """A notice.

    Parameters
    ----------
    number
        From 1; increases with every notice of the fleet.
    stop
        Whether devices stop; otherwise they go on.
    at
        When it was signed, in seconds since the epoch.
    reason
        Why, for the devices' owners.
    signature
        Ed25519 signature of the fleet's owner over all other fields; a device keeps a notice without it.

    Raises
    ------
    VersionError
        If a number is out of range, or the reason is too long or not one line.
    """

    number: int
    stop: bool
    at: int
    reason: str = ""
    signature: bytes = b""

    def __post_init__(self) -> None:
        kinds = {name: type(value) for name, value in asdict(self).items()}
        if kinds != FIELDS or self.number < 1 or not 0 <= self.at < 2**40:
            raise VersionError("a notice needs a number from 1 on, the time, and whether to stop")
        if len(self.reason) > LONGEST or not self.reason.isprintable():
            raise VersionError(f"the reason of a notice must be one line of at most {LONGEST} characters")

    @property
    def entry(self) -> Mapping[str, Any]:
        """Its entry in the fleet's log."""
        return {"notice": self.number, "stop": self.stop, "at": self.at, "reason": self.reason}

    @classmethod
    def of_entry(cls, values: Mapping[str, Any]) -> Notice:
        """Read an entry of the fleet's log; raises `VersionError` or `KeyError`."""
        return cls(values["notice"], values["stop"], values["at"], values["reason"])

    @property
    def body(self) -> bytes:
        """What its signature covers."""
        return json.dumps(self.entry, sort_keys=True).encode()

    def check_replaceable_by(self, other: Notice) -> None:
        """Refuse a notice that may not take this one's place.

        Raises
        ------
        VersionError
            If the other is older, so that it may lift a stop or repeat one that was lifted; or another one with the
            same number, of which a fleet has one only.
        """
        if other.number < self.number:
            raise VersionError(f"notice {other.number} is older than {self.number}, which this device has")
        if other.number == self.number and other.entry != self.entry:
            raise VersionError(f"there are two notices with the number {self.number}: the fleet's key made both")

    def __str__(self) -> str:
        what = "stop" if self.stop else "go on"
        why = f" ({self.reason})" if self.reason else ""
        return f"notice {self.number}, {what}, of {datetime.fromtimestamp(self.at):%Y-%m-%d %H:%M}{why}"


def kept_notice(path: Path) -> Notice | None:
    """Read what `kept_text` has made; None if there is no file.

    Raises
    ------
    ConfigError
        If the file is damaged.
    """
    try:
        return Notice.of_entry(json.loads(path.read_bytes()))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{path} holds no notice ({error}): put back a copy, or delete it: the next message has one"
        ) from error


def kept_text(notice: Notice) -> str:
    """Return the text of a notice as a device keeps it; its signature was checked with the key of then."""
    return notice.body.decode()
