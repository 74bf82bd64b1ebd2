"""The device's Flower app: a request comes in, games are played, and one vector goes out.

Flower sends the text of an exception to the server, and a stack trace to the log. Either could quote what was said in
a game, so every failure leaves here as the name of its class alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp

from ..codecs.encode import encode
from ..codecs.encoder import Encoder, SendsWords, load_encoder
from ..games.assignment import amount, client_games
from ..games.player import play_episodes
from ..games.prepare import GameId
from ..policies.policy import Policy
from ..protocol.config import RunConfig
from ..protocol.errors import ConfigError, FedoelError, VectorError
from ..protocol.experience import ExperienceVector, VectorSpec
from ..protocol.messages import PlayRequest, reply_to_records, request_from_records
from ..protocol.play import specs_from_text
from ..protocol.privacy.plan import PrivacyPlan
from ..protocol.secagg.messages import ACTIONS
from .device.runtime import DeviceRuntime
from .runtime import LocalRuntime, Runtime
from .secure import answer_step, protected
from .store import TrajectoryStore
from .store_key import key_from_file, key_from_keyring

FIRST = "keys"  # phase of a secure sum in which a device agrees to take part


def make_app(runtime: Runtime) -> ClientApp:
    """Build the ClientApp of a device.

    Parameters
    ----------
    runtime
        Where the policy and the cache folder come from.
    """
    app = ClientApp()

    @app.train("experience")
    def experience(message: Message, context: Context) -> Message:
        return guarded(message, lambda: answer(message.content, context, _here(context, runtime)))

    for phase, action in ACTIONS.items():
        category, _, name = action.partition(".")
        register = app.train if category == "train" else app.query
        register(name)(_secure_verb(phase, runtime))
    return app


def _secure_verb(phase: str, runtime: Runtime) -> Callable[[Message, Context], Message]:
    def verb(message: Message, context: Context) -> Message:
        return guarded(message, lambda: answer_secure(phase, message.content, context, _here(context, runtime)))

    return verb


def _here(context: Context, runtime: Runtime) -> Runtime:
    """Return the device's own runtime, if the node was started with its folder as the setting ``home``."""
    home = context.node_config.get("home")
    return runtime if home is None else DeviceRuntime(Path(str(home)))


def guarded(message: Message, work: Callable[[], RecordDict]) -> Message:
    """Reply with what some work gives, or fail without a word of what it said."""
    try:
        records = work()
    except Exception as error:  # the boundary: no text of any exception may pass
        failure = type(error).__name__
    else:
        return Message(records, reply_to=message)
    # Raised out here, so that the original is not chained to it.
    raise FedoelError(f"code: {failure}")


def answer_secure(phase: str, records: RecordDict, context: Context, runtime: Runtime) -> RecordDict:
    """Answer one phase of a secure sum; raises as `answer` does, and `SecureSumError` for what must not be done."""
    config = RunConfig.from_flat(context.run_config)
    client, clients = partition(context)
    games = games_of(config, client)
    if phase == FIRST:  # rather than to drop out of a round later
        _admit(runtime, config, games)
    member = runtime.membership(config, client)

    def play(request: PlayRequest) -> ExperienceVector:
        _admit(runtime, config, games)
        check_codec(request.spec, load_encoder(config.codec.name))
        member.accept(request)
        _begin(runtime, games)
        return experience_of(config, request, client, clients, runtime, store_of(context, client)).vector

    return answer_step(phase, records, context, member, play)


def answer(records: RecordDict, context: Context, runtime: Runtime) -> RecordDict:
    """Play what is asked and return the reply's records.

    Raises
    ------
    FedoelError
        If the request is malformed or of a codec that this device does not know, or playing fails.
    """
    config = RunConfig.from_flat(context.run_config)
    client, clients = partition(context)
    games = games_of(config, client)
    _admit(runtime, config, games)
    request = request_from_records(records)
    check_codec(request.spec, load_encoder(config.codec.name))
    runtime.membership(config, client).accept(request)
    _begin(runtime, games)
    played = experience_of(config, request, client, clients, runtime, store_of(context, client))
    vector = played.vector
    if request.plan:
        return reply_to_records(_noised(vector, PrivacyPlan.from_json(request.plan)))
    return reply_to_records(vector.clipped(), played.words)


def _admit(runtime: Runtime, config: RunConfig, games: int) -> None:
    """Ask a device whether it plays now, before anything is loaded; those of a simulation always do.

    Raises
    ------
    ConfigError
        If a device that is somebody's own is asked for words, whatever the run says.
    NotNow
        If its owner's conditions do not hold.
    """
    if isinstance(runtime, DeviceRuntime):
        runtime.admit(games)
        if isinstance(load_encoder(config.codec.name), SendsWords):
            raise ConfigError("no device of a deployment sends words about what happened on it")


def _begin(runtime: Runtime, games: int) -> None:
    """Tell a device that games are about to be played."""
    if isinstance(runtime, DeviceRuntime):
        runtime.begin(games)


