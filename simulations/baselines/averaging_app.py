"""The device's app of federated averaging: play, train the adapter on what was played, send the adapter.

It answers Flower's own `train` messages, as Flower's strategies send them: arrays and a configuration in, arrays and
metrics out. What it sends is made of private text alone, unclipped and without noise: it is no app for devices.
"""

from __future__ import annotations

from typing import Any, cast

import numpy as np
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from ...client.app import guarded, partition, private_games
from ...client.runtime import Runtime
from ...codecs.encode import advantages_of
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
    """Build the ClientApp of a device that trains for itself."""
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        return guarded(message, lambda: answer(message.content, context, runtime))

    return app


def asked_of(request: PlayRequest, cycle_before: int) -> dict[str, Any]:
    """Write what a round asks beside the arrays; Flower adds the number of the round.

    Parameters
    ----------
    request
        What a device of a federation of experience would be asked: the same baseline of advantages is used here.
    cycle_before
        The last cycle before the first round.
    """
    baseline = request.baseline.ravel().astype(np.float64).tolist()
    return {"spec": request.spec.to_json(), "baseline": baseline, "cycle-before": cycle_before}


def answer(records: RecordDict, context: Context, runtime: Runtime) -> RecordDict:
    """Play one client's games of one round with the arrays that came, and return what they were trained to."""
    config, asked = RunConfig.from_flat(context.run_config), cast(dict[str, Any], records.config_records[CONFIG])
    adapter, (client, clients) = adapter_of(records.array_records[ARRAYS]), partition(context)
    spec, cycle = VectorSpec.from_json(asked["spec"]), asked["cycle-before"] + asked["server-round"]
    baseline = np.array(asked["baseline"], np.float32).reshape(len(spec.families), spec.horizon)
    policy = runtime.policy(config, PlayRequest(cycle, 1, spec, baseline, adapter))
    games, seeds = private_games(config, cycle, client, clients)
    played = play_episodes(policy, games, seeds, runtime.cache(config))
    advantages = advantages_of(played, spec, baseline, config.codec.discount)
    turns = turns_of(played)
    order = int(np.random.SeedSequence([config.seed, 5, client, cycle]).generate_state(1)[0])
    lesson = Lesson(
        adapter, turns, weights_of(advantages, asked["temperature"]), asked["epochs"], config.distil.batch,
        asked["learning-rate"], order,
    )  # fmt: skip
    # One model for all clients: who trains it in place waits for the others, as those do who play.
    if isinstance(policy, BatchingPolicy):
        (made,) = policy.batcher.ask(policy.inner, fitted, [lesson])
    else:
        (made,) = fitted(policy, [lesson])
    return reply_of(made, len(turns))


def adapter_of(arrays: ArrayRecord) -> Adapter:
    """Read weights as they are; some of Flower's strategies widen them on their way."""
    read = {str(name): array.numpy() for name, array in arrays.items()}
    return {name: each if each.dtype in WIRE_TYPES else each.astype(np.float32) for name, each in read.items()}


def reply_of(adapter: Adapter, examples: int) -> RecordDict:
    """Write a reply: one record of arrays and one of metrics, which is what Flower's strategies take."""
    return RecordDict({ARRAYS: arrays_of(adapter), METRICS: MetricRecord({EXAMPLES: examples})})


def arrays_of(adapter: Adapter) -> ArrayRecord:
    """Write weights."""
    return ArrayRecord({name: Array.from_numpy_ndarray(np.ascontiguousarray(each)) for name, each in adapter.items()})
