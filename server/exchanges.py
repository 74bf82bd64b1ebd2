"""The exchanges of a cycle: what the cohort is asked, what came back, and the context that grows from it.

With several exchanges a cycle, each part of the cohort plays under the context that the parts before it gave. An
advantage is worth little far from the policy that it was measured under, so two short steps lead further than one long
one, and no device plays, sends or spends more for it: every node takes part in one exchange of a cycle.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from itertools import chain
from statistics import fmean

import numpy as np

from ..codecs.codec import load_codec
from ..codecs.context import TeacherContext, divergence, no_context
from ..codecs.encode import count, encode
from ..codecs.encoder import Encoder
from ..games.assignment import amounts
from ..policies.policy import Policy
from ..protocol.config import RunConfig
from ..protocol.experience import Aggregate, ExperienceVector, Vector, VectorSpec, total
from ..protocol.fleet.membership import keys_folder
from ..protocol.messages import PlayRequest
from ..protocol.play import Trajectory, Turn, turns_of
from ..protocol.signing import sign_request
from ..strategies.consolidator import Traffic
from ..strategies.robust import cosine
from .fleet import next_serial, owner_key
from .game_plan import GamePlan
from .learner import Adapter, Learner
from .mixture import Mixture
from .phases import Outcome, Phases
from .public import PublicGames
from .safeguards import RunSafeguards


@dataclass(frozen=True, slots=True)
class Current:
    """The version that plays in a cycle."""

    version: str
    adapter: Adapter


class Exchanges:
    """Keeps every exchange and every step of the context on disk, and reads back what is there already."""

    def __init__(
        self, config: RunConfig, public: PublicGames, learner: Learner, phases: Phases, safeguards: RunSafeguards
    ) -> None:
        self.safeguards = safeguards
        self.config, self.public, self.learner, self.phases = config, public, learner, phases
        self.codec = load_codec(config.codec.name)
        self._collecting = ExitStack()
        self._asked = ""
        self._rehearsed: dict[int, list[list[Trajectory]]] = {}

    def request(self, current: Current, cycle: int, exchange: int) -> PlayRequest:
        """Ask for the experience of the current version with the context so far.

        The baseline is what it earns on public games, played in the same way: the aggregate before speaks of a worse
        player, and a baseline that lags behind blames and praises at random.
        """
        context = self.context(current, cycle, exchange - 1)
        self._asked = current.version
        with self.phases.log.phase(cycle, numbered("rehearsal", exchange)):  # the server's own, not the cohort's
            baseline = self._baseline(current, self.rehearsed(current, cycle, exchange))
        self._collecting.enter_context(self.phases.log.phase(cycle, numbered("collect", exchange)))
        weights = context.weights if context.weights.any() else None
        keys, spec = keys_folder(self.config), self._spec(current)
        # Where devices add all of their noise themselves, the plan goes with the request.
        plan = self.safeguards.plan(spec).to_json() if self.config.privacy.mechanism == "local" else ""
        request = PlayRequest(cycle, exchange, spec, baseline, current.adapter, weights, next_serial(keys), plan)
        return sign_request(owner_key(keys), request)

    def collected(self, cycle: int, exchange: int) -> bool:
        """Whether the exchange is over."""
        return self.phases.finished(cycle, numbered("collect", exchange))

    def collect(self, cycle: int, exchange: int, aggregate: Aggregate | None, traffic: Traffic) -> None:
        """Keep the aggregate, or that there is none."""
        vectors = {} if aggregate is None else {"vector": aggregate.vector.to_array()}
        parts = aggregate.parts if aggregate else ()
        vectors |= {f"part-{number}": part.vector.to_array() for number, part in enumerate(parts)}
        values = {
            **asdict(traffic), "refused": dict(traffic.refused), "cohort": aggregate.cohort if aggregate else 0,
            "noise": aggregate.noise if aggregate else 0.0, "version": self._asked,
            "parts": [part.cohort for part in parts], "words": list(aggregate.words) if aggregate else [],
        }  # fmt: skip
        self.phases.keep(cycle, numbered("collect", exchange), Outcome(values, vectors))
        self._collecting.close()

    def collected_before(self, current: Current, cycle: int, exchange: int) -> Aggregate | None:
        """Return what was kept last before an exchange, whichever version it was about."""
        places = [(before, number) for before in range(1, cycle) for number in self._all()]
        for before, number in reversed([*places, *((cycle, number) for number in range(1, exchange))]):
            if "vector" in (kept := self._kept(before, number)).arrays:
                return _aggregate_of(self._spec(current), kept)
        return None

    def reference(self, current: Current, cycle: int, exchange: int) -> ExperienceVector:
        """Encode the server's own episodes of an exchange as a device does; not clipped."""
        played = self.rehearsed(current, cycle, exchange)
        policy = self._player(current, cycle, exchange)
        baseline, discount = self._baseline(current, played), self.config.codec.discount
        return encode(self.codec.encoder, policy, played, self._spec(current), baseline, discount)

    def mixture(self, current: Current, cycle: int) -> Mixture:
        """Return the contexts that the cycle's exchanges gave: one, or one for each part of their aggregate."""
        parts = self._parts(current, cycle)
        if len(parts) < 2:
            return Mixture.of(self.context(current, cycle))
        nothing = no_context(self.codec.encoder.dimension)
        contexts = [
            self._step(current, cycle, 1, nothing, part, f"context-part-{number}")
            for number, part in enumerate(parts, start=1)
        ]
        return Mixture.weighted(contexts, parts, self.public.plan.families)

    def context(self, current: Current, cycle: int, exchanges: int | None = None) -> TeacherContext:
        """Context after some of the exchanges, or all of them; one that gave nothing adds nothing."""
        context = no_context(self.codec.encoder.dimension)
        for exchange in range(1, (self.config.strategy.exchanges if exchanges is None else exchanges) + 1):
            if (aggregate := self._aggregate(current, cycle, exchange)) is not None:
                context = self._step(current, cycle, exchange, context, aggregate)
        return context

    def halved(self, current: Current, cycle: int, mixture: Mixture, halving: int) -> Mixture:
        """Halve every context of a mixture: a step may lead in the right direction and too far."""
        contexts = [
            self._halved(current, cycle, context, f"context-{place}-half-{halving}")
            for place, context in enumerate(mixture.contexts, start=1)
        ]
        return replace(mixture, contexts=tuple(contexts))

    def traffic(self, cycle: int) -> Traffic:
        """What the cycle's exchanges cost together: means per client, sums of counts."""
        parts = [self._kept(cycle, exchange).values for exchange in self._all()]
        refused = sum((Counter(part["refused"]) for part in parts), Counter[str]())
        # Parts of a cohort differ by one client at most. One that was silent has no say in what a client sends.
        up, down = ([part[way] for part in parts if part[way]] for way in ("uplink_bytes", "downlink_bytes"))
        accepted = sum(part["accepted"] for part in parts)
        return Traffic(_mean(up), _mean(down), accepted, dict(sorted(refused.items())))

    def cohort(self, cycle: int) -> int:
        """Clients whose vectors counted; 0 if there is no experience to learn from."""
        return sum(self._kept(cycle, exchange).values["cohort"] for exchange in self._all())

    def rehearsed(self, current: Current, cycle: int, exchange: int = 1) -> list[Trajectory]:
        """Episodes on the rehearsal games, played as the cohort plays in an exchange; in the first, without a context.

        They are played once, and again after a resume: always all of them in turn, so that what is kept of them is
        the same to the last bit.
        """
        if cycle not in self._rehearsed:
            self.learner.forget()
            self._rehearsed = {cycle: []}
        played = self._rehearsed[cycle]
        while len(played) < exchange:
            policy, purpose = self._player(current, cycle, len(played) + 1), numbered("rehearsal", len(played) + 1)
            played.append(self.public.play(policy, self.public.plan.rehearsal, purpose, cycle))
        return played[exchange - 1]

    def rehearse_all(self, current: Current, cycle: int) -> None:
        """Play what is missing of the cycle's rehearsals, as a run that was never interrupted has."""
        self.rehearsed(current, cycle, self.config.strategy.exchanges)

    def _player(self, current: Current, cycle: int, exchange: int) -> Policy:
        """Return who plays in an exchange: the current version with the context so far."""
        return self.codec.teacher(self.learner.policy(current.adapter), self.context(current, cycle, exchange - 1))

    def _step(
        self, current: Current, cycle: int, exchange: int, before: TeacherContext, aggregate: Aggregate, name: str = ""
    ) -> TeacherContext:
        def work(advance: object) -> Outcome:
            own, turns = (turns_of(self.rehearsed(current, cycle, number)) for number in (1, exchange))
            policy = self.learner.policy(current.adapter)
            seen = self._with_fisher(aggregate, self.codec.teacher(policy, before), turns)
            after = self.codec.step(seen, policy, turns, self.config.context, before)
            return self._outcome(policy, own, after)

        return self._read(self.phases.run(cycle, name or numbered("context", exchange), work))

    def _halved(self, current: Current, cycle: int, context: TeacherContext, name: str) -> TeacherContext:
        def work(advance: object) -> Outcome:
            half = replace(context, weights=context.weights / np.float32(2))
            own = turns_of(self.rehearsed(current, cycle))
            return self._outcome(self.learner.policy(current.adapter), own, half)

        return self._read(self.phases.run(cycle, name, work))

    def _outcome(self, policy: Policy, own: Sequence[Turn], context: TeacherContext) -> Outcome:
        """Keep a context, with how far it leads from the bare policy on turns that this has played."""
        kl = divergence(self.codec.teacher_log_probs(policy, own, context), own)
        values = {"kl": kl, "words": list(context.words)}
        return Outcome(values, {"weights": context.weights, "support": context.fisher})

    def _read(self, found: Outcome) -> TeacherContext:
        words = tuple(found.values.get("words", ()))
        return TeacherContext(found.arrays["weights"], found.arrays["support"], found.values["kl"], words)

    def _aggregate(self, current: Current, cycle: int, exchange: int) -> Aggregate | None:
        """What an exchange gave, and those before it that asked the same version in the same way."""
        found = self._about(current, cycle, exchange)
        return _sum(found) if found else None

    def _parts(self, current: Current, cycle: int) -> list[Aggregate]:
        """Parts of the cycle's aggregate, each with those of earlier ones about this version that are most like it."""
        if self.config.strategy.exchanges > 1:
            return []
        newest, *before = [each.parts for each in self._about(current, cycle, 1)] or [()]
        groups = [[part] for part in newest]
        for old in [part for parts in before for part in parts if groups]:
            likeness = [cosine(old.vector.gradient, part.vector.gradient) for part in newest]
            groups[int(np.argmax(likeness))].append(old)
        return [_sum(group) for group in groups]

    def _about(self, current: Current, cycle: int, exchange: int) -> list[Aggregate]:
        """Aggregates about the version that plays, newest first.

        Where a cycle promoted nothing, its experience is still that of the version that plays: it is not thrown away.
        """
        asked = [self._kept(cycle, exchange)]
        if exchange == 1:  # later ones were played under a context of their own
            for before in range(cycle - 1, 0, -1):
                if (kept := self._kept(before, 1)).values.get("version") != current.version:
                    break
                asked.append(kept)
        return [_aggregate_of(self._spec(current), kept) for kept in asked if "vector" in kept.arrays]

    def _with_fisher(self, aggregate: Aggregate, policy: Policy, turns: Sequence[Turn]) -> Aggregate:
        """Fill in a Fisher diagonal that the cohort was not asked for, from as many public games as it played."""
        if aggregate.vector.fisher.any() or not aggregate.vector.spec.dimension:
            return aggregate
        valid = [turn for turn in turns if turn.valid]
        _, fisher = self.codec.encoder.gradient_and_fisher(policy, valid, np.zeros(len(valid)))
        games, clients = self.config.games, self.config.clients
        played = aggregate.cohort * fmean(amounts(games.per_client, clients, games.amounts, self.config.seed))
        scale = played / len(self.public.plan.rehearsal)
        return replace(aggregate, vector=replace(aggregate.vector, fisher=(scale * fisher).astype(np.float32)))

    def _kept(self, cycle: int, exchange: int) -> Outcome:
        return self.phases.load(cycle, numbered("collect", exchange))

    def _all(self) -> range:
        return range(1, self.config.strategy.exchanges + 1)

    def _baseline(self, current: Current, played: Sequence[Trajectory]) -> Vector:
        """Mean return-to-go by family and step, shape (families, horizon)."""
        return count(played, self._spec(current), self.config.codec.discount).baseline()

    def _spec(self, current: Current) -> VectorSpec:
        return spec_of(self.config, self.codec.encoder, self.public.plan, current.version)


