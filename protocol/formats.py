"""Every format of fedoel that outlives a process or leaves it: its number today, and the oldest that is still read.

A number grows when a reader of the number before would misread a file, and not when a field is added that older readers
may do without. A file without a number is of the first. What is signed has its number in the signed text, so that a
signature of one format is none of another.

Two releases talk if their major numbers are equal and their minor numbers differ by one at most; see
`fedoel.protocol.release`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .errors import ConfigError

KEY = "schema"  # of a table's number, where it has one


@dataclass(frozen=True, slots=True)
class Format:
    """One format.

    Parameters
    ----------
    name
        What it is, in words; with its number, it begins what is signed.
    where
        The files or messages that have it, for the documentation.
    current, oldest
        The number that is written, and the oldest that is read.
    """

    name: str
    where: str
    current: int = 1
    oldest: int = 1

    @property
    def purpose(self) -> bytes:
        """What stands in front of a signed text of this format."""
        return f"fedoel {self.name} {self.current}\0".encode()

    def check(self, number: object, source: object) -> int:
        """Return the number of a file if it is one that can be read.

        Parameters
        ----------
        source
            The file, for error messages.

        Raises
        ------
        ConfigError
            Saying what to do about a number that is too new, too old or none.
        """
        if type(number) is not int or number < 1:
            raise ConfigError(
                f"{source} names no {KEY}: {KEY} must be a whole number from 1 on, not {described(number)}; restore "
                "the file from a copy"
            )
        if number > self.current:
            raise ConfigError(
                f"{source} is of {KEY} {number!r} and this fedoel reads up to {self.current}: update fedoel, or read "
                "it with the version that wrote it"
            )
        if number < self.oldest:
            raise ConfigError(
                f"{source} is of {KEY} {number!r} and this fedoel reads from {self.oldest} on: run `fedoel migrate` of "
                "the release before on its folder first"
            )
        return number


RECORDS = Format("record", "`summary.json`, `events.jsonl`, `manifest.json`", current=2)
SETTINGS = Format("run settings", "`config.json`")
JOURNAL = Format("journal", "`journal.jsonl`")
LEDGER = Format("privacy ledger", "`privacy.jsonl`")
PACK = Format("prompt pack", "prompt packs, `prompts.jsonl`")
STORE = Format("store", "`store.sqlite`", current=2)
EPISODE = Format("episode", "a row of `store.sqlite`")
CONTRIBUTIONS = Format("contributions", "`contributions.sqlite`")
KEPT_VERSION = Format("kept version", "`versions/last.npz` and `before.npz` of a device")
LOG = Format("log", "`log.jsonl`")
LOG_HEAD = Format("log head", "signed head of the log, in requests")
MEMBERS = Format("members", "signed list of members")
SUCCESSOR = Format("successor", "steps from one key of the fleet to the next")
CARD = Format("Card", "a device's `.pub` file")
BUNDLE = Format("Bundle", "a device's `.fleet` file, `bundle.toml`")
NOTICE = Format("notice", "signed notice of the fleet's owner, in messages")
MANIFEST = Format("manifest", "`manifest.sig`")
REQUEST = Format("request", "signature of a request to devices")
TERMS = Format("terms of a secure sum", "signature of the terms of a round, in messages")
SECURE_SUM = Format("secure sum", "messages between devices in a secure sum", current=2, oldest=2)

FORMATS: Sequence[Format] = (
    RECORDS, SETTINGS, JOURNAL, LEDGER, PACK, STORE, EPISODE, CONTRIBUTIONS, KEPT_VERSION, LOG, LOG_HEAD, MEMBERS,
    SUCCESSOR, NOTICE, CARD, BUNDLE, MANIFEST, REQUEST, TERMS, SECURE_SUM,
)  # fmt: skip


def formats_table() -> str:
    """Write all formats as a Markdown table."""
    rows = [f"| {item.name} | {item.where} | {item.current} | {item.oldest} |\n" for item in FORMATS]
    return "".join(["| format | where | written | oldest that is read |\n|---|---|---|---|\n", *rows])


def described(value: object) -> str:
    """Name a value for an error message."""
    kinds = {type(None): "null", dict: "a table", list: "a list"}
    return kinds.get(type(value)) or repr(value)[:60]
