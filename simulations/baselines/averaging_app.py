"""The ClientApp of federated averaging: play, train the adapter on the played turns, and send the adapter.

It handles Flower's own `train` messages, as Flower's strategies send them: arrays and a configuration in, arrays and
metrics out. The adapter that it sends is neither clipped nor noised, so that it is not for deployment.

Training is advantage-weighted regression (Peng et al. 2019, arXiv 1910.00177):

    loss = - sum_t exp(A_t / temperature) log pi(a_t | x_t)

where pi is the distribution over the admissible commands. The weights are positive, so that several epochs over the
same turns are stable.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from numpy.typing import NDArray

from ...client.app import guarded, partition, private_games
from ...client.runtime import Runtime
from ...codecs.encoder import advantages_of, rewarded
from ...codecs.tactics.coordinates import DIMENSION, tilt
from ...codecs.tactics.encoder import moments
from ...codecs.tactics.policy import TacticsPolicy
from ...games.player import play_episodes
from ...policies.policy import Policy
from ...protocol.config import RunConfig
from ...protocol.errors import FedoelError
from ...protocol.experience import WIRE_TYPES, VectorSpec
from ...protocol.messages import PlayRequest
from ...protocol.play import Turn, turns_of
from ..batching import BatchingPolicy

if TYPE_CHECKING:
    import torch

    from ...policies.torch.model import TorchModel
    from ...policies.torch.policy import TorchPolicy

Adapter = Mapping[str, NDArray[np.float32]]
LARGEST_WEIGHT, DAMPING = 20.0, 1.0
ARRAYS, CONFIG, METRICS = "arrays", "config", "metrics"
EXAMPLES = "num-examples"


class NoTurns(FedoelError, RuntimeError):
    """A device whose games were over before its first turn has nothing to train on, and is not in the mean."""


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
    baseline = [] if request.baseline is None else request.baseline.ravel().astype(np.float64).tolist()
    return {"spec": request.spec.to_json(), "baseline": baseline, "cycle-before": cycle_before}


def answer(records: RecordDict, context: Context, runtime: Runtime) -> RecordDict:
    """Play one client's games of a round with the received adapter, train it on them, and return it."""
    config, settings = RunConfig.from_flat(context.run_config), cast(dict[str, Any], records.config_records[CONFIG])
    adapter, (client, clients) = adapter_of(records.array_records[ARRAYS]), partition(context)
    spec, cycle = VectorSpec.from_json(settings["spec"]), settings["cycle-before"] + settings["server-round"]
    numbers = np.array(settings["baseline"], np.float32)
    baseline = numbers.reshape(len(spec.families), spec.horizon) if numbers.size else None
    policy = runtime.policy(config, PlayRequest(cycle, 1, spec, baseline, adapter))
    games, seeds = private_games(config, cycle, client, clients)
    played = play_episodes(policy, games, seeds, runtime.cache(config))
    advantages = advantages_of(rewarded(played, config.games.refusal), spec, baseline, config.codec.discount)
    if not (turns := turns_of(played)):
        raise NoTurns("no game had a turn")
    order = int(np.random.SeedSequence([config.seed, 5, client, cycle]).generate_state(1)[0])
    task = LocalTask(
        adapter, turns, weights_of(advantages, settings["temperature"]), settings["epochs"], config.distil.batch,
        settings["learning-rate"], order,
    )  # fmt: skip
    # All clients train the same model in place, so that training goes through the barrier like play.
    if isinstance(policy, BatchingPolicy):
        (trained,) = policy.batcher.ask(policy.inner, fitted, [task])
    else:
        (trained,) = fitted(policy, [task])
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


@dataclass(frozen=True)
class LocalTask:
    """The training task of one device.

    Parameters
    ----------
    adapter
        The adapter that played the turns, from which training starts.
    turns, weights
        The played turns, and the weight of each in the loss: see `weights_of`.
    epochs
        Passes over the turns.
    batch, learning_rate
        Turns per step, and learning rate of AdamW; for language models only.
    seed
        Determines the order of the turns.
    """

    adapter: Adapter
    turns: Sequence[Turn]
    weights: Sequence[float]
    epochs: int
    batch: int
    learning_rate: float
    seed: int


def weights_of(advantages: Sequence[float], temperature: float) -> list[float]:
    """Return ``exp(A_t / temperature)`` for each turn, at most `LARGEST_WEIGHT`."""
    return np.minimum(np.exp(np.asarray(advantages) / temperature), LARGEST_WEIGHT).tolist()  # type: ignore[no-any-return]


def fitted(policy: Policy, tasks: Sequence[LocalTask]) -> list[Adapter]:
    """Return the trained adapter of each task.

    Parameters
    ----------
    policy
        The policy that played. A language model is trained in place; the next policy to play loads its own adapter.
    """
    if isinstance(policy, TacticsPolicy):
        return [_fit_tactics(task) for task in tasks]
    model = cast("TorchPolicy", policy).model
    return [_fit_lora(model, task) for task in tasks]


def _fit_tactics(task: LocalTask) -> Adapter:
    """Minimise the same loss by natural gradient steps on the weights of tactics."""
    added = np.zeros(DIMENSION)
    for _ in range(task.epochs):
        gradient, fisher = np.zeros(DIMENSION), np.zeros(DIMENSION)
        for turn, weight in zip(task.turns, task.weights, strict=True):
            log_probs = tilt(turn.log_probs, turn.situation, added.astype(np.float32))
            score, variance = moments(replace(turn, log_probs=log_probs))
            gradient += weight * score
            fisher += weight * variance
        added += gradient / (fisher + DAMPING)
    return {"weights": (task.adapter["weights"] + added).astype(np.float32)}


def _fit_lora(model: TorchModel, task: LocalTask) -> Adapter:
    """Train the LoRA layers with AdamW."""
    from ...server.distillation.opcd import train
    from ...server.distillation.optimise import Schedule
    from ...server.distillation.training_states import TrainingStates

    def objective(index: int, student: torch.Tensor) -> torch.Tensor:
        return -task.weights[index] * student[task.turns[index].action]

    model.load(task.adapter)
    states = TrainingStates.prepare(model, [turn.situation for turn in task.turns])
    steps = task.epochs * -(-len(task.turns) // task.batch)
    train(states, objective, Schedule(steps, task.batch, task.learning_rate), task.seed)
    return model.adapter()
