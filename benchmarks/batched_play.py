"""Episodes per second: all clients' games through one batched policy, against one by one with `model.generate`.

    python benchmarks/batched_play.py --games 56 --one-by-one 6 --repeats 3

Both play the same games with the same model, prompts and random streams of games, and draw from the model's own
distribution over the admissible commands. One by one, a command costs a call of `model.generate` on the whole prompt,
with a logits processor that allows the tokens of the command tree; batched, all games advance in lock step, heads and
scenes are cached, and the tree is read in one pass. Batched play takes the precision that fedoel picks on the machine;
one by one is timed as transformers loads the model, in float32, and with the whole model in bfloat16. All are timed in
turn; the figures are ratios pair by pair.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from fedoel.policies.tokens import PromptTokenizer

GAME = "coin-collector level=102 turns=6"


def main() -> None:
    """Time all ways in turn and print the ratios."""
    from fedoel.cli.main import set_environment

    set_environment()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--games", type=int, default=56)
    parser.add_argument("--one-by-one", type=int, default=6, help="how many of the games to play one by one")
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()

    from fedoel.games.prepare import prepare
    from fedoel.games.splits import Split, game_seed
    from fedoel.policies.torch.model import TorchModel, load_model
    from fedoel.policies.torch.policy import TorchPolicy
    from fedoel.protocol.config import PolicyConfig
    from fedoel.protocol.host.cache import default_cache
    from fedoel.protocol.play import GameSpec

    cache = default_cache()
    games = [(GameSpec.parse(GAME), game_seed(Split.REHEARSAL, index)) for index in range(arguments.games)]
    prepare(games, cache)
    model = load_model(PolicyConfig(), cache)
    singles = {dtype: GeneratePolicy(model, dtype) for dtype in ("float32", "bfloat16")}
    ratios: dict[str, list[float]] = {dtype: [] for dtype in singles}
    for repeat in range(arguments.repeats):
        fresh = TorchModel(model.base, model.batch_tokens)  # with an empty scene cache
        batched = rate(TorchPolicy(fresh, {}), games, cache)
        print(f"run {repeat + 1}: batched ({model.base.precision}) {batched:.3f} episodes/s", end="")
        for dtype, policy in singles.items():
            single = rate(policy, games[: arguments.one_by_one], cache, one_by_one=True)
            ratios[dtype].append(batched / single)
            print(f"; one by one ({dtype}) {single:.4f}, ratio {ratios[dtype][-1]:.1f}", end="")
        print(flush=True)
    for dtype, found in ratios.items():
        print(f"ratio to {dtype}: median {median(found):.1f}, from {min(found):.1f} to {max(found):.1f}")


def rate(policy: Any, games: Sequence[Any], cache: Path, one_by_one: bool = False) -> float:
    """Episodes per second."""
    from fedoel.games.player import play_episodes

    start = time.perf_counter()
    for part in [[game] for game in games] if one_by_one else [list(games)]:
        play_episodes(policy, part, range(len(part)), cache)
    return len(games) / (time.perf_counter() - start)


class GeneratePolicy:
    """What a client would do without fedoel: render the prompt, call `generate`, take the command."""

    version = "generate"

    def __init__(self, model: Any, dtype: str) -> None:
        import torch
        from transformers import AutoModelForCausalLM

        self._torch = torch
        self._encoder: PromptTokenizer = model.tokenizer
        folder = model.base.tokenizer.name_or_path
        self._model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype))
        torch.manual_seed(0)

    def score(self, situations: Sequence[Any]) -> list[Any]:
        """Put all probability on the command that was generated."""
        return [self._certain(situation) for situation in situations]

    def tokens(self, situations: Sequence[Any]) -> list[int]:
        """Count nothing: only time matters here."""
        return [0] * len(situations)

    def _certain(self, situation: Any) -> Any:
        row = self._encoder.encode([situation])[0]
        prompt = [*self._encoder.head, *row.scene, *row.moment]
        end = self._encoder.end_token
        commands = [(*self._encoder.ids(command), end) for command in situation.admissible]

        def allowed(_: int, ids: Any) -> list[int]:
            done = tuple(ids.tolist()[len(prompt) :])
            following = {c[len(done)] for c in commands if c[: len(done)] == done and len(c) > len(done)}
            return sorted(following) or [end]

        with self._torch.inference_mode():
            out = self._model.generate(
                self._torch.tensor([prompt]),
                do_sample=True,
                max_new_tokens=max(map(len, commands)),
                prefix_allowed_tokens_fn=allowed,
                pad_token_id=end,
            )
        written = tuple(out[0].tolist()[len(prompt) :])
        log_probs = np.full(len(commands), -1e9, dtype=np.float32)
        log_probs[[written[: len(command)] == command for command in commands].index(True)] = 0.0
        return log_probs


if __name__ == "__main__":
    main()
