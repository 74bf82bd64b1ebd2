"""What a device with llama.cpp pays: memory, start, tokens a second, what the cache saves, and the size of an adapter.

    python benchmarks/llama_device.py runs/quick-1/versions/VERSION --games 6 --repeats 3

Each part runs in a process of its own, on one thread. Times are processor seconds, so that other work on the machine
counts little. The parts:

* memory and start: a process that has no torch plays; from its first line to the first command of a single game, and
  its largest size over all games side by side;
* speed: tokens a second while it plays, and of the same calls to llama.cpp replayed with nothing between them;
* cache: tokens evaluated a turn, as played, with every turn from nothing, and with every command from nothing;
* agreement (with --agreement, needs torch): log-probabilities of commands against the torch backend in float32;
* adapter: bytes of what travels to a device in each cycle, in several encodings, and what they do to the commands;
  fedoel sends float16, to which the server has rounded what it judges.
"""

from __future__ import annotations

import argparse
import importlib
import json
import lzma
import os
import resource
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

GAME = "coin-collector level=102 turns=6"
WEIGHTS = ("f16", "q8_0", "file")
Arrays = Mapping[str, np.ndarray]


def main() -> None:
    """Run every part in a process of its own and print what each found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("version", type=Path, help="folder of a version")
    parser.add_argument("--games", type=int, default=6)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--game", default=GAME)
    parser.add_argument("--batch-tokens", type=int, default=4096)
    parser.add_argument("--agreement", action="store_true")
    parser.add_argument("--held-out", type=int, default=100, help="games that each encoding of the adapter plays")
    parser.add_argument("--out", type=Path, help="folder for the table and its numbers")
    parser.add_argument("--part", choices=tuple(PARTS), help="run this one here, and print JSON")
    parser.add_argument("--weights", choices=WEIGHTS, default="f16")
    arguments = parser.parse_args()
    if arguments.part:
        print(json.dumps(PARTS[arguments.part](arguments)))
        return
    from fedoel.games.prepare import prepare
    from fedoel.protocol.host.cache import default_cache

    prepare([*games_of(arguments), *held_out(arguments)], default_cache())
    found = collect(arguments)
    print(table(found))
    if arguments.out:
        arguments.out.mkdir(parents=True, exist_ok=True)
        (arguments.out / "results.json").write_text(json.dumps(found, indent=1) + "\n")
        (arguments.out / "table.md").write_text(table(found))


def collect(arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure everything; repeats go round the kinds of weights, so that what else runs meets all of them."""
    runs: dict[str, list[dict[str, Any]]] = {weights: [] for weights in WEIGHTS}
    for weights in WEIGHTS:
        measure("start", arguments, weights)  # makes the copy of the weights, once
    for _ in range(arguments.repeats):
        for weights in WEIGHTS:
            runs[weights].append(measure("start", arguments, weights) | measure("speed", arguments, weights))
    agreement = {weights: measure("agreement", arguments, weights) for weights in WEIGHTS if arguments.agreement}
    return {
        "command": " ".join(["python benchmarks/llama_device.py", *sys.argv[1:]]), "runs": runs,
        "load": round(os.getloadavg()[1], 1), "processors": os.cpu_count(), "agreement": agreement,
        "held_out": arguments.held_out,
        "cache": measure("cache", arguments, "f16"), "adapter": measure("adapter", arguments, "f16"),
    }  # fmt: skip