def spec_of(config: RunConfig, encoder: Encoder, plan: GamePlan, version: str) -> VectorSpec:
    """Return the vector that a run asks for about a policy version."""
    return VectorSpec(
        encoder.name, encoder.dimension, encoder.vocabulary, version, plan.families, plan.horizon,
        config.codec.clipping_norm, config.codec.fisher_norm,
    )  # fmt: skip


def _aggregate_of(spec: VectorSpec, kept: Outcome) -> Aggregate:
    """Read an aggregate back."""
    vectors = {name: ExperienceVector.unchecked(spec, array) for name, array in kept.arrays.items()}
    cohorts = kept.values.get("parts", ())
    parts = tuple(Aggregate(vectors[f"part-{number}"], cohort) for number, cohort in enumerate(cohorts))
    words = tuple(kept.values.get("words", ()))
    return Aggregate(vectors["vector"], kept.values["cohort"], kept.values["noise"], parts, words)


def _sum(aggregates: Sequence[Aggregate]) -> Aggregate:
    """Add aggregates up, newest first; their words stand in the order in which they came."""
    vector, words = total(each.vector for each in aggregates), [each.words for each in reversed(aggregates)]
    cohort, noise = sum(each.cohort for each in aggregates), sum(each.noise for each in aggregates)
    return Aggregate(vector, cohort, noise, words=tuple(chain.from_iterable(words)))


def numbered(name: str, exchange: int) -> str:
    """Name of an exchange's phase: the first needs no number."""
    return name if exchange == 1 else f"{name}-{exchange}"


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
