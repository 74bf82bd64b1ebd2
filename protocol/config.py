"""Every setting of a run, declared once: see `fedoel.protocol.settings`.

A run is read from a scenario file, or from Flower's run config, which is flat and holds scalars only: ``per-client``
under ``[games]`` in the file is ``games.per-client`` there. Unknown keys are errors.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from .errors import ConfigError
from .formats import KEY
from .release import RELEASE, Release
from .rollout import stages_of
from .settings import Scalar as Scalar
from .settings import flat, from_table, nested, setting, settings_of, to_table

PRECISIONS = ("auto", "fp32", "bf16")
DECODINGS = ("tree", "free")
WARM_STARTS = ("uniform", "prior")
DIVERGENCES = ("reverse-kl", "forward-kl", "jsd")
WEIGHTS = ("file", "q8_0", "f16")
PUBLIC = ("prompts", "games")
PACK_PLAYS = ("uniform", "explore")
BASELINES = ("device", "fleet")
MECHANISMS = ("none", "distributed", "central", "local")
# Settings that may differ between machines, and on resumption: they do not change the results.
FREE = ("out", "cache", "resume")
BEFORE = Release(RELEASE.major, RELEASE.minor - 1)
REPLY_SECONDS = 3600.0  # for which a server waits for answers that are played for
MOST_PROMPTS = 1_000_000  # of a pack that is made
DIGITS = 16  # of a digest that is signed with every request


@dataclass(frozen=True, slots=True)
class GamesConfig:
    """Which games are played, how many, and how they are spread over clients."""

    families: str = setting(
        "coin-collector level=102 turns=7", "Games as `family name=value ... turns=N`, separated by `;`."
    )
    partition: str = setting("iid", "How families are spread over clients: `iid`, `by-family` or `dirichlet:ALPHA`.")
    per_client: int = setting(6, "Fresh private games of a client in each cycle, on average.", low=1)
    rehearsal: int = setting(
        24, "Public games that every cycle distils on, where the server has games.", low=1, high=1_000_000
    )
    gate: int = setting(
        24, "Public games that the gate decides on in every cycle, where the server has games.", low=1, high=1_000_000
    )
    held_out: int = setting(100, "Held-out games that every version is reported on.", low=1, high=1_000_000)
    held_out_teacher: int = setting(
        0, "Held-out games that the teacher is measured on; 0 for all.", low=0, high=1_000_000_000
    )
    transfer: str = setting(
        "",
        "Games, written like `games.families`, that every version plays and nobody learns from; as many of each as "
        "of a held-out family.",
    )
    instructions: bool = setting(
        False, "Whether every version also answers 300 instructions that code can check, none of them about games."
    )
    amounts: str = setting(
        "equal", "Games of each client around `games.per-client`, for the whole run: `equal` or `lognormal:SIGMA`."
    )
    gate_blocks: int = setting(
        4, "How many times `games.gate` games are played at most, while the gate cannot tell.", low=1, high=1000
    )
    prompts: int = setting(
        0, "More public games, others in every cycle, played at random without the model, to distil on.",
        low=0, high=1_000_000,
    )  # fmt: skip
    refusal: float = setting(
        0.0, "What an answer that a game does not take costs, in experience and in trials, beside its turn.",
        low=0, high=1, since=Release(0, 2),
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class PolicyConfig:
    """The model that plays."""

    backend: str = setting(
        "torch",
        "`torch`, `llama` (devices play with llama.cpp, the server trains with torch), `tactics` (no language model), "
        "an entry point of `fedoel.policies`, or `module:Class`.",
    )
    base: str = setting(
        "", "Hugging Face folder or GGUF file of a Llama-like decoder; empty for the packaged SmolLM2-135M-Instruct."
    )
    device: str = setting("auto", "Device of torch, e.g. `cpu` or `cuda:0`; `auto` for the fastest one.")
    precision: str = setting(
        "auto",
        "Precision of the matrix products of frozen layers; `auto` is `bf16` where the device is fast at it.",
        choices=PRECISIONS,
    )
    weights: str = setting(
        "f16",
        "How llama.cpp holds the base model (backend `llama`): as in the `file`, or converted once to `q8_0` or `f16`.",
        choices=WEIGHTS,
    )
    threads: int = setting(
        1, "Threads that compute the model in each process; 0 for as many as its library chooses.", low=0, high=1024
    )
    batch_tokens: int = setting(4096, "About how many tokens go into one forward pass.", low=1)
    lora_rank: int = setting(8, "Rank of the LoRA adapter.", low=1)
    lora_layers: int = setting(10, "How many of the topmost layers carry LoRA.", low=1)
    decoding: str = setting(
        "tree",
        "`tree` samples from the exact distribution over the admissible commands; with `free` the policy writes its "
        "answer token by token.",
        choices=DECODINGS,
    )
    thinking: bool = setting(False, "Free decoding: whether the policy is told to think before it answers.")
    listed: bool = setting(True, "Free decoding: whether the prompt lists the admissible commands.")
    response_tokens: int = setting(16, "Free decoding: most tokens of an answer.", low=1)
    alternatives: int = setting(
        4,
        "Free decoding with the codec `embedding`: answers sampled to a prompt, of which the game gets one.",
        low=2,
        high=64,
    )
    temperature: float = setting(1.0, "Free decoding: divides the logits.", above=0)


@dataclass(frozen=True, slots=True)
class CodecConfig:
    """How trajectories become a vector."""

    name: str = setting(
        "tactics",
        "`tactics`, `tactics-text`, `embedding`, `prefix`, `steering`, `text`, `raw`, an entry point of "
        "`fedoel.codecs`, or `module:Name`.",
    )
    clipping_norm: float = setting(50.0, "Clipping norm of the gradient that a device sends.", above=0)
    fisher_norm: float = setting(200.0, "Clipping norm of the Fisher diagonal that a device sends.", above=0)
    discount: float = setting(0.9, "Discount of later rewards, per turn.", low=0, high=1)


@dataclass(frozen=True, slots=True)
class ContextConfig:
    """How an aggregate becomes the teacher's context: see `fedoel.codecs.context`."""

    step: float = setting(20.0, "Largest step size of the natural gradient.", above=0, high=1e6)
    damping: float = setting(3.0, "Added to the Fisher diagonal.", low=1e-6, high=1e12)
    noise: float = setting(0.05, "Variance of an advantage that counts as chance.", low=0, high=1e6)
    max_kl: float = setting(0.5, "Trust region: largest mean KL of a step, in nats.", above=0)
    teacher_kl: float = setting(
        0.0,
        "A finished context is lengthened, at most fourfold, until the teacher is so many nats away; 0: it is not.",
        low=0,
        since=Release(0, 2),
    )
    residual: bool = setting(False, "Begin with what the student left of its teacher's context.", since=Release(0, 2))
    halvings: int = setting(
        2, "How often a context that does not help on the gate's games is halved and tried again.", low=0, high=64
    )
    longest: int = setting(256, "Contexts in words: most tokens of a list.", low=1)
    lists: int = setting(4, "Contexts in words: number of lists; every turn is answered with one of them.", low=1)