def table(found: dict[str, Any]) -> str:
    """Write what was found for people."""
    lines = [
        f"`{found['command']}`, one thread, load average {found['load']} on {found['processors']} processors; medians",
        "(lowest-highest). Seconds are processor time.\n",
        "| weights | largest size, MB | first command, s | by the clock, s | tokens/s in play | bare | play/bare |",
        "|---|---|---|---|---|---|---|",
    ]
    for weights, runs in found["runs"].items():
        columns = [("megabytes", 0), ("first", 2), ("wall", 2), ("playing", 0), ("bare", 0), ("play_share", 3)]
        lines.append(" | ".join([f"| {weights}", *(spread(runs, key, digits) for key, digits in columns)]) + " |")
    if found["agreement"]:
        lines += [
            "\n| weights | commands | mean difference of log-probabilities | weighted by probability | KL, nats |"
        ]
        lines += ["|---|---|---|---|---|"]
    for weights, gap in found["agreement"].items():
        numbers = f"{gap['mean']:.4f} | {gap['weighted']:.4f} | {gap['kl']:.5f}"
        lines.append(f"| {weights} | {gap['commands']} | {numbers} |")
    cached = found["cache"]
    lines += [
        f"\nTokens evaluated a turn, over {cached['turns']} turns: {cached['evaluated_a_turn']}; every turn from",
        f"nothing: {cached['every_turn_from_nothing']}; every command from nothing:",
        f"{cached['every_command_from_nothing']}.\n",
        f"| adapter as | MB | packed, MB | mean difference of log-probabilities | won of {found['held_out']} |",
        "|---|---|---|---|---|",
    ]
    for row in found["adapter"]["rows"]:
        packed = ", ".join(f"{name} {size}" for name, size in row["packed"].items())
        lines.append(f"| {row['encoding']} | {row['megabytes']} | {packed} | {row['mean_gap']} | {row['won']} |")
    lines += [f"\nThe request that brings it in float16, with everything in it: {found['adapter']['message']} MB."]
    return "\n".join(lines) + "\n"


def measure(part: str, arguments: argparse.Namespace, weights: str) -> dict[str, Any]:
    """Run one part in a process of its own."""
    words = [sys.executable, __file__, *sys.argv[1:], "--part", part, "--weights", weights]
    done = subprocess.run(words, capture_output=True, text=True, check=True, env=environment())
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def spread(found: list[dict[str, Any]], key: str, digits: int) -> str:
    """Median, and from the lowest to the highest."""
    values = [each[key] for each in found]
    return f"{median(values):.{digits}f} ({min(values):.{digits}f}-{max(values):.{digits}f})"


def games_of(arguments: argparse.Namespace) -> list[Any]:
    from fedoel.games.splits import Split, game_seed
    from fedoel.protocol.play import GameSpec

    spec = GameSpec.parse(arguments.game)
    return [(spec, game_seed(Split.REHEARSAL, index)) for index in range(arguments.games)]


def held_out(arguments: argparse.Namespace) -> list[Any]:
    from fedoel.games.splits import Split, game_seed
    from fedoel.protocol.play import GameSpec

    return [(GameSpec.parse(arguments.game), game_seed(Split.HELD_OUT, index)) for index in range(arguments.held_out)]


def arrays_of(folder: Path) -> Arrays:
    """Read an adapter without safetensors, which a device has not: its format is a header and plain numbers."""
    raw = (folder / "adapter_model.safetensors").read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header, body = json.loads(raw[8 : 8 + length]), raw[8 + length :]
    header.pop("__metadata__", None)
    types = {"F16": np.float16, "F32": np.float32}
    return {
        name: np.frombuffer(body[slice(*each["data_offsets"])], types[each["dtype"]]).reshape(each["shape"]).copy()
        for name, each in header.items()
    }


def policy_of(arguments: argparse.Namespace, adapter: Arrays, version: str = "") -> Any:
    from fedoel.policies.llama.policy import load_policy
    from fedoel.protocol.config import PolicyConfig
    from fedoel.protocol.host.cache import default_cache

    settings = {"weights": arguments.weights, "threads": 1, "batch_tokens": arguments.batch_tokens}
    return load_policy(PolicyConfig("llama", device="cpu", **settings), adapter, version, default_cache())


class Timed:
    """A policy whose calls are timed, and whose first answer is noted."""

    def __init__(self, inner: Any) -> None:
        self.inner, self.version, self.seconds, self.first = inner, inner.version, 0.0, 0.0

    def tokens(self, situations: Any) -> Any:
        return self.inner.tokens(situations)

    def score(self, situations: Any) -> Any:
        start = time.process_time()
        answers = self.inner.score(situations)
        self.seconds += time.process_time() - start
        self.first = self.first or time.process_time()
        return answers


def play(arguments: argparse.Namespace, policy: Any, games: int | None = None) -> list[Any]:
    from fedoel.games.player import play_episodes
    from fedoel.protocol.host.cache import default_cache

    chosen = games_of(arguments)[:games]
    return play_episodes(policy, chosen, range(len(chosen)), default_cache())


