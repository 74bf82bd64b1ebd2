"""Which releases of server and devices talk to each other.

Both sides name their release: the server in the group id of each of its Flower messages, which no release before reads,
and a device in a record of its answer. Releases talk if their major numbers are equal and their minor numbers differ by
one at most. Who names none is of `FIRST`, which did not name itself; to such a server a device does not name itself
either, because that release refuses records that it does not know.

A release is not signed: it can lead to a refusal and to nothing else. All checks are made whatever it says, and whoever
can change a message can keep it back, too.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from .errors import TrustError

CODE = "ReleaseRefused"  # the code of a refusal, for the server's counts and the device's owner
TEXT = re.compile(r"fedoel (\d{1,6})\.(\d{1,6})", re.ASCII)


@dataclass(frozen=True, slots=True, order=True)
class Release:
    """A release, as ``fedoel MAJOR.MINOR`` where it is sent: patches of a release do not differ in what they say."""

    major: int
    minor: int

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}"

    @property
    def sent(self) -> str:
        """The text that is sent."""
        return f"fedoel {self}"

    def talks_to(self, other: Release) -> bool:
        """Whether this release and another one understand each other."""
        return self.major == other.major and abs(self.minor - other.minor) <= 1


FIRST = Release(0, 1)
RELEASE = Release(0, 2)


def release_in(text: object) -> Release | None:
    """Read what `Release.sent` has written; None for anything else."""
    match = TEXT.fullmatch(text) if isinstance(text, str) else None
    return Release(int(match[1]), int(match[2])) if match else None


def check_server(text: str) -> None:
    """Refuse a server that does not talk to this device, by the group id of its message.

    Raises
    ------
    TrustError
        With `CODE`, and a sentence for the device's owner.
    """
    server = release_in(text) or FIRST
    if not RELEASE.talks_to(server):
        older = "this device" if server > RELEASE else "the server"
        raise TrustError(
            CODE,
            f"the server is of release {server} and this device of {RELEASE}, which are too far apart: upgrade "
            f"{older}, one minor release at a time",
        )


def talks(text: object) -> bool:
    """Whether the server talks to a device that names its release in this way, or not at all."""
    return RELEASE.talks_to(release_in(text) or FIRST)
