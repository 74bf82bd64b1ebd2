"""What a red line is: a command that no version may make likelier, whatever it wins; ``*`` stands for any text.

An operator writes red lines into a file. A world declares them with its family of games, and a prompt pack carries
them to a server that knows no games.
"""

from __future__ import annotations

import reprlib

from .errors import ConfigError

MOST_LINES, LONGEST = 200, 200


def plain(text: str) -> str:
    """Return a text in the form in which red lines and commands are compared: lower case and single spaces."""
    return " ".join(text.lower().split())


def check_red_lines(lines: object, source: str) -> None:
    """Check what a world declares as its red lines.

    Parameters
    ----------
    source
        What declares them, for the error message.

    Raises
    ------
    ConfigError
        If they are no tuple of texts, or too many, or one is empty, too long or not valid Unicode.
    """
    if not isinstance(lines, tuple) or len(lines) > MOST_LINES or not all(map(_is_red_line, lines)):
        raise ConfigError(
            f"{source} must be at most {MOST_LINES} texts of 1 to {LONGEST} characters, not {reprlib.repr(lines)}"
        )


def _is_red_line(line: object) -> bool:
    if not isinstance(line, str) or not 0 < len(plain(line)) <= LONGEST:
        return False
    return not any("\ud800" <= character <= "\udfff" for character in line)
