"""The device's Flower app: it answers a request by playing games and replying with one experience vector.

Flower sends the text of an exception to the server and writes a stack trace to the log. Both could quote a game, so
every failure leaves this module as the name of its class alone, or as the code of a refusal.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from ..codecs.encoder import Encoder, SendsWords, encode, load_encoder, rewarded, with_parameters
from ..games.partition import client_games
from ..games.player import play_episodes
from ..games.splits import secret_seed
from ..policies.policy import Policy
from ..protocol.amounts import games_of_client
from ..protocol.config import RunConfig
from ..protocol.errors import ConfigError, FedoelError, TrustError, VectorError
from ..protocol.experience import ExperienceVector, VectorSpec
from ..protocol.fleet.membership import Membership
from ..protocol.fleet.notice import RECORD as NOTICE
from ..protocol.fleet.trust import MASKED, Asked
from ..protocol.messages import (
    PlayRequest,
    reply_to_records,
    request_from_records,
    take_notice_from,
    with_release,
)
from ..protocol.play import GameId, merit, specs_from_text
from ..protocol.privacy.plan import PrivacyPlan
from ..protocol.release import check_server, release_in
from ..protocol.secagg.messages import ACTIONS
from ..protocol.trials import is_trial
from .contributions import Contribution
from .device.runtime import runtime_of
from .runtime import Runtime, SimulatedRuntime
from .secure import Guard, answer_step, protected
from .store import TrajectoryStore, key_from_file, key_from_keyring
from .trial import Played, TrialGames, trial_of


def make_app(runtime: Runtime) -> ClientApp:
    """Build the ClientApp of a device.

    Parameters
    ----------
    runtime
        Where the app runs; a node whose configuration names the folder of a deployed device runs there instead.
    """
    app = ClientApp()

    def experience(message: Message, context: Context) -> Message:
        here = runtime_of(context.node_config, runtime)
        work = partial(answer, message.content, context, here)
        return guarded(message, lambda: unless_stopped(message, here, work), here)

    app.train("experience")(experience)
    app.evaluate("trial")(experience)

    def secure_verb(phase: str, message: Message, context: Context) -> Message:
        here = runtime_of(context.node_config, runtime)
        work = partial(answer_secure, phase, message.content, context, here)
        return guarded(message, lambda: unless_stopped(message, here, work, plays=phase == "masked"), here)

    def notice(message: Message, context: Context) -> Message:
        here = runtime_of(context.node_config, runtime)
        return guarded(message, lambda: acknowledge(message.content, here), here)

    app.query("notice")(notice)
    for phase, action in ACTIONS.items():
        category, _, name = action.partition(".")
        register = app.train if category == "train" else app.query
        register(name)(partial(secure_verb, phase))
    return app


def guarded(message: Message, work: Callable[[], RecordDict], runtime: Runtime | None = None) -> Message:
    """Reply with the records that `work` returns.

    Parameters
    ----------
    runtime
        Where the app runs. Its record is told why a request was refused, for the device's owner.

    Raises
    ------
    FedoelError
        If `work` fails; the text is the code of a refusal, or the name of the exception's class, and nothing else.
    """
    try:
        records = work()
    except Exception as error:  # every exception, because no exception's text may leave the device
        failure = error.code if isinstance(error, TrustError) else type(error).__name__
        if runtime and isinstance(error, FedoelError):
            runtime.contributions.refuse(error)
    else:
        names = release_in(message.metadata.group_id) is not None
        return Message(with_release(records) if names else records, reply_to=message)
    # Raised outside of the except block, so that the original exception is not chained to this one.
    raise FedoelError(f"code: {failure}")


def unless_stopped(
    message: Message, runtime: Runtime, work: Callable[[], RecordDict], plays: bool = True
) -> RecordDict:
    """Obey the notice of the fleet's owner that came with a message, and do its work unless the fleet is stopped.

    Parameters
    ----------
    plays
        Whether the message asks for play, so that its answer, or that there is none, may have to wait.

    Raises
    ------
    TrustError
        If the newest notice says stop, or the server is of a release that does not talk to this one.
    VersionError
        If the notice is not signed by the fleet's key, or older than one before.
    """
    runtime.take_notice(take_notice_from(message.content))
    runtime.check_going()
    if runtime.deployed:
        check_server(message.metadata.group_id)
    with runtime.held_back() if plays else nullcontext(), runtime.working():
        reply = work()
    runtime.check_going()  # another message may have brought a notice while this one was played for, or held back
    return reply


def acknowledge(records: RecordDict, runtime: Runtime) -> RecordDict:
    """Take in a notice, and reply with the number of the newest one; raises `VersionError` as `unless_stopped` does."""
    return RecordDict({NOTICE: ConfigRecord({"number": runtime.take_notice(take_notice_from(records))})})


def answer_secure(phase: str, records: RecordDict, context: Context, runtime: Runtime) -> RecordDict:
    """Answer one phase of a secure sum.

    Raises
    ------
    FedoelError
        Whatever `answer` raises.
    SecureSumError
        If the step is malformed, out of order, or would weaken the device's secrecy.
    """
    config = RunConfig.from_server(context.run_config)
    client, _ = partition(context)
    trust = runtime.trust(config)
    trust.check(Asked(MASKED, config.codec.name))
    if phase == "keys":  # a device that may not play must not join: it would drop out of the round later
        runtime.admit(games_of(config, client))
    member = runtime.membership(config, client)

    def play(request: PlayRequest, run: str) -> ExperienceVector:
        return _experience(config, request, member, context, runtime, run).vector

    guard = Guard(trust, runtime.contributions, config.codec.name)
    return answer_step(phase, records, context, member, play, guard)


def answer(records: RecordDict, context: Context, runtime: Runtime) -> RecordDict:
    """Play the games of a request and return the records of the reply.

    Raises
    ------
    FedoelError
        If the request is malformed or not signed, names a codec that this device does not have, or playing fails.
    TrustError
        If the device's owner does not allow it.
    """
    config = RunConfig.from_server(context.run_config)
    trust, request = runtime.trust(config), request_from_records(records)
    plan = PrivacyPlan.from_json(request.plan) if request.plan else None
    noise = plan.noise_of(1) if plan else 0.0
    verb = "trial" if is_trial(request.spec) else "experience"
    trust.check(Asked(verb, config.codec.name, noise=noise))
    member = runtime.membership(config, partition(context)[0])
    contribution = Contribution.alone(f"{member.fleet} {request.serial}", noise)
    counted = plan is not None or trust.epsilon_a_year > 0
    if counted:
        runtime.contributions.check(contribution, trust)
    experience = _experience(config, request, member, context, runtime)
    if counted:  # before it leaves
        runtime.contributions.add(contribution, trust)
    if plan:  # the noise is added to the plan's parts; all other parts become zero
        parts = plan.decode(protected(experience.vector, plan))
        return reply_to_records(ExperienceVector.from_parts(request.spec, parts))
    return reply_to_records(experience.vector.clipped(), experience.words)


def _experience(
    config: RunConfig, request: PlayRequest, member: Membership, context: Context, runtime: Runtime, run: str = ""
) -> Experience:
    """Play what a request asks for, an exchange's games or a trial's, after all checks of the device.

    Parameters
    ----------
    run
        Name of the run of a secure sum.

    Raises
    ------
    FedoelError
        If the request is not signed or the device may not play it.
    """
    client, clients = partition(context)
    trial = is_trial(request.spec)
    games = 2 * config.trial.games if trial else games_of(config, client)
    # First of all: the run's configuration names code, such as a codec's, and nothing may be loaded before it is known
    # to be signed.
    member.accept(request, config, context.run_config)
    runtime.admit(games)
    _check_words(config, runtime)
    if not trial:
        encoder_of(config, request)
    runtime.begin(games)
    store, cycle, secret = store_of(context, client), request.cycle + int(trial), runtime.game_secret(client, run)
    played = TrialGames(config, runtime, context.state, store, cycle)
    if trial:
        upcoming, streams_of_games = private_games(config, cycle, client, clients, secret)
        return Experience(trial_of(played, request, upcoming, streams_of_games))
    if request.context is not None:
        return experience_of(config, request, client, clients, runtime, store, secret=secret)
    version = request.spec.policy_version
    experience = experience_of(config, request, client, clients, runtime, store, played.kept(version), secret)
    success = runtime.success(context.state).plus(version, request.cycle, experience.merits)
    runtime.keep_success(context.state, success)
    return experience


def _check_words(config: RunConfig, runtime: Runtime) -> None:
    """Refuse a codec that sends words with a `ConfigError` if the runtime forbids them, whatever the run allows."""
    if not runtime.send_words and isinstance(load_encoder(config.codec.name), SendsWords):
        raise ConfigError("no device of a deployment sends words about what happened on it")


@dataclass(frozen=True, slots=True)
class Experience:
    """What playing a request gives: a vector, not yet clipped, and the words of a codec that sends words.

    The merits of its episodes stay on the device.
    """

    vector: ExperienceVector
    words: tuple[str, ...] = ()
    merits: tuple[float, ...] = ()


def experience_of(
    config: RunConfig,
    request: PlayRequest,
    client: int,
    clients: int,
    runtime: Runtime,
    store: TrajectoryStore | None = None,
    kept: Played | None = None,
    secret: int | None = None,
) -> Experience:
    """Play one client's games of one cycle, log them in the device's store, and encode them.

    Parameters
    ----------
    kept
        The first of these games, if they were played in a trial.
    secret
        As in `private_games`.

    Raises
    ------
    ConfigError
        If the codec sends words and the run does not set `privacy.allow-plaintext`.
    """
    encoder = encoder_of(config, request)
    if isinstance(encoder, SendsWords) and not config.privacy.allow_plaintext:
        raise ConfigError("this codec sends words: the run must say privacy.allow-plaintext")
    policy = player_of(config, request, encoder, runtime)
    games, seeds = private_games(config, request.cycle, client, clients, secret)
    first = kept or Played((), ())
    done = len(first.trajectories)
    played = play_episodes(policy, games[done:], seeds[done:], runtime.cache(config))
    rows = [*first.rows, *(store.add(played) if store else [])]
    trajectories = [*first.trajectories, *played]
    experience = rewarded(trajectories, config.games.refusal)
    vector = encode(encoder, policy, experience, request.spec, request.baseline, config.codec.discount)
    if store:
        store.note_use(rows, vector.to_array().tobytes())
    words = encoder.words(policy, trajectories) if isinstance(encoder, SendsWords) else []
    return Experience(
        vector, tuple(words), tuple(merit(trajectory, config.games.refusal) for trajectory in trajectories)
    )


def player_of(config: RunConfig, request: PlayRequest, encoder: Encoder, runtime: Runtime) -> Policy:
    """Return the policy that plays a request: its version, under the cycle's context so far."""
    context = np.zeros(encoder.dimension, np.float32) if request.context is None else request.context
    return encoder.apply_context(runtime.policy(config, request), context)


