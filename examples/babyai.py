"""BabyAI of the package minigrid as a game, in 40 lines: go to the thing that the mission names.

fedoel simulate --set 'games.families="examples.babyai:BABYAI turns=15"' --set policy.backend=tactics
"""

from collections.abc import Iterator, Mapping
from typing import Any

from minigrid.core.constants import IDX_TO_COLOR, IDX_TO_OBJECT
from minigrid.envs.babyai import GoToLocal
from minigrid.utils.baby_ai_bot import BabyAIBot

from fedoel.games.environment import environment_family
from fedoel.games.families import Number

Seen = Mapping[str, Any]
THINGS = ("key", "ball", "box")
LEFT, RIGHT, FORWARD = 0, 1, 2  # actions of minigrid
COLUMN, ROW = 3, 6  # of the player in the image, who looks towards row 0


def make(size: int, things: int) -> Any:
    return GoToLocal(room_size=size, num_dists=things - 1)


def visible(observation: Seen) -> Iterator[tuple[str, int, int]]:
    # The nearest first: name, and the number of cells to the right and ahead.
    image = observation["image"]
    for column, row in ((column, row) for row in range(ROW, -1, -1) for column in range(image.shape[0])):
        kind, color = IDX_TO_OBJECT[int(image[column, row, 0])], IDX_TO_COLOR[int(image[column, row, 1])]
        if kind in THINGS:
            yield f"{color} {kind}", column - COLUMN, ROW - row


def text(observation: Seen, info: Seen) -> str:
    seen = [f"{name} ({right} right, {ahead} ahead)" for name, right, ahead in visible(observation)]
    return f"You see: {', '.join(seen) or 'nothing'}."


def commands(observation: Seen, info: Seen) -> Mapping[str, int]:
    words = {"turn left": LEFT, "turn right": RIGHT, "go forward": FORWARD}
    towards: dict[int, list[str]] = {action: [] for action in words.values()}
    for name, right, ahead in visible(observation):
        towards[FORWARD if ahead > 0 else LEFT if right < 0 else RIGHT].append(name)
    return {" to ".join([word, *towards[action][:1]]): action for word, action in words.items()}


def goal(observation: Seen, info: Seen) -> str:
    return f"{observation['mission'].capitalize()}."


def solve(environment: Any) -> Iterator[int]:
    bot = BabyAIBot(environment)
    while True:
        yield int(bot.replan())


RULES = {"size": Number(5, 8, default=6), "things": Number(2, 6, default=3)}
BABYAI = environment_family(make, text, commands, goal=goal, solve=solve, rules=RULES)
