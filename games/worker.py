"""The process that `prepare` starts: reads games from standard input, one a line, and makes each.

Run by hand: ``echo '["coin-collector level=102 turns=6", 7]' | python -m fedoel.games.worker CACHE``
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
    """Answer each line ``[game, seed]`` by a line: null, or what went wrong."""
    signal.signal(signal.SIGTERM, _leave)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides, and says so by SIGTERM
    # Replies have standard output for themselves, whatever TextWorld prints.
    with os.fdopen(os.dup(1), "w") as replies:
        os.dup2(2, 1)
        for line in sys.stdin:
            replies.write(json.dumps(_answer(line, cache)) + "\n")
            replies.flush()


def _answer(line: str, cache: Path) -> str | None:
    game, seed = json.loads(line)
    try:
        prepare_game(GameSpec.parse(game), seed, cache)
    except FedoelError as error:
        return str(error)
    return None


def _leave(number: int, frame: FrameType | None) -> None:
    sys.exit(1)  # unwinds, so that a half-made game is removed


if __name__ == "__main__":
    main(Path(sys.argv[1]))