def _noised(vector: ExperienceVector, plan: PrivacyPlan) -> ExperienceVector:
    """Make a vector private before it is sent: noise in the parts of a plan, nothing in the others."""
    return ExperienceVector.from_parts(vector.spec, plan.decode(protected(vector, plan)))


@dataclass(frozen=True, slots=True)
class Experience:
    """What a device has to say: a vector, not yet clipped, and words where a codec sends them."""

    vector: ExperienceVector
    words: tuple[str, ...] = ()


def experience_of(
    config: RunConfig,
    request: PlayRequest,
    client: int,
    clients: int,
    runtime: Runtime,
    store: TrajectoryStore | None = None,
) -> Experience:
    """Play one client's games of one cycle and encode them; log them in the device's store.

    Raises
    ------
    ConfigError
        If the codec sends words, and the run does not say that it may.
    """
    encoder = load_encoder(config.codec.name)
    if isinstance(encoder, SendsWords) and not config.privacy.allow_plaintext:
        raise ConfigError("this codec sends words: the run must say privacy.allow-plaintext")
    policy = player_of(config, request, encoder, runtime)
    games, seeds = private_games(config, request.cycle, client, clients)
    trajectories = play_episodes(policy, games, seeds, runtime.cache(config))
    logged = store.add(trajectories) if store else []
    vector = encode(encoder, policy, trajectories, request.spec, request.baseline, config.codec.discount)
    if store:
        store.note_use(logged, hashlib.sha256(vector.to_array().tobytes()).hexdigest()[:16])
    words = encoder.words(policy, trajectories) if isinstance(encoder, SendsWords) else []
    return Experience(vector, tuple(words))


def player_of(config: RunConfig, request: PlayRequest, encoder: Encoder, runtime: Runtime) -> Policy:
    """Return who plays what a request asks for: the version, with the context that the cycle has so far."""
    context = np.zeros(encoder.dimension, np.float32) if request.context is None else request.context
    return encoder.apply_context(runtime.policy(config, request), context)


def private_games(config: RunConfig, cycle: int, client: int, clients: int) -> tuple[Sequence[GameId], list[int]]:
    """Return one client's own games of one cycle, and one seed of a random stream for each."""
    specs, count = specs_from_text(config.games.families), games_of(config, client)
    games = client_games(specs, client, clients, count, cycle, config.games.partition, config.seed)
    return games, streams(config.seed, cycle, client, len(games))


def games_of(config: RunConfig, client: int) -> int:
    """Return how many games one client plays in a cycle."""
    return amount(config.games.per_client, client, config.games.amounts, config.seed)


def store_of(context: Context, client: int) -> TrajectoryStore | None:
    """Open the device's log of trajectories, if the node was started with one, and drop what is too old.

    Node settings: ``store`` is its path, ``store-days`` how long rows are kept (90), ``store-megabytes`` how much of
    them (100), ``store-key`` the path of its key (beside it), or ``keyring``.
    """
    place, days = context.node_config.get("store"), context.node_config.get("store-days", 90)
    megabytes = context.node_config.get("store-megabytes", 100)
    if place is None:
        return None
    path, key = Path(str(place)), str(context.node_config.get("store-key", f"{place}.key"))
    name = f"client-{client}"
    store = TrajectoryStore(path, name, key_from_keyring(name) if key == "keyring" else key_from_file(Path(key)))
    store.prune(max_age=86_400 * float(days), max_bytes=int(1e6 * float(megabytes)))
    return store


def streams(seed: int, cycle: int, client: int, count: int) -> list[int]:
    """One seed of a random stream per episode, so that the same run plays the same games the same way anywhere."""
    sequences = (np.random.SeedSequence([seed, cycle, client, index]) for index in range(count))
    return [int(sequence.generate_state(1, np.uint64)[0]) for sequence in sequences]


def check_codec(spec: VectorSpec, encoder: Encoder) -> None:
    """Refuse a vector that this device cannot make.

    Raises
    ------
    VectorError
        If codec, vocabulary or dimension are not this device's.
    """
    if (spec.codec, spec.vocabulary, spec.dimension) != (encoder.name, encoder.vocabulary, encoder.dimension):
        raise VectorError(
            f"this device makes {encoder.name!r} vectors of vocabulary {encoder.vocabulary} only: update it"
        )


def partition(context: Context) -> tuple[int, int]:
    """Read which client this is, and out of how many.

    Raises
    ------
    ConfigError
        If the node was started without them, or they make no sense.
    """
    client, clients = context.node_config.get("partition-id"), context.node_config.get("num-partitions")
    if type(client) is not int or type(clients) is not int:
        raise ConfigError("start the node with --node-config 'partition-id=0 num-partitions=10'")
    if not 0 <= client < clients:
        raise ConfigError(f"partition-id must be between 0 and {clients - 1}, num-partitions less one, not {client}")
    return client, clients


app = make_app(LocalRuntime())
