"""A fleet's next certificate authority: devices with a bundle of the overlap stay connected, before and after it."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from fedoel.cli.main import REFUSED, main
from fedoel.client.device.folder import DeviceFolder, joined
from fedoel.client.device.join import join, make_card, take_bundle
from fedoel.protocol.errors import ConfigError, EnrolmentError
from fedoel.protocol.fleet.enrolment import bundle_from_text
from fedoel.protocol.host.lock import one_owner
from fedoel.server.operate import authority
from fedoel.server.operate.authority import begin, check_certificate, finish, issuer
from fedoel.server.operate.certificates import belongs, certificate_to_pem, key_from_pem, make_authority
from fedoel.server.operate.folder import ServerFolder, Settings
from fedoel.server.operate.setup import enroll, init

from ...interruption import interrupt

HOST = "fleet.example.org"
DIES = ("fsync", "replace", "unlink", "link")  # what makes a step durable


@pytest.fixture
def server(tmp_path: Path) -> ServerFolder:
    folder = ServerFolder(tmp_path / "server")
    init(folder, Settings((HOST,), 443, "127.0.0.1:9"), {"server.public": "games"})
    return folder


def bundle(server: ServerFolder, device: DeviceFolder) -> Path:
    out = device.path.with_suffix(".fleet")
    enroll(server, make_card(device, device.path.name), out=out)
    return out


def device(server: ServerFolder, name: str) -> DeviceFolder:
    """Return a device that has joined."""
    folder = DeviceFolder(server.path.parent / name)
    take_bundle(folder, bundle(server, folder))
    return folder


def connects(device: DeviceFolder, server: ServerFolder) -> bool:
    """Whether a TLS handshake between a device and its server succeeds, with the files that both have now."""
    there = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    there.load_cert_chain(server.certificate, server.key)
    here = ssl.create_default_context(cafile=str(device.authority))
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [here.wrap_bio(down, up, server_hostname=HOST), there.wrap_bio(up, down, server_side=True)]
    try:
        while ends:
            try:
                ends[0].do_handshake()
                ends.pop(0)
            except ssl.SSLWantReadError:
                ends.reverse()
    except ssl.SSLCertVerificationError as error:
        assert "certificate verify failed" in str(error)
        return False
    return True


def test_a_device_with_the_bundle_of_the_overlap_trusts_the_server_before_and_after(server: ServerFolder) -> None:
    early, late = device(server, "early"), device(server, "late")
    old = server.ca_certificate.read_bytes()
    begin(server)
    assert x509.load_pem_x509_certificate(server.ca_certificate.read_bytes()) == x509.load_pem_x509_certificate(old)
    take_bundle(early, bundle(server, early))
    assert connects(early, server) and connects(late, server)
    finish(server, anyway=True)
    assert connects(early, server) and not connects(late, server)
    again = bundle(server, late)
    with pytest.raises(EnrolmentError, match=r"another authority .* join with it as --ca"):
        take_bundle(late, again)
    join(late, bundle=again, ca=server.ca_certificate)
    take_bundle(early, bundle(server, early))
    assert early.authority.read_bytes() == late.authority.read_bytes() == server.ca_certificate.read_bytes()
    assert connects(early, server) and connects(late, server) and joined(early).name == "early"


def test_grpc_takes_both_authorities_from_one_file(server: ServerFolder) -> None:
    """Flower's own connections are gRPC's."""
    grpc: Any = pytest.importorskip("grpc")

    @contextmanager
    def listening() -> Iterator[int]:
        listener = grpc.server(ThreadPoolExecutor(1))
        pair = (server.key.read_bytes(), server.certificate.read_bytes())
        port: int = listener.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([pair]))
        listener.start()
        yield port
        listener.stop(None)

    def connects(roots: bytes, seconds: float) -> bool:
        with (
            listening() as port,
            grpc.secure_channel(f"127.0.0.1:{port}", grpc.ssl_channel_credentials(roots)) as channel,
        ):
            try:
                grpc.channel_ready_future(channel).result(seconds)
            except grpc.FutureTimeoutError:
                return False
            return True

    old = server.ca_certificate.read_bytes()
    begin(server)
    both = server.ca_certificate.read_bytes()
    assert connects(old, 10) and connects(both, 10)
    finish(server)
    assert connects(both, 10) and connects(server.ca_certificate.read_bytes(), 10) and not connects(old, 1)


def interrupted_at_every_step(command: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Interrupt a command at each of its steps in turn; ends when it has come to its end."""
    for step in range(1, 100):
        with monkeypatch.context() as patch:
            interrupt(patch, step, DIES)
            try:
                command()
            except KeyboardInterrupt:
                yield
                continue
        return
    raise AssertionError("it never ends")


