"""The verb ``show``: everything that is known of one version."""

from __future__ import annotations

import argparse

from .prompts import printable
from .version_text import add_folder, add_version, columns, lesson_lines, located, won

HELP = "show one version: origin, signature, gate, lessons, sizes, and who made it current"
EXAMPLES = ("runs/mine",)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    add_folder(parser)
    add_version(parser, optional="the current one")


def run(arguments: argparse.Namespace) -> int:
    """Print what is known."""
    from ..protocol.records.journal import CURRENT, TAKEN
    from ..server.compare import size_of
    from ..server.summary import bounds_of
    from ..server.version_list import VersionList

    known = VersionList(located(arguments))
    version = known.find(arguments.version)
    manifest, folder = known.manifest(version.name), known.place.versions / version.name
    stored = f"{size_of(folder):,} bytes in {folder}" if folder.exists() else "in the cycle's checkpoint only"
    rows = [
        ("version", version.name + (" (current)" if version.name == known.current else "")),
        ("parent", version.parent or "none, it is the first"),
        ("cycle", str(version.cycle)),
        ("decision", known.decision_on(version)),
        ("reason", printable(version.reason)),
        ("won", won(version.results)),
        ("manifest", "signed by the fleet's key" if manifest else "none: it was not promoted"),
        ("stored", stored if known.has_weights(version.name) or not folder.exists() else f"{stored}, weights removed"),
    ]
    if manifest:
        rows += [("base model", manifest.base), ("codec", manifest.codec)]
    record = version.record
    if record is not None:
        rows.append(("contributed", bounds_of(manifest.cohort if manifest else record.accepted)))
        gate = record.gate.named() if record.gate else {}
        rows += [(f"gate, {name}", won(stats if stats.episodes else None)) for name, stats in gate.items() if stats]
        rows += [(f"probe, {name}", f"{value:.3g}") for name, value in record.probes.items()]
    for entry in known.journal.of_kind(CURRENT, TAKEN):
        if entry.values["version"] == version.name:
            cycle = entry.values["cycle"]
            what = f"made current by the {entry.values['by']}" if entry.kind == CURRENT else "taken by the run"
            rows.append(("journal", f"line {entry.number}, cycle {cycle}: {what}"))
    print(*columns(rows), sep="\n")
    lessons = manifest.lessons if manifest else record.lessons if record else ()
    print("lessons of its cycle:", *lesson_lines(lessons), sep="\n") if lessons else print("lessons of its cycle: none")
    return 0
