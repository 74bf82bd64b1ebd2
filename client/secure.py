"""The device's five phases of a secure sum. A round's secrets are in the state of the Flower node and nowhere else.

This state lives as long as the node's process. A node that restarts loses its secrets and has thereby dropped out of
the round: nobody can make it continue, and what it had masked stays masked.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from flwr.app import Context, RecordDict

from ..protocol.errors import SecureSumError
from ..protocol.experience import ExperienceVector
from ..protocol.fleet.membership import Membership
from ..protocol.fleet.trust import MASKED, Asked, Trust
from ..protocol.messages import PlayRequest, request_from_records
from ..protocol.privacy.plan import PrivacyPlan
from ..protocol.secagg import device
from ..protocol.secagg.device import Round
from ..protocol.secagg.masks import Cells, cell_type
from ..protocol.secagg.messages import (
    Exchange,
    Step,
    reply_records,
    round_from_record,
    round_to_record,
    step_from_records,
    subject,
    without_step,
)
from ..protocol.secagg.terms import Terms
from ..protocol.trials import TrialTerms, is_trial
from .contributions import Contribution, Contributions, Unrecorded

STATE = "secure-sum"  # name of the record in the node's state
Play = Callable[[PlayRequest, str], ExperienceVector]
"""Plays the games of a request for a run of this name, and encodes them."""


@dataclass(frozen=True, slots=True)
class Guard:
    """What a device holds a round to.

    Parameters
    ----------
    trust
        What the device's owner allows.
    contributions
        Where it writes down what it gives.
    codec
        Name of the run's codec.
    """

    trust: Trust = field(default_factory=Trust)
    contributions: Contributions = field(default_factory=Unrecorded)
    codec: str = ""

    def check(self, terms: Terms, noise: float | None = None) -> None:
        """Check a round before anything is loaded for it; raises `TrustError`."""
        self.trust.check(Asked(MASKED, self.codec, terms.minimum, noise))

    def of(self, terms: Terms) -> Guard:
        """Return what holds for a round: a trial may have a smallest cohort of its own."""
        return replace(self, trust=self.trust.for_trial()) if Exchange.of(terms).of_trial else self

    def noisy(self, state: Round) -> int:
        """Return of how many devices' noise there is in every sum that this device's vector can be in.

        Every device that helps to open a sum has checked that it has as many members as the terms say. Which of them
        add noise depends on them. Where the owner names the devices that he knows, only these count, and whether
        the others have such a list as well cannot be told. A threshold of this device's neighbours helps to open its
        own mask, all of which are in the sum but strangers: so the known ones among them add noise, and itself.
        """
        terms = state.terms
        if not self.trust.known:
            return max(self.trust.least_cohort, terms.minimum)
        return 1 + max(0, terms.threshold - self.trust.count_strangers(device.neighbours_keys(state)))


def answer_step(
    phase: str,
    records: RecordDict,
    context: Context,
    member: Membership,
    play: Play,
    guard: Guard | None = None,
) -> RecordDict:
    """Answer one phase of a round, and keep the state that the next phase needs.

    Parameters
    ----------
    play
        Called in the phase ``masked``.
    guard
        What the device holds the round to; by default nothing but what its secrecy depends on.

    Raises
    ------
    SecureSumError
        If the step is malformed, out of order, or would weaken the device's secrecy.
    TrustError
        If the owner does not allow it, or the device has contributed to this exchange already.
    """
    step, guard = step_from_records(records), guard or Guard()
    state = _begin(step, context, member, guard) if phase == "keys" else _current(step, context)
    guard = guard.of(state.terms)
    least, repeated = guard.trust.least_cohort, phase in state.request_digests
    if phase != "keys":
        guard.contributions.check_current(state.terms)
    if phase == "shares":
        state = device.share(state, step.body, member.renewed(step.extra.decode("ascii", "replace")).members, least)
        if not repeated:
            guard.trust.check_known(device.cohort_keys(state))
            guard.contributions.share(state.terms, guard.trust)
    elif phase == "masked":
        state = _mask(state, step, records, play, guard, member)
    elif phase == "confirm":
        state = device.confirm(state, member.identity, step.body, least)
        if not repeated:
            guard.trust.check_known(device.survivors_keys(state, step.body))
        guard.contributions.confirm(state.terms, step.body)
    elif phase == "unmask":
        state = device.unmask(state, step.body, step.extra)
    context.state[STATE] = round_to_record(state)
    return reply_records(state.replies[phase])


def _begin(step: Step, context: Context, member: Membership, guard: Guard) -> Round:
    """Begin a round, or return the current one if it is asked for again.

    Raises
    ------
    VersionError
        If the fleet's owner has not signed the terms.
    SecureSumError
        If the device has already been in a round of this run with the same or a larger number.
    TrustError
        If the owner does not allow the round, or so many, or the device has helped to open one for the same exchange.
    """
    member.check_terms(step.body, step.extra[2:])
    terms, position = Terms.from_json(step.body.decode("utf-8", "replace")), int.from_bytes(step.extra[:2], "big")
    guard = guard.of(terms)
    guard.check(terms)
    last = _last_round(context)
    if last is not None:
        if last.terms == terms and last.position == position:
            return last
        if last.terms.run == terms.run and last.terms.number >= terms.number:
            raise SecureSumError(f"round {terms.number} is over for this device, which has been in one as late")
    state = device.advertise(member.identity, terms, position, guard.trust.least_cohort, guard.trust.colluding)
    guard.contributions.begin(terms, guard.trust)
    return state


def _current(step: Step, context: Context) -> Round:
    """Return the round that a step belongs to; raises `SecureSumError` if the device is not in it."""
    state = _last_round(context)
    if state is None or state.terms.digest != step.round:
        raise SecureSumError("this device takes part in another round, or in none")
    return state


def _mask(state: Round, step: Step, records: RecordDict, play: Play, guard: Guard, member: Membership) -> Round:
    """Play, encode, protect and mask; a repeated request gets the answer that it had before.

    The contribution is written down after it was played and before it leaves the device.
    """
    terms = state.terms

    def vector() -> Cells:
        request = request_from_records(without_step(records))
        plan = PrivacyPlan.from_json(step.extra.decode("utf-8", "replace"))
        _check_terms(terms, request, plan)
        noise = plan.noise_of(guard.noisy(state))
        guard.check(terms, noise)
        asked_by = f"{member.fleet} {request.serial}"
        contribution = Contribution.masked(state, asked_by, noise, plan.loss_of_sum(terms.cohort))
        guard.contributions.check(contribution, guard.trust)
        cells = protected(play(request, terms.run), plan)
        guard.contributions.add(contribution, guard.trust)
        return cells

    return device.mask(state, step.body, vector, guard.trust.least_cohort)


def protected(vector: ExperienceVector, plan: PrivacyPlan) -> Cells:
    """Clip a vector, add this device's share of the noise, and quantise it to cells modulo ``2**bits``."""
    return plan.encode(vector.parts()).astype(cell_type(plan.bits))


def _check_terms(terms: Terms, request: PlayRequest, plan: PrivacyPlan) -> None:
    """Check that request and privacy plan are those of the round's terms; raises `SecureSumError` if not."""
    if terms.subject != subject(request, plan) or (terms.cells, terms.bits) != (plan.cells, plan.bits):
        raise SecureSumError("the vector that is asked for is not the one that this round was agreed for")
    if terms.minimum < plan.minimum or terms.cohort > plan.cohort:
        raise SecureSumError("the round may end with fewer survivors, or more devices, than its privacy plan allows")
    if is_trial(request.spec) and not (plan.noise_multiplier or TrialTerms.of(request.spec).detailed):
        raise SecureSumError("a trial that is to be answered once for each request needs noise")
    if any(request.spec.sizes.get(part.name) != part.size for part in plan.parts):
        raise SecureSumError("the privacy plan speaks of parts that the vector does not have")
    if any(request.spec.norms[part.name] != part.norm for part in plan.parts):
        raise SecureSumError("the privacy plan clips to other norms than the vector's specification")


def _last_round(context: Context) -> Round | None:
    """Read the last round that the device began, if its node still has the state."""
    record = context.state.get(STATE)
    return None if record is None else round_from_record(record)  # type: ignore[arg-type]
