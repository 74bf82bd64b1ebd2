"""The verb ``server``: hands on to what is asked of it."""

from __future__ import annotations

import argparse
from importlib import import_module

MODULES = {"init": "setup", "enroll": "setup", "revoke": "setup", "start": "start", "status": "status"}


def run_verb(arguments: argparse.Namespace) -> int:
    """Do one of ``init``, ``enroll``, ``revoke``, ``start`` and ``status``."""
    function = getattr(import_module(f".{MODULES[arguments.what]}", __package__), arguments.what)
    return int(function(arguments))
