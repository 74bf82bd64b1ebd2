"""A device's verbs of the secure sum: five phases, with the round's secrets in Flower's state and nowhere else.

The state of a node lives as long as the node. One that was restarted has no secrets, has dropped out, and nobody can
make it take a round up again: what it had masked stays masked.
"""

from __future__ import annotations

from collections.abc import Callable

from flwr.app import Context, RecordDict

from ..protocol.errors import SecureSumError
from ..protocol.experience import ExperienceVector
from ..protocol.fleet.membership import Membership
from ..protocol.messages import PlayRequest, request_from_records
from ..protocol.privacy.plan import PrivacyPlan
from ..protocol.secagg import device
from ..protocol.secagg.device import Round
from ..protocol.secagg.masks import Cells, cell_type
from ..protocol.secagg.messages import Step, reply_records, step_from_records, subject, without_step
from ..protocol.secagg.state import round_from_record, round_to_record
from ..protocol.secagg.terms import Terms

STATE, LEAST = "secure-sum", "min-cohort"
Play = Callable[[PlayRequest], ExperienceVector]


def answer_step(phase: str, records: RecordDict, context: Context, member: Membership, play: Play) -> RecordDict:
    """Answer one phase of a round, and keep what the next one needs.

    Parameters
    ----------
    play
        Plays what is asked and encodes it, for the phase that needs a vector.

    Raises
    ------
    SecureSumError
        If the step is malformed, out of order, or would cost the device its secrecy.
    """
    step = step_from_records(records)
    state = _begin(step, context, member) if phase == "keys" else _under_way(step, context)
    if phase == "shares":
        state = device.share(state, step.body, member.renewed(step.extra.decode("ascii", "replace")).members)
    elif phase == "masked":
        state = _mask(state, step, records, play)
    elif phase == "confirm":
        state = device.confirm(state, member.identity, step.body)
    elif phase == "unmask":
        state = device.unmask(state, step.body, step.extra)
    context.state[STATE] = round_to_record(state)
    return reply_records(state.replies[phase])


def _begin(step: Step, context: Context, member: Membership) -> Round:
    """Begin a round, or answer again for the one that is under way; never for one that is over."""
    terms, before = Terms.from_json(step.body.decode("utf-8", "replace")), _kept(context)
    if before is not None:
        if before.terms == terms and before.position == int.from_bytes(step.extra, "big"):
            return before
        if before.terms.run == terms.run and before.terms.number >= terms.number:
            raise SecureSumError(f"round {terms.number} is over for this device, which has been in one as late")
    least = context.node_config.get(LEAST, 2)
    return device.advertise(member.identity, terms, int.from_bytes(step.extra, "big"), int(least))


def _under_way(step: Step, context: Context) -> Round:
    """The round that a step belongs to."""
    state = _kept(context)
    if state is None or state.terms.digest != step.round:
        raise SecureSumError("this device takes part in another round, or in none")
    return state


def _mask(state: Round, step: Step, records: RecordDict, play: Play) -> Round:
    """Play, protect and mask, unless that was done for this very request."""

    def vector() -> Cells:
        request, plan = request_from_records(without_step(records)), PrivacyPlan.from_json(step.extra.decode())
        _check(state.terms, request, plan)
        return protected(play(request), plan)

    return device.mask(state, step.body, vector)


def protected(vector: ExperienceVector, plan: PrivacyPlan) -> Cells:
    """Clip a vector, add this device's share of the noise, and write it as cells modulo ``2**bits``."""
    return plan.encode(vector.parts()).astype(cell_type(plan.bits))


def _check(terms: Terms, request: PlayRequest, plan: PrivacyPlan) -> None:
    """Refuse a plan or a vector that the round was not agreed for."""
    if terms.subject != subject(request.spec.digest, plan) or (terms.cells, terms.bits) != (plan.cells, plan.bits):
        raise SecureSumError("the vector that is asked for is not the one that this round was agreed for")
    if terms.minimum < plan.minimum or terms.cohort > plan.cohort:
        raise SecureSumError("the round may end with fewer survivors, or more devices, than its privacy plan allows")
    if any(request.spec.sizes.get(part.name) != part.size for part in plan.parts):
        raise SecureSumError("the privacy plan speaks of parts that the vector does not have")
    if any(request.spec.norms[part.name] != part.norm for part in plan.parts):
        raise SecureSumError("the privacy plan clips to other norms than the vector's specification")


def _kept(context: Context) -> Round | None:
    record = context.state.get(STATE)
    return None if record is None else round_from_record(record)  # type: ignore[arg-type]
