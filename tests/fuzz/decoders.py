"""Every decoder of bytes that come from the network, as a function of bytes that may raise `FedoelError` and no more.

What is signed is signed here, after the fuzzer has chosen it: whoever has the fleet's key is not believed either.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType, SimpleNamespace
from typing import cast

import numpy as np
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, RecordDict
from safetensors.numpy import save

from fedoel import simulations as packs
from fedoel.client.secure import answer_step
from fedoel.protocol.config import RunConfig
from fedoel.protocol.errors import FedoelError
from fedoel.protocol.experience import VectorSpec
from fedoel.protocol.fleet.enrolment import Bundle, bundle_from_text, card_from_text, sign_bundle, sign_card, to_text
from fedoel.protocol.fleet.log import EMPTY, LEAF, Witness
from fedoel.protocol.fleet.membership import PURPOSE, read_members, sign_members
from fedoel.protocol.fleet.succession import Succession, leads_to
from fedoel.protocol.messages import (
    request_from_records,
    request_to_records,
    take_notice_from,
    vector_from_reply,
    with_notice,
    words_from_reply,
)
from fedoel.protocol.privacy.plan import PrivacyPlan
from fedoel.protocol.prompt_pack import pack_from_bytes
from fedoel.protocol.release import RELEASE, check_server, talks
from fedoel.protocol.secagg import device
from fedoel.protocol.secagg.messages import Exchange, Step, exchange_of, reply_from_records, step_from_records
from fedoel.protocol.secagg.server import ServerRound
from fedoel.protocol.secagg.terms import Terms
from fedoel.protocol.signing import check_head, check_notice, sign_head, sign_notice, sign_terms
from fedoel.protocol.trials import TrialTerms, fallbacks_of, health_of, is_trial, sums_of
from fedoel.protocol.versions import Manifest
from fedoel.server.operate.certificates import certificate_to_pem, make_authority, make_key
from fedoel.server.registry import WEIGHTS, load_adapter
from fedoel.strategies.replies import failure

from .parts import (
    EXTRACT,
    FLEET_KEY,
    IDENTITIES,
    KEY,
    MEMBER,
    MEMBERS,
    NOTICE,
    PLAN,
    REQUEST,
    SPEC,
    TERMS,
    TRIAL,
    advertised,
    confirmations,
    context_of,
    never,
    played,
    round_of_five,
)

CORPUS, LARGEST = Path(__file__).parent / "corpus", 5_000
PACK = Path(packs.__file__).parent / "packs" / "82e39fff44ff0037.jsonl"


def text_of(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def terms(data: bytes) -> None:
    """Terms of a secure sum, and what a device does first with them."""
    read = Terms.from_json(text_of(data))
    Exchange.of(read)
    device.advertise(IDENTITIES[0], read, 0)


def plan(data: bytes) -> None:
    """A privacy plan, and what a device does with one before it plays."""
    read = PrivacyPlan.from_json(text_of(data))
    read.noise_of(3)
    read.loss_of_sum(5)
    if read.cells <= 64:
        read.encode({part.name: np.ones(part.size) for part in read.parts})


def spec(data: bytes) -> None:
    """The specification of a vector, which may be one of a trial."""
    read = VectorSpec.from_json(text_of(data))
    if is_trial(read):
        TrialTerms.of(read)


def request(data: bytes) -> None:
    """A request with one field replaced: the first byte says which one."""
    records = request_to_records(REQUEST)
    number, body = data[:1] or b"\0", data[1:]
    fields = records.config_records["request"]
    names = [*fields, *(name for name in records if name != "request")]
    name = names[number[0] % len(names)]
    if name in fields:
        value = fields[name]
        fields[name] = body if isinstance(value, bytes) else text_of(body) if isinstance(value, str) else len(body)
    else:
        records[name] = ArrayRecord({name: Array("float32", (1,), "numpy.ndarray", body)})
    exchange_of(request_from_records(records))


def vector(data: bytes) -> None:
    """A vector by itself: the bytes of its array. The first byte says whether it is one of a trial."""
    expected = TRIAL if data[:1] == b"\1" else SPEC
    array = Array("float32", (expected.size,), "numpy.ndarray", data[1:])
    records = RecordDict({"experience": ArrayRecord({expected.digest: array})})
    read = vector_from_reply(records, expected, noisy=True)
    if expected is TRIAL:
        sums_of(read)
        fallbacks_of(read)
        health_of(read)
    else:
        PLAN.check(read)


def words(data: bytes) -> None:
    """The texts of a codec that sends words."""
    lines = text_of(data).split("\n")
    records = RecordDict({"words": ConfigRecord({"words": lines})})
    words_from_reply(records, replace(SPEC, dimension=0))


def members(data: bytes) -> None:
    """A list of members that the fleet's key has signed, whatever it says; and an unsigned one."""
    body = text_of(data).strip()
    read_members(FLEET_KEY, f"{KEY.sign(PURPOSE + body.encode()).hex()}\n{body}\n")