def private_games(
    config: RunConfig, cycle: int, client: int, clients: int, secret: int | None = None
) -> tuple[Sequence[GameId], list[int]]:
    """Return one client's own games of one cycle, and the seed of each episode's random stream.

    Parameters
    ----------
    secret
        What a deployed device alone knows, in place of the run's seed and the client's number: nobody else can tell
        which games it plays, and how it plays them. None in a simulation, which can be repeated.
    """
    specs, count = specs_from_text(config.games.families), games_of(config, client)
    seed = config.seed if secret is None else secret
    games = client_games(specs, client, clients, count, cycle, config.games.partition, seed)
    seeds = streams(seed, cycle, client, len(games))
    if secret is not None:
        games = tuple((spec, secret_seed(secret, cycle, index)) for index, (spec, _) in enumerate(games))
    return games, seeds


def games_of(config: RunConfig, client: int) -> int:
    """Return how many games one client plays in a cycle."""
    return games_of_client(config.games.per_client, client, config.games.amounts, config.seed)


def store_of(context: Context, client: int) -> TrajectoryStore | None:
    """Open the device's log of trajectories and delete what exceeds its limits; None if the node has no log.

    The node's configuration holds ``store``, the path of the log; ``store-days``, the age in days up to which rows are
    kept (90); ``store-megabytes``, their size up to which they are kept (100); and ``store-key``, the path of the key
    (the log's path with ``.key`` appended) or ``keyring``.
    """
    path, days = context.node_config.get("store"), context.node_config.get("store-days", 90)
    megabytes = context.node_config.get("store-megabytes", 100)
    if path is None:
        return None
    key, name = str(context.node_config.get("store-key", f"{path}.key")), f"client-{client}"
    store = TrajectoryStore(
        Path(str(path)), name, key_from_keyring(name) if key == "keyring" else key_from_file(Path(key))
    )
    store.prune(max_age=86_400 * float(days), max_bytes=int(1e6 * float(megabytes)))
    return store


