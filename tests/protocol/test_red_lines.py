"""Red lines that a world declares: which are taken, and how they are compared."""

from __future__ import annotations

import pytest

from fedoel.protocol.errors import ConfigError
from fedoel.protocol.red_lines import LONGEST, MOST_LINES, check_red_lines, plain


def test_case_and_spaces_do_not_count() -> None:
    assert plain("  Open\tthe  VALVE ") == "open the valve"


@pytest.mark.parametrize("lines", [(), ("open *",), ("x" * LONGEST,) * MOST_LINES])
def test_a_tuple_of_texts_is_taken(lines: tuple[str, ...]) -> None:
    check_red_lines(lines, "red_lines")


@pytest.mark.parametrize(
    "lines",
    ["open *", ["open *"], None, (1,), ("",), (" ",), ("x" * (LONGEST + 1),), ("x",) * (MOST_LINES + 1), ("\ud800",)],
)
def test_what_is_no_tuple_of_short_texts_is_refused(lines: object) -> None:
    with pytest.raises(ConfigError, match=r"^red_lines of x must be at most 200 texts of 1 to 200 characters, not "):
        check_red_lines(lines, "red_lines of x")