@dataclass(frozen=True, slots=True)
class DistilConfig:
    """On-policy context distillation into the adapter: see `fedoel.server.distillation.losses`."""

    steps: int = setting(40, "Optimiser steps of a cycle.", low=1)
    batch: int = setting(16, "Prompts of a step.", low=1)
    learning_rate: float = setting(5e-4, "First learning rate; it decays linearly to zero.", above=0)
    gradient_norm: float = setting(1.0, "Clipping norm of the gradient of a step.", above=0)
    halvings: int = setting(
        1,
        "How often a candidate that loses in the gate, drifts too far or breaks another bound of `server` is moved "
        "half the way back to the current version, weight by weight, and tried again.",
        low=0,
        high=8,
    )
    retention: float = setting(
        0.0,
        "Weight of the divergence of the student with the context from the teacher; it costs a second forward and "
        "backward pass, except with contexts that only add to scores, as those of `tactics` do.",
        low=0,
        high=1e6,
    )
    anchor: float = setting(
        0.0,
        "Weight of the KL divergence of the student from the base model, in every step, on a general text and on the "
        "base model's answers to requests.",
        low=0,
        high=1e6,
    )
    examples: float = setting(
        0.0,
        "Free decoding with a reward of answers: weight of the negative log-likelihood of a public prompt's examples "
        "of answers, as a set.",
        low=0,
        high=1e6,
        since=Release(0, 2),
    )
    divergence: str = setting("reverse-kl", "Divergence of the student from the teacher.", choices=DIVERGENCES)
    top_k: int = setting(
        256, "Free decoding: how many of the student's most likely tokens are compared; 0 for all.", low=0, high=10**9
    )
    tail: bool = setting(False, "Free decoding: whether the tokens outside the top k count as one more outcome.")
    renormalise: bool = setting(False, "Free decoding: whether both sides are normalised over the compared tokens.")
    temperature: float = setting(1.0, "Free decoding: divides the logits of both sides.", above=0)
    beta: float = setting(0.5, "Weight of the teacher in `jsd`.", low=1e-6, high=1 - 1e-6)
    on_policy: bool = setting(
        True,
        "Whether to train on states that the student visits itself; with free decoding also whether the student writes "
        "the answers, anew in every step.",
    )


