"""The verb ``device``: hands on to what is asked of it."""

from __future__ import annotations

import argparse
from importlib import import_module

MODULES = {
    "join": "join", "doctor": "doctor", "start": "start", "service": "service", "status": "status", "logs": "status",
    "wipe": "status",
}  # fmt: skip


def run_verb(arguments: argparse.Namespace) -> int:
    """Do one of ``join``, ``doctor``, ``start``, ``service``, ``status``, ``logs`` and ``wipe``."""
    function = getattr(import_module(f".{MODULES[arguments.what]}", __package__), arguments.what)
    return int(function(arguments))