def test_a_beginning_that_was_interrupted_at_any_step_is_repeated(
    server: ServerFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, old = device(server, "here"), server.ca_certificate.read_bytes()
    steps = 0
    for _ in interrupted_at_every_step(lambda: begin(server), monkeypatch):
        steps += 1
        check_certificate(server)
        take_bundle(here, bundle(server, here))
        assert connects(here, server)
        begin(server)
        begin(server)
        both = x509.load_pem_x509_certificates(server.ca_certificate.read_bytes())
        assert len(both) == 2 and certificate_to_pem(both[0]) == old
        server.ca_certificate.write_bytes(old)
        server.next_ca_key.unlink()
        here.authority.write_bytes(old)
    assert steps > 5


def test_a_change_that_was_interrupted_at_any_step_is_finished_by_the_same_command(
    server: ServerFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = device(server, "here")
    begin(server)
    take_bundle(here, bundle(server, here))
    before = {path: path.read_bytes() for path in server.path.iterdir() if path.is_file()}
    old = {before[path] for path in (server.key, server.ca_key, server.certificate)}
    steps = unusable = 0
    for _ in interrupted_at_every_step(lambda: finish(server), monkeypatch):
        steps += 1
        try:
            check_certificate(server)
        except ConfigError as error:
            assert "rotate" in str(error) and "--finish" in str(error)
            unusable += 1
        else:
            assert connects(here, server)
        issuer(server)  # bundles can be signed
        finish(server)
        check_certificate(server)
        certificate, key = issuer(server)
        assert server.ca_certificate.read_bytes() == certificate_to_pem(certificate) and belongs(key, certificate)
        assert connects(here, server) and not server.next_ca_key.exists() and not server.next_ca_bundles.exists()
        kept = {path.read_bytes() for path in server.retired.iterdir()}
        assert old <= kept and all(path.stat().st_mode & 0o77 == 0 for path in server.retired.glob("*.key"))
        for path, content in before.items():
            path.write_bytes(content)
            path.chmod(0o600)
    assert steps > 20 and 0 < unusable < 8, "between the server's key and its certificate only"
    assert finish(server) == 0, "what is done is done"


def test_a_server_that_runs_keeps_its_authority_and_no_device_is_left_behind_unasked(
    server: ServerFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["server", "rotate", str(server.path), "--certificates"]
    one, two = device(server, "one"), device(server, "two")
    with one_owner(server.lock, ""):
        assert main(words) == 0, "nothing changes that it has loaded"
        assert main([*words, "--finish"]) == REFUSED
    assert "stop it first" in capsys.readouterr().err
    assert main([*words, "--finish"]) == REFUSED
    assert "no bundle with the next authority was written for one, two: write theirs" in capsys.readouterr().err
    take_bundle(one, bundle(server, one))
    assert main([*words, "--finish"]) == REFUSED
    assert "was written for two:" in capsys.readouterr().err
    take_bundle(two, bundle(server, two))
    assert main([*words, "--finish"]) == 0
    assert connects(one, server) and connects(two, server)
    assert main([*words, "--finish"]) == 0
    assert "the fleet has one authority" in capsys.readouterr().out
    for wrong in (["--finish"], ["--anyway"], ["--certificates", "--anyway"]):
        assert main(["server", "rotate", str(server.path), *wrong]) == REFUSED
    assert "--finish goes with --certificates" in capsys.readouterr().err


def test_a_second_change_begins_with_nobody_told(server: ServerFolder) -> None:
    one = device(server, "one")
    for _ in range(2):
        begin(server)
        with pytest.raises(ConfigError, match="written for one:"):
            finish(server)
        take_bundle(one, bundle(server, one))
        finish(server)
    assert connects(one, server)
    assert len(list(server.retired.glob("ca-*.key"))) == len(list(server.retired.glob("server-*.crt"))) == 2


def test_renewing_the_server_s_certificate_in_the_overlap_stays_with_the_present_authority(
    server: ServerFolder,
) -> None:
    late = device(server, "late")
    begin(server)
    init(server, Settings((HOST,), 443, "127.0.0.1:9"))
    assert connects(late, server)


def test_status_says_when_the_authority_ends_and_who_lacks_the_next_one(
    server: ServerFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    def said() -> str:
        capsys.readouterr()
        main(["server", "status", str(server.path)])
        return next(line for line in capsys.readouterr().out.splitlines() if line.startswith("authority"))

    assert said() == "authority: valid for 3649 days"
    key = key_from_pem(server.ca_key.read_bytes())
    ending = make_authority(key, datetime.now(UTC) - timedelta(days=3550))
    server.ca_certificate.write_bytes(certificate_to_pem(ending))
    assert said().startswith("authority: valid for 99 days; fedoel server rotate ") and said().endswith("the next one")
    one = device(server, "one")
    begin(server)
    assert "beside the next one until" in said() and said().endswith("without a bundle that has it: one")
    bundle(server, one)
    assert "without" not in said()


def test_many_devices_are_counted_not_listed(server: ServerFolder) -> None:
    for number in range(7):
        bundle(server, DeviceFolder(server.path.parent / f"d{number}"))
    begin(server)
    assert authority.told(server).endswith("d0, d1, d2, d3, d4 and 2 devices more")


def test_keys_that_belong_to_nothing_are_refused_with_a_remedy(server: ServerFolder, tmp_path: Path) -> None:
    other = ServerFolder(tmp_path / "other")
    init(other, Settings((HOST,), 443, "127.0.0.1:9"))
    right = server.ca_key.read_bytes()
    server.ca_key.write_bytes(other.ca_key.read_bytes())
    with pytest.raises(ConfigError, match=r"is not the key of .*put both back from one copy"):
        begin(server)
    server.ca_key.write_bytes(right)
    server.key.write_bytes(other.key.read_bytes())
    with pytest.raises(ConfigError, match="do it again, fedoel server init"):
        check_certificate(server)
    server.ca_certificate.write_text("nonsense")
    with pytest.raises(ConfigError, match=r"ca\.crt cannot be read"):
        begin(server)


def test_a_bundle_of_the_overlap_is_read_as_an_earlier_release_reads_it(server: ServerFolder) -> None:
    """It compares the first certificate with its own, and checks the signature by that one."""
    one = device(server, "one")
    first = x509.load_pem_x509_certificate(one.authority.read_bytes())
    begin(server)
    told = bundle_from_text(bundle(server, one).read_text())
    assert x509.load_pem_x509_certificate(told.ca.encode()) == first and issuer(server)[0] == first
