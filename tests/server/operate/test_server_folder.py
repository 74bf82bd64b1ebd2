"""A server's folder: certificates that hold for the right names, and a roll that says who belongs to the fleet."""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import ssl
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta, tzinfo
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Self

import pytest
from cryptography import x509

from fedoel.cli.main import REFUSED, main
from fedoel.client.device.doctor import ProbeError, probe
from fedoel.client.device.folder import DeviceFolder
from fedoel.client.device.join import make_card, take_bundle
from fedoel.policies.model_files import find_model, model_digest
from fedoel.protocol.errors import ConfigError, EnrolmentError, ModelError
from fedoel.protocol.fleet.enrolment import Card, bundle_from_text, card_from_text
from fedoel.protocol.fleet.membership import load_members
from fedoel.protocol.host.lock import in_turn, one_owner
from fedoel.server.operate import certificates
from fedoel.server.operate.authority import check_certificate
from fedoel.server.operate.certificates import make_authority, make_key, make_server_certificate
from fedoel.server.operate.folder import ServerFolder, Settings, read_run, read_settings, run_of, write_settings
from fedoel.server.operate.roll import read_roll
from fedoel.server.operate.setup import enroll, init, revoke
from fedoel.server.operate.start import start
from fedoel.server.run_folder import prepare_folder
from fedoel.server.safeguards import Ledger

SETTINGS = Settings(("fleet.example.org", "192.0.2.7"), 443, "127.0.0.1:9")


@pytest.fixture
def server(tmp_path: Path) -> Path:
    folder = tmp_path / "server"
    init(ServerFolder(folder), SETTINGS, {"server.public": "games"})
    return folder


@pytest.fixture
def join(tmp_path: Path) -> Callable[[str], Path]:
    """Make a device's keys and return its card."""
    return lambda name: make_card(DeviceFolder(tmp_path / name), name)


def add(server: Path, card: Path, name: str = "") -> Path:
    out = card.with_suffix(".fleet")
    enroll(ServerFolder(server), card, name, out)
    return out


