"""Every setting of a run, typed, with its default: read from a scenario file or from Flower's run config.

Flower's run config is flat and holds scalars only, so ``games.per-client`` there is ``per-client`` under ``[games]``
in a scenario file. Unknown keys are errors.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, cast, get_type_hints

from .errors import ConfigError

Scalar = int | float | str | bool
Kind = TypeVar("Kind")
PRECISIONS = ("auto", "fp32", "bf16")
DECODINGS = ("tree", "free")
DIVERGENCES = ("reverse-kl", "forward-kl", "jsd")
WEIGHTS = ("file", "q8_0", "f16")
MECHANISMS = ("none", "distributed", "central", "local")


@dataclass(frozen=True, slots=True)
class GamesConfig:
    """Which games, how many, and how they are spread over clients.

    `per_client` is a mean: `amounts` says how far clients lie from it.
    The teacher is measured on the first `held_out_teacher` held-out games; 0 stands for all of them. `transfer` names
    games, like `families`, that nobody learns from and that every version plays; with `instructions` it also
    answers some that are not about games.
    """

    families: str = "coin-collector level=102 turns=7"
    partition: str = "iid"
    per_client: int = 6
    rehearsal: int = 24
    gate: int = 24
    held_out: int = 100
    held_out_teacher: int = 0
    transfer: str = ""
    instructions: bool = False
    amounts: str = "equal"


@dataclass(frozen=True, slots=True)
class PolicyConfig:
    """The model that plays.

    `base` is empty for the packaged SmolLM2, or a folder or GGUF file. `precision` is ``fp32``, ``bf16`` for the
    matrix products of frozen layers, or ``auto`` for what is faster on the device. `decoding` is ``tree``, the exact
    distribution over admissible commands, or ``free``: the policy writes at most `response_tokens` tokens at
    `temperature`, `thinking` or not, told which commands there are (`listed`) or not. `weights` is how
    llama.cpp holds the base model: as in the ``file``, or converted once to ``q8_0`` or ``f16``.
    """

    backend: str = "torch"
    base: str = ""
    device: str = "auto"
    precision: str = "auto"
    weights: str = "f16"
    threads: int = 0
    batch_tokens: int = 4096
    lora_rank: int = 8
    lora_layers: int = 10
    decoding: str = "tree"
    thinking: bool = False
    listed: bool = True
    response_tokens: int = 16
    temperature: float = 1.0


@dataclass(frozen=True, slots=True)
class CodecConfig:
    """How trajectories become a vector."""

    name: str = "tactics"
    clipping_norm: float = 50.0
    fisher_norm: float = 200.0
    discount: float = 0.9


@dataclass(frozen=True, slots=True)
class ContextConfig:
    """How an aggregate becomes the teacher's context: see `fedoel.codecs.context`.

    `noise` is the variance of an advantage that is taken for chance; `max_kl` is in nats. A context that does not help
    is halved and tried again, `halvings` times. Contexts of words are `lists` of them, each of at most `longest`
    tokens.
    """

    step: float = 20.0
    damping: float = 3.0
    noise: float = 0.05
    max_kl: float = 0.5
    halvings: int = 2
    longest: int = 256
    lists: int = 4


@dataclass(frozen=True, slots=True)
class DistilConfig:
    """On-policy context distillation into the adapter.

    `retention` weighs the student's answers with the context, `anchor` what the base model says to a general text and
    to requests. The rest says how text that was written freely is compared: see `fedoel.server.distillation.losses`.
    With `on_policy` the student writes it, anew in every step; without, the teacher has written it before.
    """

    steps: int = 40
    batch: int = 16
    learning_rate: float = 5e-4
    gradient_norm: float = 1.0
    retention: float = 0.0
    anchor: float = 0.0
    divergence: str = "reverse-kl"
    top_k: int = 256
    tail: bool = False
    renormalise: bool = False
    temperature: float = 1.0
    beta: float = 0.5
    on_policy: bool = True


@dataclass(frozen=True, slots=True)
class WarmStartConfig:
    """The first adapter: uniform play over the admissible commands; `anchor` as in distillation."""

    steps: int = 30
    batch: int = 16
    learning_rate: float = 5e-4
    anchor: float = 0.0


@dataclass(frozen=True, slots=True)
class StrategyConfig:
    """How vectors become an aggregate; `name` is an entry point or ``module:Class``.

    `options` are the strategy's own, as ``name=value`` words. In a cycle of several `exchanges`, each asks its own part
    of the cohort, with the context that those before it gave. Where too few devices are ready, they are asked again for
    `patience` seconds.
    """

    name: str = "mean"
    options: str = ""
    exchanges: int = 1
    fraction_train: float = 1.0
    min_available_nodes: int = 2
    patience: float = 0.0


@dataclass(frozen=True, slots=True)
class PrivacyConfig:
    """What the server may learn, and what it costs.

    With `epsilon` above 0, noise keeps the whole run within it at `delta`, for a fleet of `population` devices (0 for
    `clients`). `fisher_share` is the part of the vector's norm that goes to its Fisher diagonal; with 0 the diagonal is
    taken from public games. A secure sum stands `max_dropout`, and a share of `colluding` devices. `keys` is the folder
    of the fleet's keys, by default inside the run's. Codecs that send words need `allow_plaintext`: nothing hides them.
    """

    mechanism: str = "none"
    epsilon: float = 0.0
    delta: float = 1e-6
    population: int = 0
    fisher_share: float = 0.0
    max_dropout: float = 0.2
    colluding: float = 1 / 3
    keys: str = ""
    allow_plaintext: bool = False


@dataclass(frozen=True, slots=True)
class RunConfig:
    """One run."""

    name: str = "quick"
    seed: int = 0
    clients: int = 8
    cycles: int = 2
    out: str = ""
    cache: str = ""
    resume: bool = False
    games: GamesConfig = field(default_factory=GamesConfig)
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    codec: CodecConfig = field(default_factory=CodecConfig)
    context: ContextConfig = field(default_factory=ContextConfig)
    distil: DistilConfig = field(default_factory=DistilConfig)
    warm_start: WarmStartConfig = field(default_factory=WarmStartConfig)
    strategy: StrategyConfig = field(default_factory=StrategyConfig)
    privacy: PrivacyConfig = field(default_factory=PrivacyConfig)

    @classmethod
    def from_flat(cls, values: Mapping[str, Scalar]) -> RunConfig:
        """Read Flower's run config: ``{"seed": 1, "games.per-client": 6}``.

        Raises
        ------
        ConfigError
            For an unknown key, a value of the wrong type, or a number out of range.
        """
        nested: dict[str, Any] = {}
        for key, value in values.items():
            *path, name = key.split(".")
            table = nested
            for part in path:
                table = table.setdefault(part, {})
                if not isinstance(table, dict):
                    raise ConfigError(f"{key} needs {part} to be a table of settings, not {table!r}")
            table[name] = value
        return cls.from_nested(nested)

    @classmethod
    def from_nested(cls, values: Mapping[str, Any]) -> RunConfig:
        """Read a parsed scenario file; raises as `from_flat` does."""
        config = from_table(cls, values)
        _check_ranges(config)
        return config

    def to_flat(self) -> dict[str, Scalar]:
        """Write what `from_flat` reads."""
        return dict(_flatten(self, ""))


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file.

    Raises
    ------
    ConfigError
        If it cannot be read, or is not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read {path}: {error}; it has to be a text file in UTF-8") from error


def from_table(kind: type[Kind], values: Any, where: str = "") -> Kind:
    """Build a dataclass from a table of settings, and those in it from tables inside; ``per_client`` is ``per-client``.

    Parameters
    ----------
    where
        What stands before a setting's name in messages.

    Raises
    ------
    ConfigError
        If a setting is unknown or of another type.
    """
    if not isinstance(values, Mapping):
        raise ConfigError(f"{where or 'the configuration'} must be a table of settings, not {values!r}")
    hints = get_type_hints(kind)
    known = {name.replace("_", "-"): name for name in hints}
    chosen: dict[str, Any] = {}
    for key, value in values.items():
        if key not in known:
            raise ConfigError(f"unknown setting {where}{key!s}; known here: {', '.join(sorted(known))}")
        expected = hints[known[key]]
        chosen[known[key]] = (
            from_table(cast(Any, expected), value, f"{where}{key}.")
            if is_dataclass(expected)
            else _typed(expected, value, where + key)
        )
    return kind(**chosen)


def _typed(expected: type, value: Any, where: str) -> Scalar:
    if expected is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not expected:
        raise ConfigError(f"{where} must be {expected.__name__}, not {value!r}")
    return cast(Scalar, value)


def _flatten(config: Any, where: str) -> list[tuple[str, Scalar]]:
    pairs: list[tuple[str, Scalar]] = []
    for item in fields(config):
        key, value = where + item.name.replace("_", "-"), getattr(config, item.name)
        pairs += _flatten(value, key + ".") if is_dataclass(value) else [(key, value)]
    return pairs


def _check_ranges(config: RunConfig) -> None:
    """Refuse numbers that no run can use, before any work starts."""
    positive = [
        "clients", "cycles", "games.per-client", "games.rehearsal", "games.gate", "games.held-out", "policy.lora-rank",
        "policy.lora-layers", "policy.batch-tokens", "codec.clipping-norm", "codec.fisher-norm", "context.step",
        "context.damping", "context.max-kl", "distil.steps", "distil.batch", "distil.learning-rate", "warm-start.steps",
        "warm-start.batch", "warm-start.learning-rate", "distil.gradient-norm", "strategy.min-available-nodes",
        "policy.response-tokens", "policy.temperature", "distil.temperature", "context.longest", "context.lists",
    ]  # fmt: skip
    flat = config.to_flat()
    for key in positive:
        if not 0 < float(flat[key]) < math.inf:
            raise ConfigError(f"{key} must be more than zero and finite, not {flat[key]!r}")
    for key, low, high in (
        ("seed", 0, 2**31 - 1), ("policy.threads", 0, 1024), ("games.held-out-teacher", 0, 1e9),
        ("strategy.fraction-train", 1e-9, 1), ("codec.discount", 0, 1), ("context.noise", 0, 1e6),
        ("distil.retention", 0, 1e6), ("distil.anchor", 0, 1e6), ("warm-start.anchor", 0, 1e6),
        ("strategy.exchanges", 1, config.clients), ("strategy.patience", 0, 1e8),
        ("privacy.epsilon", 0, 1e6), ("privacy.delta", 1e-15, 0.1),
        ("privacy.population", 0, 1e12), ("privacy.fisher-share", 0, 0.99), ("privacy.max-dropout", 0, 0.9),
        ("privacy.colluding", 0, 0.9), ("distil.top-k", 0, 1e9), ("distil.beta", 1e-6, 1 - 1e-6),
    ):  # fmt: skip
        if not low <= float(flat[key]) <= high:
            raise ConfigError(f"{key} must lie between {low} and {high}, not {flat[key]!r}")
    if config.policy.precision not in PRECISIONS:
        raise ConfigError(f"policy.precision must be one of {', '.join(PRECISIONS)}, not {config.policy.precision!r}")
    if config.policy.decoding not in DECODINGS:
        raise ConfigError(f"policy.decoding must be one of {', '.join(DECODINGS)}, not {config.policy.decoding!r}")
    if config.distil.divergence not in DIVERGENCES:
        raise ConfigError(
            f"distil.divergence must be one of {', '.join(DIVERGENCES)}, not {config.distil.divergence!r}"
        )
    if config.policy.weights not in WEIGHTS:
        raise ConfigError(f"policy.weights must be one of {', '.join(WEIGHTS)}, not {config.policy.weights!r}")
    if config.privacy.mechanism not in MECHANISMS:
        raise ConfigError(f"privacy.mechanism must be one of {', '.join(MECHANISMS)}, not {config.privacy.mechanism!r}")
    if (config.privacy.mechanism == "none") != (config.privacy.epsilon == 0):
        raise ConfigError("privacy.epsilon above 0 needs a privacy.mechanism, and a mechanism needs an epsilon")
