"""The process that `prepare` starts: reads games from standard input, one per line, and prepares them in turn.

Run by hand: ``echo '["coin-collector level=102 turns=6", 7]' | python -m fedoel.games.prepare_worker CACHE``
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from types import FrameType

from ..protocol.errors import FedoelError
from ..protocol.play import GameSpec
from .families import prepare_game


def main(cache: Path) -> None:
    """Answer each input line, a JSON array ``[specification, seed]``, with a line: null, or the error message."""
    signal.signal(signal.SIGTERM, _exit)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles it, and sends SIGTERM
    # Reserve standard output for replies: what TextWorld prints goes to standard error.
    with os.fdopen(os.dup(1), "w") as replies:
        os.dup2(2, 1)
        for line in sys.stdin:
            replies.write(json.dumps(_error_of(line, cache)) + "\n")
            replies.flush()


def _error_of(line: str, cache: Path) -> str | None:
    game, seed = json.loads(line)
    try:
        prepare_game(GameSpec.parse(game), seed, cache)
    except FedoelError as error:
        return str(error)
    return None


def _exit(number: int, frame: FrameType | None) -> None:
    sys.exit(1)  # unwinds the stack, so that an unfinished game is removed


if __name__ == "__main__":
    main(Path(sys.argv[1]))
