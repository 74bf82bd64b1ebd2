"""The verb ``versions``: the versions of a run, what became of each, and which one is current."""

from __future__ import annotations

import argparse

from .prompts import printable
from .version_text import add_folder, columns, located, won

HELP = "list a run's versions and candidates: parent, cycle, promoted or why not, wins, and which is current"
EXAMPLES = ("runs/mine",)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    add_folder(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print the list."""
    from ..server.version_list import VersionList

    known = VersionList(located(arguments))
    rows = [("", "version", "parent", "cycle", "decision", "won", "reason")]
    for version in known.versions:
        mark = "*" if version.name == known.current else ""
        weights = "" if known.has_weights(version.name) or version.decision == "rejected" else " (weights removed)"
        became = known.decision_on(version)
        decision = became if became == version.decision else f"{version.decision}, then {became}"
        rows.append(
            (
                mark, version.name, version.parent or "-", str(version.cycle), f"{decision}{weights}",
                won(version.results), printable(version.reason),
            )
        )  # fmt: skip
    print(*columns(rows), sep="\n")
    if known.journal.pending:
        print("* is what an operator has chosen: devices take it with the run's next message")
    elif known.reach is not None:
        print(f"* is current, for {known.reach:.3g} of the fleet; the rest has the version before until the next stage")
    elif known.current:
        print("* is current: what devices play")
    return 0
