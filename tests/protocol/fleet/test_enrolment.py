"""Cards, bundles and lists of members survive serialisation, and changed ones are refused."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import example, given
from hypothesis import strategies as st

from fedoel.protocol.errors import EnrolmentError, VersionError
from fedoel.protocol.fleet.enrolment import (
    Bundle,
    Card,
    bundle_from_text,
    card_from_text,
    check_address,
    sign_bundle,
    sign_card,
    to_text,
)
from fedoel.protocol.fleet.membership import read_members, sign_members
from fedoel.protocol.settings import Scalar
from fedoel.server.operate.certificates import certificate_to_pem, make_authority, make_key

OWNER, DEVICE = (Ed25519PrivateKey.from_private_bytes(bytes([n]) * 32) for n in (1, 2))
FLEET = OWNER.public_key().public_bytes_raw()
AUTHORITY, STRANGER = make_key(), make_key()
CA = certificate_to_pem(make_authority(AUTHORITY))


def node_key(curve: ec.EllipticCurve) -> str:
    public = ec.generate_private_key(curve).public_key()
    return public.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


NODE = node_key(ec.SECP384R1())
names = st.from_regex(r"[a-z0-9][a-z0-9-]{0,31}", fullmatch=True)


def bundle() -> Bundle:
    plain = Bundle("kitchen", 4, "fleet.example.org:443", CA.decode(), FLEET.hex(), sign_members(OWNER, 3, [bytes(32)]))
    return sign_bundle(AUTHORITY, plain)


def test_a_bundle_of_an_earlier_release_is_read_and_names_no_device() -> None:
    plain = bundle()
    named = sign_bundle(AUTHORITY, replace(plain, identity=bytes(32).hex()))
    assert "identity" not in to_text(plain) and bundle_from_text(to_text(plain)) == plain
    assert bundle_from_text(to_text(named)).identity == bytes(32).hex()
    without = "".join(line for line in to_text(named).splitlines(True) if not line.startswith("identity"))
    with pytest.raises(EnrolmentError, match="was changed on its way"):
        bundle_from_text(without)


@given(names)
def test_a_card_survives_serialisation(name: str) -> None:
    card = sign_card(DEVICE, name, NODE)
    assert card_from_text(to_text(card)) == card


def test_a_card_of_an_identity_of_low_order_is_refused() -> None:
    """One signature of the neutral point holds for every message (`tests/protocol/secagg/test_parts.py`)."""
    neutral = b"\1" + bytes(31)
    card = replace(sign_card(DEVICE, "kitchen", NODE), identity=neutral.hex(), signature=(neutral + bytes(32)).hex())
    with pytest.raises(EnrolmentError, match="copy the file again"):
        card_from_text(to_text(card))


@given(st.integers(0, 2000), st.integers(1, 255))
@example(192, 1)  # a compressed point in the node's key
def test_a_card_or_bundle_that_was_changed_is_refused(position: int, change: int) -> None:
    """Any byte may change; a change of comments, or of the case of hexadecimal digits, has no effect."""
    for text, read in ((to_text(sign_card(DEVICE, "kitchen", NODE)), card_from_text), (TEXT, bundle_from_text)):
        data = bytearray(text.encode())
        data[position % len(data)] ^= change
        try:
            file = read(data.decode("utf-8", "replace"))
        except EnrolmentError:
            continue
        assert replace(file, signature="") == replace(read(text), signature="")


TEXT = to_text(bundle())


def test_a_bundle_survives_serialisation_and_another_authority_is_refused() -> None:
    signed = bundle()
    assert bundle_from_text(to_text(signed)) == signed == bundle_from_text(to_text(signed), CA)
    other = certificate_to_pem(make_authority(STRANGER))
    with pytest.raises(EnrolmentError, match="another authority"):
        bundle_from_text(to_text(signed), other)
    forged = sign_bundle(STRANGER, signed)  # contains the true certificate, but is signed by another key
    with pytest.raises(EnrolmentError, match="changed on its way"):
        bundle_from_text(to_text(forged), CA)


EXCHANGES = {
    "number = 4": "number = 5",
    "kitchen": "cellar",
    "fleet.example.org": "evil.example.org",
    'model = ""': f'model = "{"a" * 64}"',
}


@pytest.mark.parametrize("before", EXCHANGES)
def test_a_changed_field_of_a_bundle_is_refused(before: str) -> None:
    assert before in TEXT
    with pytest.raises(EnrolmentError, match="changed on its way"):
        bundle_from_text(TEXT.replace(before, EXCHANGES[before]))


@pytest.mark.parametrize("text", ["", "nonsense", "name = 3", TEXT + 'more = "x"\n', "name = 'x'\n" * 2, "\0"])
def test_other_files_are_refused(text: str) -> None:
    for read in (card_from_text, bundle_from_text):
        with pytest.raises(EnrolmentError):
            read(text)


@pytest.mark.parametrize("key", [node_key(ec.SECP256R1()), "ssh-ed25519 AAAA", "", f"{NODE}\n{NODE}"])
def test_keys_of_another_kind_are_refused(key: str) -> None:
    with pytest.raises(EnrolmentError, match="P-384"):
        Card("kitchen", key, FLEET.hex())


@pytest.mark.parametrize("name", ["", "Kitchen", "a b", "-a", "a" * 33, "../x", "ä"])
def test_names_are_plain(name: str) -> None:
    with pytest.raises(EnrolmentError, match="no name for a device"):
        sign_card(DEVICE, name, NODE)


def test_addresses() -> None:
    assert check_address("fleet.example.org:443") == ("fleet.example.org", 443)
    assert check_address("[::1]:8443") == ("::1", 8443)
    for host in ("localhost", "192.0.2.7", "FLEET.Example.ORG.", "xn--tr-xka.example", "a-1.b2", f"{'a' * 63}.example"):
        assert check_address(f"{host}:1") == (host, 1)
    for wrong in (
        "fleet",
        "fleet:",
        "fleet:0",
        "fleet:70000",
        "a b:1",
        "a..b:1",
        "-a:1",
        "1.2.3:4",
        "999.9.9.9:1",
        "[1:2]:3",
        f"{'a' * 64}.example:1",
        f"{'a.' * 127}a:1",
    ):
        with pytest.raises(EnrolmentError, match=r"HOST:PORT.* with a port from 1 to 65535"):
            check_address(wrong)
    for wrong, how in (
        ("::1:443", r"brackets, \[::1\]:443"),
        ("https://fleet:1", "without what is in front of"),
        ("[fe80::1%eth0]:443", "zone is known to one machine only"),
        ("tür.example:443", "ASCII form, xn--"),
    ):
        with pytest.raises(EnrolmentError, match=rf"HOST:PORT.*{how}"):
            check_address(wrong)


@given(st.integers(0, 2**31), st.lists(st.binary(min_size=32, max_size=32), max_size=5, unique=True))
def test_a_list_of_members_survives_serialisation(number: int, members: list[bytes]) -> None:
    read = read_members(FLEET, sign_members(OWNER, number, members))
    assert (read.number, read.identities) == (number, frozenset(members))


def test_unsigned_lists_of_members_are_refused() -> None:
    text = sign_members(OWNER, 3, [bytes(32)])
    stranger = sign_members(DEVICE, 3, [bytes(32)])
    for wrong in (re.sub('"number": 3', '"number": 9', text), stranger, "", text.splitlines()[1], text[:-20]):
        with pytest.raises(VersionError, match="fetch it again"):
            read_members(FLEET, wrong)


def test_a_bundle_carries_a_proposal_which_is_signed_and_checked() -> None:
    proposal: dict[str, Scalar] = {
        "verbs": "masked",
        "least-cohort": 4,
        "least-noise": 0.5,
        "delta": 1e-6,
        "epsilon-a-year": 8.0,
    }
    proposing = sign_bundle(AUTHORITY, replace(bundle(), trust=proposal))
    text = to_text(proposing)
    assert bundle_from_text(text) == proposing and bundle_from_text(text).trust == proposal
    for looser in (text.replace("least-cohort = 4", "least-cohort = 2"), text[: text.index("[trust]")]):
        with pytest.raises(EnrolmentError, match="was changed on its way"):
            bundle_from_text(looser)
    wrongs: list[dict[str, Scalar]] = [{"verbs": "all"}, {"least-cohort": 1}, {"least-nois": 1.0}, {"delta": "small"}]
    for wrong in wrongs:
        with pytest.raises(EnrolmentError, match="proposal cannot be used: "):
            replace(bundle(), trust=wrong)
    with pytest.raises(EnrolmentError):
        bundle_from_text(to_text(bundle()) + 'trust = "masked"\n')
