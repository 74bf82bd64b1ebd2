"""fedoel's side of `trl_distillation.py`: the same turns of steps, prepared and trained as a run does it.

Nothing is carried over from one turn to the next but the adapter: every prompt is new, and its preparation, the
teacher's answer included, is part of the turn that it belongs to.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

Task = dict[str, Any]
Say = Callable[..., None]


def main(arm: str, path: str) -> None:
    """Load the model, then run turns of steps, each when it is asked for."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print goes to standard error

    def say(event: str, **more: Any) -> None:
        print(json.dumps({"event": event, **more}), file=out, flush=True)

    task = json.loads(Path(path).read_text(encoding="utf-8"))
    side = ARMS[arm](task)
    say("loaded", versions={name: version(name) for name in ("fedoel", "torch", "transformers", "peft")})
    sys.stdin.readline()
    first = 0
    for steps in task["turns"]:
        say("ready")
        if not sys.stdin.readline():
            break
        last = first + steps * task["batch"]
        say("turn", losses=side.turn(task["prompts"][first:last], steps, say))
        first = last
    sys.stdin.readline()  # a process that has ended has no peak of memory to read


class ActionTree:
    """Exact reverse KL over the token tree of the admissible commands: `fedoel.server.distillation`."""

    def __init__(self, task: Task) -> None:
        from fedoel.policies.torch.model import load_model
        from fedoel.protocol.config import PolicyConfig

        config = PolicyConfig(
            base=task["model"], device="cpu", precision="fp32", threads=task["threads"],
            lora_rank=task["rank"], lora_layers=task["layers"],
        )  # fmt: skip
        self.task, self.model, self.adapter = task, load_model(config, Path(task["scratch"])), dict[str, Any]()
        for weight in self.model.base.model.parameters():  # mapped from the file: memory only once they are read
            weight.sum()

    def turn(self, prompts: Sequence[dict[str, Any]], steps: int, say: Say) -> list[float]:
        """Let the frozen teacher answer with the context, read the prompts, and train; returns every step's loss."""
        from fedoel.policies.torch.policy import TorchPolicy
        from fedoel.protocol.host.memory import return_free_memory
        from fedoel.server.distillation.losses import reverse_kl
        from fedoel.server.distillation.opcd import towards, train
        from fedoel.server.distillation.optimise import Schedule
        from fedoel.server.distillation.training_states import TrainingStates

        return_free_memory()  # as a run does between phases
        situations, model = [situation_of(prompt["situation"]) for prompt in prompts], self.model
        scenes = model.new_prefix_cache(keep_bottoms=True)
        targets = TorchPolicy(model, {}, scenes).behind(self.task["context"]).score(situations)
        rehearsal = TrainingStates.prepare(model, situations, scenes)
        model.load(self.adapter)
        say("prepared")
        schedule = Schedule(steps, self.task["batch"], self.task["learning_rate"])
        losses = train(rehearsal, towards(targets, reverse_kl), schedule, 0, lambda _: say("step")).losses
        self.adapter = model.adapter()
        return losses


def situation_of(fields: dict[str, Any]) -> Any:
    """Read what JSON made of a situation."""
    from fedoel.protocol.situation import Situation

    sequences = {name: tuple(value) for name, value in fields.items() if isinstance(value, list)}
    return Situation(**{**fields, **sequences, "done": frozenset(fields["done"])})


# An arm that writes freely and compares whole vocabularies belongs here, with the same `turn`.
ARMS: dict[str, Callable[[Task], Any]] = {"fedoel": ActionTree}


if __name__ == "__main__":
    main(*sys.argv[1:])