@dataclass(frozen=True, slots=True)
class WarmStartConfig:
    """The first adapter, which gives admissible commands."""

    kind: str = setting(
        "uniform",
        "What it is trained towards: `uniform` play over the admissible commands, or `prior`, the base model's own "
        "preferences among them.",
        choices=WARM_STARTS,
    )
    steps: int = setting(30, "Optimiser steps; 0 starts from what the base model itself prefers.", low=0)
    batch: int = setting(16, "Prompts of a step.", low=1)
    learning_rate: float = setting(5e-4, "First learning rate; it decays linearly to zero.", above=0)
    anchor: float = setting(0.0, "As `distil.anchor`.", low=0, high=1e6)


@dataclass(frozen=True, slots=True)
class StrategyConfig:
    """How vectors become an aggregate."""

    name: str = setting(
        "mean", "`mean` or another built-in strategy, an entry point of `fedoel.strategies`, or `module:Class`."
    )
    options: str = setting("", 'The strategy\'s own options as `name=value` words, e.g. `"beta=0.1"`.')
    exchanges: int = setting(
        1,
        "Exchanges of a cycle, at most `clients`; each asks its own part of the cohort, which plays under the context "
        "of the exchange before.",
        low=1,
    )
    fraction_train: float = setting(1.0, "Share of the nodes that takes part in a cycle.", low=1e-9, high=1)
    min_available_nodes: int = setting(2, "How many nodes to wait for.", low=1)
    patience: float = setting(
        0.0,
        "Seconds for which an exchange waits for nodes, and asks again every minute while too few devices are ready or "
        "a secure sum fails before it has released anything; 0 waits two minutes for nodes and asks once.",
        low=0,
        high=1e8,
    )


