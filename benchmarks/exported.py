"""What an exported version wins in plain peft and in plain llama.cpp, on the held-out games that fedoel plays.

    python benchmarks/exported.py runs/mine/versions/VERSION --games 128

The version is exported for both and loaded as its model card says. There every command is scored by itself, by the
logits of its tokens behind the prompt; episodes have the same games and the same random streams for all three players.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any, ClassVar

import llama_cpp
import numpy as np
import torch
from numpy.typing import NDArray
from peft import PeftModel
from transformers import AutoModelForCausalLM

from fedoel.games.player import play_episodes
from fedoel.policies.backend import load_version
from fedoel.policies.model_files import find_model
from fedoel.policies.policy import LogProbs, Policy
from fedoel.policies.tokens import PromptTokenizer
from fedoel.policies.torch.base import dequantised
from fedoel.protocol.config import RunConfig
from fedoel.protocol.host.cache import cache_folder
from fedoel.protocol.situation import Situation
from fedoel.server.evaluation import summarise
from fedoel.server.export import export
from fedoel.server.public.game_plan import GamePlan
from fedoel.server.registry import load_adapter
from fedoel.simulations.scenario import scenario_of

# Logits of the next token behind a prompt and behind each token of a continuation but the last, shape (tokens, V).
Logits = Callable[[Sequence[int], Sequence[Sequence[int]]], list[NDArray[np.float32]]]


def peft_logits(model: Any) -> Logits:
    """Return logits of a model of transformers with an adapter of peft."""

    @torch.no_grad()
    def logits(prompt: Sequence[int], continuations: Sequence[Sequence[int]]) -> list[NDArray[np.float32]]:
        first = model(torch.tensor([prompt]), use_cache=True)
        found = []
        for tokens in continuations:
            rest = model(torch.tensor([tokens]), past_key_values=deepcopy(first.past_key_values)).logits[0]
            found.append(torch.cat([first.logits[0, -1:], rest[:-1]]).numpy())
        return found

    return logits


def llama_logits(llama: llama_cpp.Llama) -> Logits:
    """Return logits of llama.cpp."""

    def logits(prompt: Sequence[int], continuations: Sequence[Sequence[int]]) -> list[NDArray[np.float32]]:
        llama.reset()
        llama.eval(prompt)
        found = []
        for tokens in continuations:
            llama.n_tokens = len(prompt)  # the next evaluation forgets what came behind the prompt
            llama.eval(tokens)
            found.append(llama.scores[len(prompt) - 1 : len(prompt) - 1 + len(tokens)].copy())
        return found

    return logits


@dataclass(frozen=True, eq=False)
class PlainPolicy:
    """Scores commands one by one, with the logits of another library."""

    version: str
    tokenizer: PromptTokenizer
    logits: Logits
    abilities: ClassVar[frozenset[str]] = frozenset()

    def score(self, situations: Sequence[Situation]) -> list[LogProbs]:
        """Log-probabilities of each situation's admissible commands."""
        return [self._scored(situation) for situation in situations]

    def tokens(self, situations: Sequence[Situation]) -> list[int]:
        """Prompt tokens of each situation."""
        return [self.tokenizer.prompt_tokens(situation) for situation in situations]

    def _scored(self, situation: Situation) -> LogProbs:
        row = self.tokenizer.encode([situation])[0]
        prompt = [*self.tokenizer.head, *row.scene, *row.moment]
        commands = [tuple(self.tokenizer.ids(command)) for command in situation.admissible]
        # A command that begins another one ends with the token that ends an answer.
        begins = {a for a, b in pairwise(sorted(commands)) if b[: len(a)] == a}
        commands = [(*ids, self.tokenizer.end_token) if ids in begins else ids for ids in commands]
        known = sorted({*row.scene, *row.moment, *(token for ids in commands for token in ids)})
        scores = []
        for ids, logits in zip(commands, self.logits(prompt, commands), strict=True):
            wide = logits.astype(np.float64)
            scores.append(sum(at[t] - np.logaddexp.reduce(at[known]) for at, t in zip(wide, ids, strict=True)))
        return np.asarray(scores - np.logaddexp.reduce(scores), np.float32)


def players(config: RunConfig, folder: Path, work: Path) -> dict[str, Policy]:
    """Return the version as fedoel plays it, and as both libraries load its exports."""
    cache, base = cache_folder(config), find_model(config.policy.base)
    version, adapter = load_adapter(folder)
    ours = load_version(config.policy, adapter, version, cache)
    tokenizer = ours.model.tokenizer  # type: ignore[attr-defined]
    whole = base if base.is_dir() else dequantised(base, cache)[0]
    model = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(whole, dtype=torch.float32),
        str(export(folder, "peft", "", str(base), work / "peft")),
    ).eval()
    lora = export(folder, "gguf-lora", "", str(base), work / "gguf") / "adapter.gguf"
    llama = llama_cpp.Llama(
        model_path=str(base), lora_path=str(lora), n_ctx=1024, n_threads=1, logits_all=True, verbose=False
    )
    return {
        "fedoel": ours,
        "peft": PlainPolicy(version, tokenizer, peft_logits(model)),
        "llama.cpp": PlainPolicy(version, tokenizer, llama_logits(llama)),
    }


def main() -> None:
    """Play the games with all three, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("version", type=Path, help="folder of the version, RUN/versions/VERSION")
    parser.add_argument("--games", type=int, default=128)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    config = scenario_of(
        arguments.version, "", {"games.held-out": arguments.games, "policy.precision": "fp32", "policy.threads": 1}
    )
    games = GamePlan.of(config)
    with TemporaryDirectory() as work:
        for name, policy in players(config, arguments.version, Path(work)).items():
            begun = perf_counter()
            streams = games.streams("held-out", len(games.held_out))
            played = play_episodes(policy, games.held_out, streams, cache_folder(config))
            seconds, stats = perf_counter() - begun, summarise(played)
            interval = f"({stats.low:.0%}-{stats.high:.0%})"
            print(f"{name:10} {stats.win_rate:.1%} {interval} of {stats.episodes}, {seconds:.0f} s")


if __name__ == "__main__":
    main()
