"""The verb ``server``: dispatches to its subcommands."""

from __future__ import annotations

import argparse
from importlib import import_module

MODULES = {"init": "setup", "enroll": "setup", "revoke": "setup", "start": "start", "status": "status"}


def run_verb(arguments: argparse.Namespace) -> int:
    """Run ``init``, ``enroll``, ``revoke``, ``start`` or ``status``."""
    function = getattr(import_module(f".{MODULES[arguments.what]}", __package__), arguments.what)
    return int(function(arguments))
