"""The list of known failures in docs/method.md names tests that there are."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_known_failure_has_its_test() -> None:
    text = (ROOT / "docs" / "method.md").read_text(encoding="utf-8")
    named = re.findall(r"^\| (\d+) \|.*`(tests/\S+\.py)::(\w+)`", text, re.MULTILINE)
    assert [int(number) for number, _, _ in named] == list(range(1, 13))
    for _, file, name in named:
        tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
        assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, name