def test_secrets_are_the_owners_alone_and_the_certificate_has_every_name(server: Path) -> None:
    assert all(path.stat().st_mode & 0o77 == 0 for path in server.rglob("*.key"))
    assert len(list(server.rglob("*.key"))) == 3
    certificate = x509.load_pem_x509_certificate((server / "server.crt").read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["fleet.example.org", "localhost"]
    assert [str(each) for each in names.get_values_for_type(x509.IPAddress)] == ["192.0.2.7", "127.0.0.1", "::1"]
    assert certificate.not_valid_after_utc - datetime.now(UTC) > timedelta(days=390)


def test_a_folder_that_exists_with_wider_rights_is_tightened(
    tmp_path: Path, join: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = ServerFolder(tmp_path / "server")
    folder.path.mkdir(0o755)
    folder.path.chmod(0o755)
    init(folder, SETTINGS)
    assert folder.path.stat().st_mode & 0o777 == folder.fleet.stat().st_mode & 0o777 == 0o700
    folder.path.chmod(0o755)
    folder.fleet.chmod(0o750)
    capsys.readouterr()
    assert main(["server", "status", str(folder.path)]) == 1
    said = capsys.readouterr().out
    assert f"others may read {folder.path}: chmod" in said and f"others may read {folder.fleet}: chmod" in said
    init(folder, SETTINGS)
    main(["server", "status", str(folder.path)])
    assert "others may read" not in capsys.readouterr().out


def test_the_ledger_and_the_database_of_the_superlink_are_the_owners_alone(
    server: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The ledger holds the secret that cohorts are drawn with, the database what is still to be delivered."""
    folder = ServerFolder(server)
    for path in (folder.run / "privacy.jsonl", folder.database, folder.flower / "superlink.sqlite-wal"):
        path.parent.mkdir(exist_ok=True)
        path.touch(0o644)
        path.chmod(0o644)
        capsys.readouterr()
        main(["server", "status", str(server)])
        assert f"others may read {path}: chmod" in capsys.readouterr().out
    ledger = Ledger(folder.run / "privacy.jsonl")
    ledger.begin()
    assert ledger.path.stat().st_mode & 0o777 == 0o600
    assert Ledger(server / "another" / "privacy.jsonl").path.stat().st_mode & 0o777 == 0o600


class Quiet(BaseHTTPRequestHandler):
    ahead = 0

    def do_GET(self) -> None:
        self.send_response(404)
        self.end_headers()

    def date_time_string(self, timestamp: float | None = None) -> str:
        return super().date_time_string(datetime.now().timestamp() + self.ahead)

    def log_message(self, *arguments: object) -> None: ...


@pytest.mark.parametrize("ahead", [0, 100, -100])
def test_a_device_measures_the_clock_over_tls_that_it_checks(server: Path, ahead: int, tmp_path: Path) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(server / "server.crt", server / "server.key")
    handler = type("Handler", (Quiet,), {"ahead": ahead})
    with HTTPServer(("127.0.0.1", 0), handler) as there:
        there.socket = context.wrap_socket(there.socket, server_side=True)
        threading.Thread(target=there.serve_forever, daemon=True).start()
        port = there.server_address[1]
        assert abs(probe("127.0.0.1", port, server / "ca.crt").offset + ahead) < 3
        stranger = tmp_path / "stranger"
        init(ServerFolder(stranger), SETTINGS)
        with pytest.raises(ProbeError, match="not from the fleet's authority"):
            probe("127.0.0.1", port, stranger / "ca.crt")
        there.shutdown()
    with pytest.raises(ProbeError, match="that the server runs"):
        probe("127.0.0.1", port, server / "ca.crt")


def test_a_certificate_is_renewed_and_everything_else_stays(server: Path, join: Callable[[str], Path]) -> None:
    add(server, join("one"))
    kept = {path: path.read_bytes() for path in server.rglob("*") if path.is_file() and path.name[:7] != "server."}
    before = (server / "server.crt").read_bytes()
    init(ServerFolder(server), Settings(("new.example.org",), 444, "127.0.0.1:9"))
    assert (server / "server.crt").read_bytes() != before
    assert {path: path.read_bytes() for path in kept} == kept
    assert read_settings(ServerFolder(server)).address == "new.example.org:444"


@pytest.mark.parametrize(
    ("listen", "local"),
    [
        ("0.0.0.0:9", "127.0.0.1"),
        ("[::]:9", "::1"),  # where nothing answers on 127.0.0.1
        ("10.0.0.7:9", "10.0.0.7"),
        ("[fd00::7]:9", "fd00::7"),
        ("inside.example.org:9", "inside.example.org"),
    ],
)
def test_the_certificate_is_for_the_address_on_which_the_superlink_listens(
    server: Path, listen: str, local: str
) -> None:
    """The server's own commands connect to that address, whatever name devices know; they refused the certificate."""
    folder, settings = ServerFolder(server), replace(SETTINGS, listen=listen)
    assert settings.local == (local, 9)
    write_settings(folder, settings)  # by hand, behind `init`
    if local not in certificates.LOCAL:
        with pytest.raises(ConfigError, match=rf"is not for {local}, on which .* --listen '?{re.escape(listen)}"):
            check_certificate(folder)
    init(folder, settings)
    check_certificate(folder)
    certificate = x509.load_pem_x509_certificate(folder.certificate.read_bytes())
    assert all(certificates.is_for(host, certificate) for host in (*SETTINGS.hosts, *certificates.LOCAL, local))
    assert not certificates.is_for("192.0.2.8", certificate)


@pytest.mark.parametrize("host", ["", "a b", "https://x", "*.example.org", "x/y"])
def test_hosts_are_names_or_addresses(host: str) -> None:
    key = make_key()
    with pytest.raises(ConfigError, match="no host name and no address"):
        make_server_certificate([host], key, make_authority(key), key)


def test_a_file_in_the_place_of_a_server_s_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(ConfigError, match=f"{tmp_path / 'file'} is not a folder; choose another one"):
            init(ServerFolder(path), SETTINGS)


def test_no_certificate_is_made_by_a_clock_that_is_far_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A board without a battery starts in 1970: the fleet's authority would have ended once the clock is set."""

    class Clock(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Self:
            return cls(1970, 1, 11, tzinfo=tz)

    monkeypatch.setattr(certificates, "datetime", Clock)
    with pytest.raises(ConfigError, match="the clock of this machine says 1970-01-11: set it first"):
        init(ServerFolder(tmp_path / "server"), SETTINGS)
    assert list(tmp_path.iterdir()) == []


def test_devices_are_enrolled_and_revoked_in_a_list_that_only_grows_in_number(
    server: Path, join: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cards = {name: join(name) for name in ("one", "two")}
    bundles = {name: add(server, card) for name, card in cards.items()}
    identities = {name: bytes.fromhex(card_from_text(card.read_text()).identity) for name, card in cards.items()}
    members, _ = load_members(server / "fleet")
    assert members.identities == set(identities.values())
    taken = take_bundle(DeviceFolder(tmp_path / "two"), bundles["two"])
    assert (taken.name, taken.number, taken.server) == ("two", 1, "fleet.example.org:443")
    revoke(ServerFolder(server), "one")
    after, _ = load_members(server / "fleet")
    assert after.identities == {identities["two"]} and after.number > members.number
    assert "revoked one; left: 1 device" in capsys.readouterr().out
    with pytest.raises(EnrolmentError, match="was revoked"):
        add(server, cards["one"])
    revoke(ServerFolder(server), "one")  # as after a crash, which may have left something to do
    assert load_members(server / "fleet")[0].number == after.number
    with pytest.raises(EnrolmentError, match="enrolled are: two"):
        revoke(ServerFolder(server), "three")


def test_a_command_that_was_interrupted_is_repeated(
    server: Path, join: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the list of members is signed, and between that and the roll."""

    def ends(*_: object) -> None:
        raise KeyboardInterrupt

    card, folder = join("one"), ServerFolder(server)
    for name in ("publish_members", "write_roll"):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(f"fedoel.server.operate.setup.{name}", ends)
            add(server, card)
    bundle = bundle_from_text(add(server, card).read_text())
    assert bytes.fromhex(bundle.identity) in load_members(server / "fleet")[0].identities
    for name in ("publish_members", "write_roll"):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(f"fedoel.server.operate.setup.{name}", ends)
            revoke(folder, "one")
    revoke(folder, "one")
    assert not load_members(server / "fleet")[0].identities and not read_roll(folder.roll).active


def test_enrolling_again_gives_the_bundle_again(server: Path, join: Callable[[str], Path]) -> None:
    card = join("one")
    first = bundle_from_text(add(server, card).read_text())
    again = bundle_from_text(add(server, card).read_text())
    assert (again.number, again.members) == (first.number, first.members)
    assert len(read_roll(server / "devices.json").devices) == 1


def test_names_and_keys_belong_to_one_device(server: Path, join: Callable[[str], Path]) -> None:
    one, two = join("one"), join("two")
    add(server, one)
    with pytest.raises(EnrolmentError, match="another device is called 'one'"):
        add(server, two, name="one")
    with pytest.raises(EnrolmentError, match="belongs to 'one'"):
        add(server, one, name="other")
    mixed = Card("three", card_from_text(one.read_text()).node_key, card_from_text(two.read_text()).identity)
    with pytest.raises(EnrolmentError, match="belongs to 'one'"):
        read_roll(server / "devices.json").enrol(mixed)


def test_a_run_is_that_of_the_file_for_the_devices_that_are_there(server: Path, join: Callable[[str], Path]) -> None:
    add(server, join("one"))
    folder = ServerFolder(server)
    config = run_of(folder, read_roll(folder.roll))
    assert (config.clients, config.out, config.privacy.keys) == (1, str(server / "run"), str(server / "fleet"))
    assert config.resume and config.strategy.name == "secure-mean" and config.strategy.patience > 1e5
    (server / "run.toml").write_text("cycles = 0")
    with pytest.raises(ConfigError, match="cycles must be an integer of at least 1"):
        read_run(folder)


def test_what_cannot_start_is_refused_before_anything_starts(server: Path, join: Callable[[str], Path]) -> None:
    add(server, join("one"))
    with pytest.raises(ConfigError, match=r"too few to hide in.*set strategy\.name to mean"):
        start(ServerFolder(server))
    (server / "run.toml").write_text(
        "[strategy]\nname = 'secure-mean'\n[privacy]\ncolluding = 0.1\n[server]\npublic = 'games'\n"
    )
    with pytest.raises(ConfigError, match="devices refuse a secure sum that is not safe from a third"):
        start(ServerFolder(server))
    (server / "ca.key").chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        start(ServerFolder(server))
    assert not (server / "run").exists() and not (server / "flower").exists()


@pytest.mark.parametrize(
    ("prompts", "says"),
    [
        ("", "needs a pack of prompts: fedoel prompts make"),
        ("nowhere.jsonl", r"server/nowhere\.jsonl cannot be read: No such file"),
        ("run.toml", r"run\.toml, line 1: it is not JSON"),
    ],
)
def test_a_server_without_games_does_not_start_without_a_pack(
    server: Path, join: Callable[[str], Path], prompts: str, says: str
) -> None:
    add(server, join("one"))
    (server / "run.toml").write_text(f'[server]\npublic = "prompts"\nprompts = "{prompts}"\n')
    with pytest.raises(ConfigError, match=says) as refusal:
        start(ServerFolder(server))
    assert "\n" not in str(refusal.value)
    assert not any((server / name).exists() for name in ("run", "flower", "prompts.jsonl"))


def test_a_run_reads_the_pack_that_its_file_names_until_it_has_begun_and_then_its_own(server: Path) -> None:
    folder = ServerFolder(server)
    (server / "run.toml").write_text('[server]\npublic = "prompts"\nprompts = "../pack.jsonl"\n')
    config = run_of(folder, read_roll(folder.roll))
    assert config.server.prompts == str(server / ".." / "pack.jsonl")
    prepare_folder(config)
    assert run_of(folder, read_roll(folder.roll)).server.prompts == str(server / "prompts.jsonl")


def test_the_command_line_refuses_with_a_remedy(
    tmp_path: Path, server: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("mine")
    (server / "device.pub").write_text("nonsense")
    for words, said in (
        (["server", "start", str(tmp_path)], "fedoel server init"),
        (["server", "enroll", str(server), "nowhere.pub"], ".pub file that the device made"),
        (["server", "enroll", str(server), str(server / "device.pub")], "not a device's public keys"),
        (["server", "revoke", str(server), "nobody"], "enrolled are: none yet"),
        (["server", "init", str(tmp_path / "other"), "--host", "a.example.org"], "choose an empty folder"),
        (["server", "init", str(tmp_path / "new"), "--host", "a b"], "HOST:PORT"),
    ):
        assert main(words) == REFUSED
        assert said in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "other").iterdir()] == ["notes.txt"]


def test_a_server_has_one_process_and_devices_are_enrolled_one_after_the_other(
    server: Path, join: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, cards = ServerFolder(server), [join(name) for name in ("one", "two", "three")]
    with one_owner(folder.lock, "runs it"):
        assert main(["server", "start", str(server)]) == REFUSED
        said = capsys.readouterr().err
        assert said == f"fedoel: process {os.getpid()} runs the server in {server}: stop it first\n"
    assert not (server / "run").exists()
    with in_turn(folder.roll_lock):
        enrolling = [threading.Thread(target=add, args=(server, card)) for card in cards]
        for thread in enrolling:
            thread.start()
        assert not read_roll(folder.roll).devices
    for thread in enrolling:
        thread.join()
    assert {device.name for device in read_roll(folder.roll).devices} == {"one", "two", "three"}
    assert len(load_members(folder.fleet)[0].identities) == 3


def test_a_server_without_devices_does_not_start(
    tmp_path: Path, join: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "my server"
    init(ServerFolder(folder), SETTINGS, {"server.public": "games"})
    assert main(["server", "start", str(folder)]) == REFUSED
    said = capsys.readouterr().err
    assert "no device is enrolled yet" in said and f"`fedoel server enroll '{folder}' DEVICE.pub`" in said
    add(folder, join("one"))
    assert main(["server", "start", str(folder)]) == REFUSED
    assert "1 device a release" in (said := capsys.readouterr().err) and "enrol more devices" in said
    assert not any((folder / name).exists() for name in ("run", "flower"))


def test_what_is_printed_as_a_command_can_be_pasted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The folders' names have a space and a quote; each command is read by a shell's rules."""
    monkeypatch.chdir(tmp_path)
    server, device = tmp_path / "the fleet's server", tmp_path / "kitchen's device"
    assert main(["server", "init", str(server), "--host", "fleet.example.org"]) == 0
    assert main(["device", "join", str(device), "--name", "kitchen"]) == 0
    card = device / "kitchen.pub"
    assert main(["server", "enroll", str(server), str(card), "--out", "kitchen's bundle.fleet"]) == 0
    assert main(["device", "join", str(device), "--bundle", "kitchen's bundle.fleet"]) == 0
    printed = capsys.readouterr().out
    assert main(["device", "join", str(tmp_path / "an other's"), "--bundle", "x"]) == REFUSED
    printed += capsys.readouterr().err
    commands = [shlex.split(command) for command in re.findall(r"fedoel (?:server|device) [^`,\n]+", printed)]
    assert ["fedoel", "server", "enroll", str(server), "DEVICE.pub"] in commands
    assert ["fedoel", "device", "join", "DIR", "--bundle", "kitchen's bundle.fleet"] in commands
    assert ["fedoel", "device", "doctor", str(device)] in commands
    assert ["fedoel", "device", "start", str(device)] in commands
    assert ["fedoel", "device", "join", str(tmp_path / "an other's"), "--name", "NAME"] in commands


def test_init_again_says_what_to_do(server: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["server", "init", str(server), "--port", "443", "--listen", SETTINGS.listen, "--host"]
    assert main([*words, "fleet.example.org"]) == 0
    said = capsys.readouterr().out
    assert "renewed the certificate" in said and "stop it and start it again" in said and "bundles" not in said
    assert main([*words, "other.example.org"]) == 0
    assert "have joined look for it at fleet.example.org:443: write their bundles again" in capsys.readouterr().out
    (server / "server.toml").write_text("port = 3\n")
    assert main([*words, "fleet.example.org"]) == 0
    assert read_settings(ServerFolder(server)).address == "fleet.example.org:443"


def test_how_long_a_server_waits_for_its_devices_is_a_setting_that_init_keeps(server: Path) -> None:
    folder, file = ServerFolder(server), server / "server.toml"
    assert read_settings(folder).reconnect == 60
    text = "\n".join(line for line in file.read_text().splitlines() if "reconnect" not in line)
    file.write_text(text)
    assert read_settings(folder).reconnect == 60, "files of earlier releases do not say it"
    file.write_text(f"{text}\nreconnect = 5\n")
    init(folder, SETTINGS)
    assert read_settings(folder).reconnect == 5
    for wrong in ("-1", "nan", "inf", "1e9", '"soon"'):
        file.write_text(f"{text}\nreconnect = {wrong}\n")
        with pytest.raises(ConfigError, match=r"cannot be used.*it needs hosts, port and listen"):
            read_settings(folder)


def test_status_says_how_the_fleet_is(
    server: Path, join: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    add(server, join("one"))
    capsys.readouterr()
    assert main(["server", "status", str(server)]) == 1
    said = capsys.readouterr().out
    assert "does not answer" in said and "1 enrolled, 0 revoked" in said and "run: not started" in said


@pytest.mark.parametrize(
    ("name", "content", "verbs", "remedy"),
    [
        ("server.crt", None, ("status",), "`fedoel server init`, with its --host, makes it and its key anew"),
        ("server.crt", "", ("status",), "`fedoel server init`, with its --host, makes it and its key anew"),
        ("ca.crt", None, ("status", "enroll", "revoke"), "put back a copy of it"),
        ("ca.crt", "", ("status", "enroll", "revoke"), "put back a copy of it"),
    ],
)
def test_a_certificate_that_is_missing_or_empty_is_named_with_a_remedy(
    server: Path, join: Callable[[str], Path], capsys: pytest.CaptureFixture[str],
    name: str, content: str | None, verbs: tuple[str, ...], remedy: str,
) -> None:  # fmt: skip
    card = join("one")
    add(server, card)
    (server / name).unlink()
    if content is not None:
        (server / name).write_text(content)
    capsys.readouterr()
    more = {"enroll": [str(card)], "revoke": ["one"]}
    for verb in verbs:
        assert main(["server", verb, str(server), *more.get(verb, [])]) == REFUSED
        said = capsys.readouterr()
        assert said.out == "" and said.err.startswith(f"fedoel: {server / name} cannot be read")
        assert remedy in said.err and said.err.count("\n") == 1
    if name == "server.crt":
        with pytest.raises(ConfigError, match="makes it and its key anew"):
            check_certificate(ServerFolder(server))
        init(ServerFolder(server), SETTINGS)
        check_certificate(ServerFolder(server))


def test_models_are_known_by_their_digest(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    assert model_digest(find_model(str(tmp_path / "m.gguf"))) == hashlib.sha256(b"GGUF").hexdigest()
    with pytest.raises(ModelError, match="there is no model"):
        find_model(str(tmp_path / "nowhere"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match="holds no model"):
        model_digest(tmp_path / "empty")
