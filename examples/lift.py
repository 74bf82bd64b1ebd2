"""An environment of your own as a game, in 35 lines: a lift, and a parcel that one of its floors waits for.

fedoel simulate --set 'games.families="examples.lift:LIFT floors=4 turns=8"' --set policy.backend=tactics
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from fedoel.games.environment import environment_family
from fedoel.games.families import Number

FLOORS = ("laundry", "garage", "library", "kitchen", "office", "studio", "terrace")
Seen = Mapping[str, Any]


class Lift:
    """Any class with `reset` and `step`; it knows nothing of fedoel."""

    def __init__(self, floors: int) -> None:
        self.floors = floors

    def reset(self, *, seed: int) -> tuple[Seen, Seen]:
        rng = np.random.default_rng(seed)
        self.names = [str(name) for name in rng.permutation(FLOORS)[: self.floors]]
        self.at, self.wanted = (int(index) for index in rng.choice(self.floors, size=2, replace=False))
        return self._observe(), {}

    def step(self, action: str) -> tuple[Seen, float, bool, bool, Seen]:
        self.at += {"up": 1, "down": -1}.get(action, 0)
        delivered = action == "deliver"
        return self._observe(), float(delivered and self.at == self.wanted), delivered, False, {}

    def _observe(self) -> Seen:
        free = {"up": self.at < self.floors - 1, "down": self.at > 0}
        return {"floor": self.names[self.at], "wanted": self.names[self.wanted], "free": free}


def text(observation: Seen, info: Seen) -> str:
    return f"-= {observation['floor'].capitalize()} =-\nThe lift stops at the {observation['floor']}."


def commands(observation: Seen, info: Seen) -> Mapping[str, str]:
    moves = {f"go {move}": move for move, free in observation["free"].items() if free}
    return {**moves, f"deliver to {observation['floor']}": "deliver"}


def goal(observation: Seen, info: Seen) -> str:
    return f"Deliver the parcel to the {observation['wanted']}."


LIFT = environment_family(Lift, text, commands, goal=goal, rules={"floors": Number(2, 7, default=4)})
