"""The ClientApp of federated averaging: play, train the adapter on the played turns, and send the adapter.

It handles Flower's own `train` messages, as Flower's strategies send them: arrays and a configuration in, arrays and
metrics out. The adapter that it sends is neither clipped nor noised, so that it is not for deployment.
"""

from __future__ import annotations

from typing import Any, cast

import numpy as np
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from ...client.app import guarded, partition, private_games
from ...client.runtime import Runtime
from ...codecs.encoder import advantages_of
from ...games.player import play_episodes
from ...protocol.config import RunConfig
from ...protocol.experience import WIRE_TYPES, VectorSpec
from ...protocol.messages import PlayRequest
from ...protocol.play import turns_of
from ..batching import BatchingPolicy
from .local_training import Adapter, Lesson, fitted, weights_of

ARRAYS, CONFIG, METRICS = "arrays", "config", "metrics"
EXAMPLES = "num-examples"


def make_averaging_app(runtime: Runtime) -> ClientApp:
    """Build the ClientApp."""
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        return guarded(message, lambda: answer(message.content, context, runtime))

    return app


def round_config(request: PlayRequest, cycle_before: int) -> dict[str, Any]:
    """Return the configuration of a round's messages; Flower adds the number of the round.

    Parameters
    ----------
    request
        The request of this cycle in a federation of experience, whose baseline of advantages is used here too.
    cycle_before
        The last cycle before Flower's first round.
    """
    baseline = request.baseline.ravel().astype(np.float64).tolist()
    return {"spec": request.spec.to_json(), "baseline": baseline, "cycle-before": cycle_before}


def answer(records: RecordDict, context: Context, runtime: Runtime) -> RecordDict:
    """Play one client's games of a round with the received adapter, train it on them, and return it."""
    config, settings = RunConfig.from_flat(context.run_config), cast(dict[str, Any], records.config_records[CONFIG])
    adapter, (client, clients) = adapter_of(records.array_records[ARRAYS]), partition(context)
    spec, cycle = VectorSpec.from_json(settings["spec"]), settings["cycle-before"] + settings["server-round"]
    baseline = np.array(settings["baseline"], np.float32).reshape(len(spec.families), spec.horizon)
    policy = runtime.policy(config, PlayRequest(cycle, 1, spec, baseline, adapter))
    games, seeds = private_games(config, cycle, client, clients)
    played = play_episodes(policy, games, seeds, runtime.cache(config))
    advantages = advantages_of(played, spec, baseline, config.codec.discount)
    turns = turns_of(played)
    order = int(np.random.SeedSequence([config.seed, 5, client, cycle]).generate_state(1)[0])
    lesson = Lesson(
        adapter, turns, weights_of(advantages, settings["temperature"]), settings["epochs"], config.distil.batch,
        settings["learning-rate"], order,
    )  # fmt: skip
    # All clients train the same model in place, so that training goes through the barrier like play.
    if isinstance(policy, BatchingPolicy):
        (trained,) = policy.batcher.ask(policy.inner, fitted, [lesson])
    else:
        (trained,) = fitted(policy, [lesson])
    return reply_of(trained, len(turns))


def adapter_of(arrays: ArrayRecord) -> Adapter:
    """Read weights as they are; some of Flower's strategies widen them on their way."""
    read = {str(name): array.numpy() for name, array in arrays.items()}
    return {name: each if each.dtype in WIRE_TYPES else each.astype(np.float32) for name, each in read.items()}


def reply_of(adapter: Adapter, examples: int) -> RecordDict:
    """Return a reply with one record of arrays and one of metrics, as Flower's strategies expect."""
    return RecordDict({ARRAYS: arrays_of(adapter), METRICS: MetricRecord({EXAMPLES: examples})})


def arrays_of(adapter: Adapter) -> ArrayRecord:
    """Return an adapter as a record of arrays."""
    return ArrayRecord({name: Array.from_numpy_ndarray(np.ascontiguousarray(value)) for name, value in adapter.items()})