def unsigned_members(data: bytes) -> None:
    """A list of members with its signature, as it comes."""
    read_members(FLEET_KEY, text_of(data))


def bundle(data: bytes) -> None:
    """A fleet's bundle."""
    bundle_from_text(text_of(data))


def card(data: bytes) -> None:
    """A device's public keys."""
    card_from_text(text_of(data))


def prompts(data: bytes) -> None:
    """A pack of prompts."""
    pack_from_bytes(data, "pack")


def manifest(data: bytes) -> None:
    """A version's manifest."""
    Manifest.from_json(text_of(data))


def adapter(data: bytes) -> None:
    """A version's weights."""
    with TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
        (Path(folder) / WEIGHTS).write_bytes(data)
        load_adapter(Path(folder))


def run_config(data: bytes) -> None:
    """The configuration of a run, which Flower brings unsigned."""
    try:
        values = json.loads(text_of(data))
    except (ValueError, RecursionError):
        return
    if isinstance(values, dict) and all(isinstance(value, bool | int | float | str) for value in values.values()):
        RunConfig.from_flat(values)


def step(data: bytes) -> None:
    """A step of a secure sum, in every phase of a round that has come so far."""
    records = RecordDict({"secure": Step(TERMS.digest, data[:64], data[64:]).to_record()})
    step_from_records(records)
    state = device.advertise(IDENTITIES[0], TERMS, 0)
    device.share(state, data, MEMBERS)


def incoming(data: bytes) -> None:
    """Shares and sets of survivors that a device gets, each behind the phases before it."""
    shared, masked, _ = round_of_five()
    phases: tuple[Callable[[], object], ...] = (
        lambda: device.mask(shared, data, lambda: np.zeros(4, np.uint16)),
        lambda: device.unmask(device.confirm(masked, IDENTITIES[0], b"\xf8"), b"\xf8", data),
        lambda: device.confirm(masked, IDENTITIES[0], data),
    )
    for phase in phases:
        try:
            phase()
        except FedoelError:
            continue


def replies(data: bytes) -> None:
    """What a device answers in each phase, on the server."""
    server = ServerRound(TERMS, MEMBERS)
    reply = reply_from_records(RecordDict({"secure": ConfigRecord({"reply": data})}))
    takes = (server.take_keys, server.take_shares, server.take_masked, server.take_opened)
    for take in takes:
        try:
            take(0, reply)
        except FedoelError:
            continue


def log(data: bytes) -> None:
    """The part of the fleet's log that comes with a request, one field of it replaced, as a device checks it."""
    records, number, body = request_to_records(replace(REQUEST, log=EXTRACT)), data[:1] or b"\0", data[1:]
    _replace(records.config_records["log"], number[0], body)
    extract = request_from_records(records).log
    assert extract is not None
    check_head(FLEET_KEY, sign_head(KEY, extract.heads[-1]), extract.heads[-1])
    Witness(EMPTY).after(extract, extract.leaves[:LEAF], extract.leaves[-LEAF:], extract.leaves[LEAF : 2 * LEAF])