def start(arguments: argparse.Namespace) -> dict[str, Any]:
    began = time.perf_counter()
    policy, clock = Timed(policy_of(arguments, arrays_of(arguments.version), arguments.version.name)), 0.0

    def first_answer(situations: Any, inner: Callable[[Any], Any] = policy.score) -> Any:
        nonlocal clock
        answers = inner(situations)
        clock = clock or time.perf_counter() - began
        return answers

    policy.score = first_answer  # type: ignore[method-assign]
    play(arguments, policy, games=1)
    play(arguments, policy)
    if "torch" in sys.modules:
        raise SystemExit("torch was loaded: this would not be a device's memory")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"first": policy.first, "wall": clock, "megabytes": peak}


def speed(arguments: argparse.Namespace) -> dict[str, Any]:
    """Play while every call to llama.cpp is recorded; then make the same calls again, with nothing between them."""
    policy = policy_of(arguments, arrays_of(arguments.version))
    context, calls = policy.model.context, list[tuple[str, Any]]()
    play(arguments, policy)  # once to warm up
    with policy.serving():
        policy.model.prefix_cache.clear()
    originals = {name: getattr(context, name) for name in ("_decode", "share", "drop", "clear")}

    def recorded(name: str) -> Callable[..., Any]:
        def call(*values: Any) -> Any:
            calls.append((name, values))
            return originals[name](*values)

        return call

    for name in originals:
        setattr(context, name, recorded(name))
    timed, before, began = Timed(policy), context.evaluated, time.process_time()
    play(arguments, timed)
    playing, tokens = time.process_time() - began, context.evaluated - before
    bare = replay(context, calls, originals)
    return {
        "playing": tokens / playing, "scoring": tokens / timed.seconds, "bare": tokens / bare,
        "play_share": bare / playing, "score_share": bare / timed.seconds,
    }  # fmt: skip


def replay(context: Any, calls: list[tuple[str, Any]], originals: Mapping[str, Any]) -> float:
    """Seconds of the same calls, prepared beforehand."""
    import llama_cpp

    from fedoel.policies.llama.library import as_batch

    ready = [(name, as_batch(values[0]) if name == "_decode" else values) for name, values in calls]
    originals["clear"]()
    began = time.process_time()
    for name, values in ready:
        if name != "_decode":
            originals[name](*values)
        elif llama_cpp.llama_decode(context.handle, values[0]):
            raise SystemExit("llama.cpp refused a batch that it took before")
        else:
            llama_cpp.llama_get_logits(context.handle)
    return time.process_time() - began


def cache(arguments: argparse.Namespace) -> dict[str, Any]:
    policy = policy_of(arguments, arrays_of(arguments.version))
    turns = [turn for trajectory in play(arguments, policy) for turn in trajectory.turns]
    context, encoder = policy.model.context, policy.model.tokenizer
    rows, head = encoder.encode([turn.situation for turn in turns]), len(encoder.head)
    prompts = [head + len(row.scene) + len(row.moment) for row in rows]
    alone = sum(p + len(row.tree.tokens) for p, row in zip(prompts, rows, strict=True))
    commands = sum(
        p + len(encoder.ids(command))
        for p, turn in zip(prompts, turns, strict=True)
        for command in turn.situation.admissible
    )
    count = len(turns)
    return {
        "turns": count, "evaluated_a_turn": round(context.evaluated / count, 1),
        "every_turn_from_nothing": round(alone / count, 1), "every_command_from_nothing": round(commands / count, 1),
        "saved_by_scenes": round(alone / context.evaluated, 2), "saved_in_all": round(commands / context.evaluated, 2),
    }  # fmt: skip


def compare(ours: list[Any], theirs: list[Any]) -> dict[str, Any]:
    gaps = [np.abs(a - b) for a, b in zip(ours, theirs, strict=True)]
    return {
        "commands": sum(map(len, gaps)), "mean": float(np.concatenate(gaps).mean()),
        "weighted": float(np.mean([np.exp(b) @ gap for b, gap in zip(theirs, gaps, strict=True)])),
        "kl": float(np.mean([np.exp(b) @ (b - a) for a, b in zip(ours, theirs, strict=True)])),
    }  # fmt: skip


def agreement(arguments: argparse.Namespace) -> dict[str, Any]:
    from fedoel.policies.torch.policy import load_policy
    from fedoel.protocol.config import PolicyConfig
    from fedoel.protocol.host.cache import default_cache

    adapter = arrays_of(arguments.version)
    policy = policy_of(arguments, adapter, arguments.version.name)
    situations = [turn.situation for trajectory in play(arguments, policy) for turn in trajectory.turns]
    layers = len({name.split(".")[4] for name in adapter})
    rank = min(min(array.shape) for array in adapter.values())
    exact = PolicyConfig(device="cpu", precision="fp32", threads=1, lora_layers=layers, lora_rank=rank)
    reference = load_policy(exact, adapter, arguments.version.name, default_cache()).score(situations)
    return compare(policy.score(situations), reference)


