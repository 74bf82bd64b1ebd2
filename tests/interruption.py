"""A process that is interrupted before one of the steps by which it writes something for good."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import pytest


def interrupt(patch: pytest.MonkeyPatch, step: int, names: Sequence[str]) -> None:
    """Raise `KeyboardInterrupt` before the n-th call, from 1 on, of these functions of `os` together."""
    calls = list[str]()

    def dies(name: str) -> Any:
        original = getattr(os, name)

        def call(*arguments: Any, **named: Any) -> Any:
            calls.append(name)
            if len(calls) == step:
                raise KeyboardInterrupt
            return original(*arguments, **named)

        return call

    for name in names:
        patch.setattr(os, name, dies(name))