def notice(data: bytes) -> None:
    """A notice that comes with any message, one field of it replaced; and its acknowledgement."""
    records, number, body = with_notice(RecordDict(), NOTICE), data[:1] or b"\0", data[1:]
    _replace(records.config_records["notice"], number[0], body)
    read = take_notice_from(records)
    assert read is not None
    check_notice(FLEET_KEY, sign_notice(KEY, read))
    NOTICE.check_replaceable_by(read)
    str(read)


def succession(data: bytes) -> None:
    """The steps from one key of the fleet to the next."""
    leads_to(text_of(data), FLEET_KEY.hex(), FLEET_KEY.hex())


def release(data: bytes) -> None:
    """The release of a server or a device, and why a device has failed."""
    talks(text_of(data))
    failure(cast(Message, SimpleNamespace(error=Error(code=0, reason=text_of(data)))))
    check_server(text_of(data))


def opening(data: bytes) -> None:
    """The first message of a secure sum, with terms that the fleet's key has signed whatever they say."""
    extra, body = (data[1:3], data[3:]) if data[:1] == b"\1" else (b"\0\0", data[1:])
    step = Step(TERMS.digest, body, extra + sign_terms(KEY, body))
    answer_step("keys", RecordDict({"secure": step.to_record()}), context_of(None), MEMBER, never)


def unsigned_opening(data: bytes) -> None:
    """The same with the signature, as it comes."""
    step = Step(TERMS.digest, TERMS.to_json().encode(), data)
    answer_step("keys", RecordDict({"secure": step.to_record()}), context_of(None), MEMBER, never)


def later(data: bytes) -> None:
    """The other messages of a secure sum to a device: the first byte says which one, and what of it is replaced."""
    shared, masked, request = round_of_five()
    phase, of_extra = ("shares", "masked", "confirm", "unmask")[data[0] % 4 if data else 0], data[:1] > b"\x7f"
    body = {"shares": shared.secrets["adverts"], "masked": request, "confirm": b"\xf8", "unmask": b"\xf8"}[phase]
    extra = {"shares": b"", "masked": PLAN.to_json().encode()}.get(phase, b"")
    step = Step(TERMS.digest, body, data[1:]) if of_extra else Step(TERMS.digest, data[1:], extra)
    records = request_to_records(REQUEST) if phase == "masked" else RecordDict()
    records["secure"] = step.to_record()
    confirmed = device.confirm(masked, IDENTITIES[0], b"\xf8")
    state = {"shares": advertised(), "masked": shared, "confirm": masked, "unmask": confirmed}[phase]
    answer_step(phase, records, context_of(state), MEMBER, played)


DECODERS: Mapping[str, Callable[[bytes], None]] = MappingProxyType(
    {
        made.__name__: made
        for made in (
            terms, plan, spec, request, vector, words, members, unsigned_members, bundle, card, prompts, manifest,
            adapter, run_config, step, incoming, replies, log, notice, succession, release, opening, unsigned_opening,
            later,
        )
    }
)  # fmt: skip


def decode(name: str, data: bytes) -> None:
    """Give bytes to a decoder, which may refuse them with an error of our own."""
    try:
        DECODERS[name](data)
    except FedoelError:
        return