def adapter(arguments: argparse.Namespace) -> dict[str, Any]:
    """Encode the adapter in each way, decode it, and play with what came out."""
    whole = {name: array.astype(np.float32) for name, array in arrays_of(arguments.version).items()}
    exact = policy_of(arguments, whole)
    situations = [turn.situation for trajectory in play(arguments, exact) for turn in trajectory.turns]
    reference, rows = exact.score(situations), []
    for name, (encode, decode) in ENCODINGS.items():
        raw = encode(whole)
        rounded = {key: decode(array) for key, array in whole.items()}
        policy = policy_of(arguments, rounded)
        gap, won = compare(policy.score(situations), reference), wins(arguments, policy)
        sizes = {packer: round(len(pack(raw)) / 1e6, 3) for packer, pack in packers().items()}
        rows.append(
            {
                "encoding": name,
                "megabytes": round(len(raw) / 1e6, 3),
                "packed": sizes,
                "mean_gap": round(gap["mean"], 5),
                "won": won,
            }
        )
    return {"rows": rows, "message": round(message_megabytes(arguments, whole), 3)}


def message_megabytes(arguments: argparse.Namespace, whole: Arrays) -> float:
    """Size of the whole request that brings an adapter to a device in each cycle, as fedoel sends it."""
    from fedoel.codecs.tactics.coordinates import DIMENSION, VOCABULARY
    from fedoel.protocol.experience import VectorSpec
    from fedoel.protocol.messages import PlayRequest, records_bytes, request_to_records
    from fedoel.protocol.play import GameSpec

    game = GameSpec.parse(arguments.game)
    spec = VectorSpec("tactics", DIMENSION, VOCABULARY, "0" * 16, (game.family,), game.max_turns, 50.0, 200.0)
    half = {name: array.astype(np.float16) for name, array in whole.items()}
    baseline = np.zeros((1, game.max_turns), np.float32)
    request = PlayRequest(1, 1, spec, baseline, half, np.zeros(DIMENSION, np.float32), signature=bytes(64))
    return records_bytes(request_to_records(request)) / 1e6


def wins(arguments: argparse.Namespace, policy: Any) -> int:
    """Held-out games that a policy wins, each with the same draws for every policy."""
    from fedoel.games.player import play_episodes
    from fedoel.protocol.host.cache import default_cache

    games = held_out(arguments)
    return sum(trajectory.won for trajectory in play_episodes(policy, games, range(len(games)), default_cache()))


def packers() -> dict[str, Callable[[bytes], bytes]]:
    """Compressors that are installed here."""
    found: dict[str, Callable[[bytes], bytes]] = {"zlib": lambda raw: zlib.compress(raw, 9), "lzma": lzma.compress}
    try:
        zstandard = importlib.import_module("zstandard")
    except ModuleNotFoundError:
        return found
    return {"zstd": zstandard.ZstdCompressor(level=19).compress, **found}


def by_row(array: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Eight bits a number, and one scale a row."""
    scales = np.maximum(np.abs(array).max(axis=1, keepdims=True), 1e-12).astype(np.float32) / 127
    return np.rint(array / scales).astype(np.int8), scales


ENCODINGS: dict[str, tuple[Callable[[Arrays], bytes], Callable[[np.ndarray], np.ndarray]]] = {
    "float32": (lambda arrays: b"".join(a.tobytes() for a in arrays.values()), lambda a: a),
    "float16": (
        lambda arrays: b"".join(a.astype(np.float16).tobytes() for a in arrays.values()),
        lambda a: a.astype(np.float16).astype(np.float32),
    ),
    "int8 by row": (
        lambda arrays: b"".join(part.tobytes() for a in arrays.values() for part in by_row(a)),
        lambda a: (by_row(a)[0] * by_row(a)[1]).astype(np.float32),
    ),
}
PARTS: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "start": start, "speed": speed, "cache": cache, "agreement": agreement, "adapter": adapter,
}  # fmt: skip

if __name__ == "__main__":
    main()