@dataclass(frozen=True, slots=True)
class PrivacyConfig:
    """What the server may learn, and what noise that costs."""

    mechanism: str = setting(
        "none",
        "Who adds noise: all devices together (`distributed`, strategy `secure-mean`), the server (`central`, "
        "`central-mean`) or every device (`local`, `local-mean`).",
        choices=MECHANISMS,
    )
    epsilon: float = setting(0.0, "Privacy budget of the whole run; 0 without a mechanism.", low=0, high=1e6)
    delta: float = setting(1e-6, "Delta at which `privacy.epsilon` holds.", low=1e-15, high=0.1)
    population: int = setting(0, "Devices that may be drawn; 0 for `clients`.", low=0, high=10**12)
    fisher_share: float = setting(
        0.0,
        "Share of the squared joint norm that goes to the Fisher diagonal; 0 takes the diagonal from public games or "
        "prompts.",
        low=0,
        high=0.99,
    )
    max_dropout: float = setting(0.2, "Share of a cohort that may drop out of a secure sum.", low=0, high=0.9)
    colluding: float = setting(
        1 / 3, "Share of a cohort that may collude with the server in a secure sum.", low=0, high=0.9
    )
    keys: str = setting("", "Folder of the fleet's keys; empty for `RUN/keys`, which a simulation makes.")
    allow_plaintext: bool = setting(False, "Whether codecs that send words are allowed: nothing hides the words.")


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """What the server has of the world."""

    public: str = setting(
        "prompts",
        "`prompts`: the server has a pack of prompts and no rewards, so that all rewards, those that decide included, "
        "come from the fleet; `games`: it plays public games of the same families.",
        choices=PUBLIC,
    )
    prompts: str = setting("", "Pack of prompts, a file; empty for one that a simulation makes.")
    prompt_families: str = setting(
        "", "Families of a pack that a simulation makes, written like `games.families`; empty for the same ones."
    )
    pack: int = setting(2000, "Prompts of a pack that is made.", low=16, high=MOST_PROMPTS)
    pack_play: str = setting(
        "uniform", "How public games are played, without rewards, for a pack that is made: `explore` finds more states "
        "behind a few right commands among many, and takes longer.", choices=PACK_PLAYS, since=Release(0, 2),
    )  # fmt: skip
    prompts_per_cycle: int = setting(
        400, "Prompts that a cycle's context is bounded and distilled on, other ones in every cycle.",
        low=1, high=1_000_000,
    )  # fmt: skip
    baseline: str = setting(
        "device",
        "Baseline of the advantages without public games: the mean of a `device`'s other episodes, or the `fleet`'s "
        "mean in the exchange before, where counters are not hidden by noise.",
        choices=BASELINES,
    )
    red_lines: str = setting(
        "",
        "File of red lines, one a line: commands or answers in free text, with `*` for any text, that no candidate may "
        "make likelier on public prompts, whatever it wins, in addition to those that the games' families declare; "
        "empty for none.",
    )
    red_line_tolerance: float = setting(
        0.01, "By how much the mean probability of a red line may rise in a candidate.", low=0, high=1
    )
    max_base_kl: float = setting(
        0.5, "Largest mean KL divergence of a candidate from the base model on neutral text, in nats a token, whatever "
        "it wins; 0 for no bound.", low=0, high=1e6, since=Release(0, 2),
    )  # fmt: skip
    max_perplexity: float = setting(
        0.0, "Largest perplexity of a candidate on neutral text, as a multiple of the base model's; 0 for no bound.",
        low=0, high=1e6, since=Release(0, 2),
    )  # fmt: skip
    min_instructions: float = setting(
        0.0, "Fewest of the instructions (`games.instructions`) that a candidate follows, as a share of those that the "
        "base model follows; 0 for no bound.", low=0, high=1, since=Release(0, 2),
    )  # fmt: skip
    max_invalid: float = setting(
        0.0, "Free decoding: largest share of a candidate's answers to public prompts that are none of the listed "
        "commands or, where a prompt is open, hold no text or are cut off at `policy.response-tokens`; 0 for no bound.",
        low=0, high=0.99, since=Release(0, 2),
    )  # fmt: skip
    max_answer_tokens: float = setting(
        0.0, "Free decoding: most tokens, on average, of a candidate's answer to a public prompt; 0 for no bound.",
        low=0, high=1e6, since=Release(0, 2),
    )  # fmt: skip
    approve: bool = setting(
        False, "Whether a candidate that has passed every gate waits for an operator's `fedoel approve`."
    )

    @property
    def lacks_pack(self) -> bool:
        """Whether a pack of prompts has still to be made."""
        return self.public == "prompts" and not self.prompts


@dataclass(frozen=True, slots=True)
class TrialConfig:
    """Trials on devices, by which a server without games decides what to distil and to promote."""

    games: int = setting(2, "Games that a device plays with the current version and with what is tried.", low=1)
    share: float = setting(
        0.5, "Share of a cycle's cohort that is asked at once, but at least four devices.", low=1e-9, high=1
    )
    clip: float = setting(2.0, "Differences in merit, which are at most 3, are clipped to this size.", above=0, high=10)
    contexts: bool = setting(
        False, "Whether contexts are tried, too; otherwise only what was distilled is, which costs less play."
    )
    fallback_share: float = setting(
        0.25, "Nothing is promoted while a larger share of a trial's devices has gone back to the version before, "
        "because the current one is clearly worse for them.", low=0, high=1,
    )  # fmt: skip
    health: bool = setting(
        False,
        "Whether devices say in trials how they are: class of machine, deaths of processes, version, time and memory, "
        "as counts that are summed and noised with their answers. Owners may keep it to themselves (`trust.health`).",
        since=Release(0, 2),
    )


@dataclass(frozen=True, slots=True)
class RolloutConfig:
    """How a promoted version goes to the fleet."""

    stages: str = setting(
        "1",
        "Shares of the fleet that a promoted version goes to, a stage for at least one cycle each, e.g. `0.01 0.1 1`; "
        "the next one begins when the version holds on the one before.",
        since=Release(0, 2),
    )