def examples() -> dict[str, list[bytes]]:
    """Return well-formed bytes for every decoder, from which a fuzzer starts."""
    weights = save({"weights": np.ones(3, np.float16)})
    records = request_to_records(REQUEST)
    names = [*records.config_records["request"], *(name for name in records if name != "request")]
    fields = [b"" if name in ("cycle", "exchange", "serial") else _field(records, name) for name in names]
    vectors = [Array.from_numpy_ndarray(np.zeros(of.size, np.float32)).data for of in (SPEC, TRIAL)]
    listed = sign_members(KEY, 3, sorted(MEMBERS))
    flat = RunConfig().to_flat()
    shared, masked, incoming_shares = round_of_five()
    authority = make_key()
    certificate = certificate_to_pem(make_authority(authority)).decode()
    bundled = sign_bundle(
        authority, Bundle("kitchen", 4, "fleet.example.org:443", certificate, FLEET_KEY.hex(), listed)
    )
    public = (
        ec.generate_private_key(ec.SECP384R1())
        .public_key()
        .public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
        .decode()
    )
    return {
        "bundle": [to_text(bundled).encode()],
        "card": [to_text(sign_card(KEY, "kitchen", public)).encode()],
        "prompts": [b"".join(PACK.read_bytes().splitlines(keepends=True)[:3])],
        "manifest": [Manifest("v", "p", "b", 1, "tactics", (), 4, None).to_json().encode()],
        "terms": [TERMS.to_json().encode()],
        "plan": [PLAN.to_json().encode()],
        "spec": [SPEC.to_json().encode(), TRIAL.to_json().encode()],
        "request": [bytes([n]) + field for n, field in enumerate(fields)],
        "vector": [bytes([n]) + array for n, array in enumerate(vectors)],
        "words": [b"one\ntwo"],
        "members": [listed.partition("\n")[2].encode()],
        "unsigned_members": [listed.encode()],
        "adapter": [weights],
        "run_config": [json.dumps({name: value}).encode() for name, value in list(flat.items())[:8]],
        "step": [shared.secrets["adverts"]],
        "incoming": [incoming_shares, b"\xf8"],
        "log": [bytes([n]) + value for n, value in enumerate((b"", EXTRACT.start.digest, EXTRACT.leaves, b"s"))],
        "notice": [b"\x04signed", b"\0" + (3).to_bytes(8, "big")],
        "succession": [str(Succession.signed(KEY, FLEET_KEY)).encode()],
        "release": [RELEASE.sent.encode()],
        "opening": [b"\0" + TERMS.to_json().encode(), b"\1\0\1" + TERMS.to_json().encode()],
        "unsigned_opening": [b"\0\0" + sign_terms(KEY, TERMS.to_json().encode())],
        "later": [
            b"\0" + shared.secrets["adverts"],
            b"\x80",
            b"\1" + incoming_shares,
            b"\x81" + PLAN.to_json().encode(),
            b"\2\xf8",
            b"\x83" + confirmations(),
            b"\x80" + listed.encode(),
        ],
        "replies": [masked.replies[phase] for phase in ("keys", "shares", "masked")],
    }


def _replace(fields: ConfigRecord, number: int, body: bytes) -> None:
    """Replace the value of a field by another one of its type, which bytes determine."""
    name = list(fields)[number % len(fields)]
    value = fields[name]
    number = int.from_bytes(body[:8], "big", signed=True)
    of_type: dict[type, bool | int | str | bytes] = {
        bool: bool(body[:1]), int: number, str: text_of(body), bytes: body
    }  # fmt: skip
    fields[name] = of_type[type(value)]


def _field(records: RecordDict, name: str) -> bytes:
    fields = records.config_records["request"]
    if name in fields:
        value = fields[name]
        return value if isinstance(value, bytes) else str(value).encode()
    return next((array.data for array in records.array_records[name].values()), b"")


def corpus(name: str) -> list[bytes]:
    """Return the inputs that are kept for a decoder: a line of base64 each."""
    path = CORPUS / f"{name}.txt"
    return [base64.b64decode(line) for line in path.read_text("ascii").split()] if path.exists() else []


def keep(name: str, inputs: Iterable[bytes]) -> None:
    """Keep inputs beside those that are kept, the shortest ones first, up to `LARGEST` bytes."""
    kept, size = list[str](), 0
    for data in sorted({*corpus(name), *inputs}, key=lambda data: (len(data), data)):
        line = base64.b64encode(data).decode()
        if (size := size + len(line) + 1) <= LARGEST:
            kept.append(line)
    (CORPUS / f"{name}.txt").write_text("\n".join(kept) + "\n", encoding="ascii")
