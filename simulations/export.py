"""The verb ``export``: a version for other tools."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..server.export import export
from .evaluate import existing, scenario_of


def run_verb(arguments: argparse.Namespace) -> int:
    """Export a version, and say where it is."""
    folder = existing(arguments.version)
    base = arguments.base or scenario_of(folder).policy.base
    out = Path(arguments.out or f"{folder.name}-{arguments.to}").expanduser()
    for path in sorted(export(folder, arguments.to, arguments.quantise, base, out).iterdir()):
        print(f"{path}  {path.stat().st_size:,} bytes")
    return 0