@dataclass(frozen=True, slots=True)
class RunConfig:
    """One run."""

    name: str = setting("quick", "Name of the run; a scenario file's own name by default.", printable=True)
    seed: int = setting(
        0, "Seed of games, their assignment, sampling and training; keys and noise come from the operating system.",
        low=0, high=2**31 - 1,
    )  # fmt: skip
    clients: int = setting(8, "Number of clients.", low=1)
    cycles: int = setting(2, "Number of cycles after the warm start.", low=1)
    out: str = setting("", "Folder of the results; empty for `runs/NAME-SEED`.")
    cache: str = setting("", "Folder of compiled games and converted models; empty for the user's cache folder.")
    resume: bool = setting(False, "Whether an interrupted run in `out` is continued.")
    games: GamesConfig = field(default_factory=GamesConfig)
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    codec: CodecConfig = field(default_factory=CodecConfig)
    context: ContextConfig = field(default_factory=ContextConfig)
    distil: DistilConfig = field(default_factory=DistilConfig)
    warm_start: WarmStartConfig = field(default_factory=WarmStartConfig)
    strategy: StrategyConfig = field(default_factory=StrategyConfig)
    privacy: PrivacyConfig = field(default_factory=PrivacyConfig)
    server: ServerConfig = field(default_factory=ServerConfig)
    trial: TrialConfig = field(default_factory=TrialConfig)
    rollout: RolloutConfig = field(default_factory=RolloutConfig)

    @classmethod
    def from_flat(cls, values: Mapping[str, Scalar]) -> RunConfig:
        """Read Flower's run config: ``{"seed": 1, "games.per-client": 6}``.

        Raises
        ------
        ConfigError
            For an unknown key, a value of the wrong type, or a number out of range.
        """
        # All clients of a simulation have the same settings. Their types count: 1 equals True.
        try:
            return _from_flat(tuple((key, type(value), value) for key, value in values.items()))
        except TypeError:  # a list or a table, which no setting is
            return cls.from_nested(nested(values))

    @classmethod
    def from_nested(cls, values: Mapping[str, Any]) -> RunConfig:
        """Read a parsed scenario file; raises as `from_flat` does."""
        config = from_table(cls, values)
        if config.strategy.exchanges > config.clients:
            raise ConfigError(
                f"strategy.exchanges must lie between 1 and {config.clients}, the number of clients, not "
                f"{config.strategy.exchanges}"
            )
        if (config.privacy.mechanism == "none") != (config.privacy.epsilon == 0):
            raise ConfigError("privacy.epsilon above 0 needs a privacy.mechanism, and a mechanism needs an epsilon")
        if len(stages_of(config.rollout.stages)) > 1 and config.privacy.epsilon:
            raise ConfigError(
                f"rollout.stages {config.rollout.stages!r} draws cohorts from a part of the fleet, for which the noise "
                'of privacy.epsilon is not computed: set rollout.stages = "1"'
            )
        return config

    @property
    def families_of_prompts(self) -> str:
        """Families of the pack of prompts that is made for the run, written like `games.families`."""
        return self.server.prompt_families or self.games.families

    def to_flat(self) -> dict[str, Scalar]:
        """Write what `from_flat` reads."""
        return dict(flat(to_table(self)))

    def to_devices(self) -> dict[str, Scalar]:
        """Write the settings as devices get them: without those that the release before lacks, where they are default.

        A device of that release refuses settings that it does not know.
        """
        declared = settings_of(RunConfig)
        return {
            name: value
            for name, value in self.to_flat().items()
            if declared[name].since <= BEFORE or value != declared[name].default
        }

    @classmethod
    def from_server(cls, values: Mapping[str, Scalar]) -> RunConfig:
        """Read a run's settings on a device, without those that it does not know: a later release has them.

        Whether its fleet's owner has signed all of them is checked with every request. Raises as `from_flat` does.
        """
        known = settings_of(RunConfig)
        return cls.from_flat({name: value for name, value in values.items() if name in known})

    @property
    def digest(self) -> str:
        """The first 16 hexadecimal digits of the `settings_digest` of what devices get."""
        return _digest(self)


@lru_cache(maxsize=4)  # all clients of a simulation compare it with every request
def _digest(config: RunConfig) -> str:
    return settings_digest(config.to_devices())[:DIGITS]


def settings_digest(settings: Mapping[str, Any]) -> str:
    """Return the SHA-256 of flat settings but those that are `FREE`, in hexadecimal."""
    kept = {name: value for name, value in settings.items() if name not in (*FREE, KEY)}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


@lru_cache(maxsize=4)
def _from_flat(settings: tuple[tuple[str, type, Scalar], ...]) -> RunConfig:
    return RunConfig.from_nested(nested({key: value for key, _, value in settings}))