def streams(seed: int, cycle: int, client: int, count: int) -> list[int]:
    """Return one seed of a random stream per episode, so that a run plays the same episodes on every machine."""
    sequences = (np.random.SeedSequence([seed, cycle, client, index]) for index in range(count))
    return [int(sequence.generate_state(1, np.uint64)[0]) for sequence in sequences]


def encoder_of(config: RunConfig, request: PlayRequest) -> Encoder:
    """Return the encoder of a run with the parameters of a request; raises as `check_codec` does."""
    encoder = with_parameters(load_encoder(config.codec.name), request.parameters)
    check_codec(request.spec, encoder)
    return encoder


def check_codec(spec: VectorSpec, encoder: Encoder) -> None:
    """Refuse a vector that this device's encoder does not make.

    Raises
    ------
    VectorError
        If codec, vocabulary or dimension differ from the encoder's.
    """
    if (spec.codec, spec.vocabulary, spec.dimension) != (encoder.name, encoder.vocabulary, encoder.dimension):
        raise VectorError(
            f"this device makes {encoder.name!r} vectors of vocabulary {encoder.vocabulary} only: update it"
        )


def partition(context: Context) -> tuple[int, int]:
    """Read the node's client index and the number of clients from its configuration.

    Raises
    ------
    ConfigError
        If one of them is missing or not an integer, or the index is out of range.
    """
    client, clients = context.node_config.get("partition-id"), context.node_config.get("num-partitions")
    if type(client) is not int or type(clients) is not int:
        raise ConfigError("start the node with --node-config 'partition-id=0 num-partitions=10'")
    if not 0 <= client < clients:
        raise ConfigError(f"partition-id must be between 0 and {clients - 1}, num-partitions less one, not {client}")
    return client, clients


app = make_app(SimulatedRuntime())
