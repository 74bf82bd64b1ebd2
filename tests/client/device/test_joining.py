"""Joining, checking and leaving."""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from flwr.supercore.error import ApiErrorCode

from fedoel.cli.main import REFUSED, main
from fedoel.client.device import start
from fedoel.client.device.doctor import Server, examine
from fedoel.client.device.folder import DeviceFolder, membership_of
from fedoel.client.device.folder import joined as bundle_of
from fedoel.client.device.join import take_bundle
from fedoel.client.device.last_version import keep
from fedoel.client.device.offline import load_last_version
from fedoel.client.device.runtime import DeviceRuntime
from fedoel.client.device.settings import read_settings
from fedoel.client.device.start import command, write_node_config
from fedoel.client.store import TrajectoryStore, key_from_file
from fedoel.protocol.config import PolicyConfig, RunConfig
from fedoel.protocol.errors import ConfigError, EnrolmentError, FedoelError, ModelError
from fedoel.protocol.fleet.enrolment import bundle_from_text, card_from_text, sign_bundle, to_text
from fedoel.protocol.fleet.trust import Trust
from fedoel.protocol.host.lock import one_owner
from fedoel.server.operate.certificates import key_from_pem
from fedoel.server.operate.folder import ServerFolder, Settings
from fedoel.server.operate.setup import init

from .conftest import Joined

FINGERPRINT = re.compile(r"\b(?:[0-9a-f]{4} ){4}[0-9a-f]{4}\b")
Fresh = Callable[[str], tuple[DeviceFolder, Path]]


def test_private_keys_stay_on_the_device(fresh: Fresh) -> None:
    device, bundle = fresh("one")
    secrets = [device.node_key.read_text(), device.identity.read_text()]
    assert all(path.stat().st_mode & 0o77 == 0 for path in (device.node_key, device.identity, device.identity.parent))
    for file in (device.path / "one.pub", bundle):
        text = file.read_text()
        assert text.isascii() and len(text) < 4096
        assert not any(secret in text or "PRIVATE" in text for secret in secrets)


def test_a_folder_that_exists_with_wider_rights_is_tightened_and_the_doctor_looks(
    joined: Joined, capsys: pytest.CaptureFixture[str]
) -> None:
    device, what = joined.device, "folders and files that nobody else may read"

    def finding() -> str:
        [found] = [finding for finding in examine(device) if finding.what == what]
        return "" if found.good else found.remedy

    store = TrajectoryStore(device.store, "client-0", key_from_file(device.store_key))
    assert finding() == "" and store.path.stat().st_mode & 0o777 == 0o600
    for path in (device.path, device.identity.parent, device.store):
        mode = path.stat().st_mode
        path.chmod(mode | 0o55)
        assert finding() == f"chmod go= {path}"
        main(["device", "status", str(device.path)])
        assert f"others may read {path}: chmod" in capsys.readouterr().out
        path.chmod(mode)
    device.path.chmod(0o755)
    device.store.chmod(0o644)
    assert main(["device", "join", str(device.path), "--name", "one"]) == 0
    TrajectoryStore(device.store, "client-0", key_from_file(device.store_key))
    assert finding() == ""


def test_files_may_come_from_an_editor_that_writes_a_byte_order_mark(fresh: Fresh) -> None:
    device, bundle = fresh("one")
    for path in (bundle, device.settings):
        path.write_bytes("\ufeff".encode() + path.read_bytes().replace(b"\n", b"\r\n"))
    assert take_bundle(device, bundle).name == "one"
    assert read_settings(device.settings).store.keep
    assert card_from_text("\ufeff" + (device.path / "one.pub").read_text()).name == "one"


def test_joining_again_keeps_keys_and_settings(fresh: Fresh) -> None:
    device, _ = fresh("one")
    device.settings.write_text("[play]\npower = 'mains'\n")
    before = {path: path.read_bytes() for path in device.path.rglob("*") if path.is_file()}
    assert main(["device", "join", str(device.path), "--name", "one"]) == 0
    assert {path: path.read_bytes() for path in before} == before


def test_a_bundle_of_another_device_or_server_is_refused(fresh: Fresh, capsys: pytest.CaptureFixture[str]) -> None:
    (one, bundle), (two, _) = fresh("one"), fresh("two")
    with pytest.raises(EnrolmentError, match="for another device, 'one'"):
        take_bundle(two, bundle)
    words = ["device", "join", str(one.path), "--bundle", str(bundle)]
    assert main([*words, "--server", "other.example.org:443"]) == REFUSED
    assert "names 127.0.0.1:9" in capsys.readouterr().err
    assert not one.bundle.exists()
    assert main([*words, "--server", "127.0.0.1:9"]) == 0
    assert bundle_of(one).number == 0
    assert membership_of(one).identity.public in membership_of(one).members


def test_an_older_bundle_does_not_bring_a_revoked_member_back(
    fresh: Fresh, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (one, bundle), server = fresh("one"), tmp_path / "server"
    fresh("two")

    def bundle_now(name: str) -> Path:
        out = tmp_path / name
        assert main(["server", "enroll", str(server), str(one.path / "one.pub"), "--out", str(out)]) == 0
        return out

    before = bundle_now("before.fleet")
    assert main(["server", "revoke", str(server), "two"]) == 0
    after = bundle_now("after.fleet")
    take_bundle(one, after)
    listed = membership_of(one)
    assert len(listed.members) == 1
    words = ["device", "join", str(one.path), "--bundle"]
    for older in (before, bundle):
        assert main([*words, str(older)]) == REFUSED
        assert f"older than {listed.number}" in capsys.readouterr().err
    assert (
        membership_of(one).members == listed.members and bundle_of(one).members == (one.fleet / "members").read_text()
    )
    assert main([*words, str(after)]) == 0
    (one.fleet / "members").write_text("damaged")
    assert main([*words, str(after)]) == 0
    assert membership_of(one).members == listed.members


def test_a_device_changes_fleets_in_another_folder_only(joined: Joined, capsys: pytest.CaptureFixture[str]) -> None:
    (joined.device.fleet / "fleet.pub").write_text("00" * 32)
    bundle = joined.device.path.parent / "one.fleet"
    assert main(["device", "join", str(joined.device.path), "--bundle", str(bundle)]) == REFUSED
    assert "fleet with another key" in capsys.readouterr().err


def test_a_device_that_was_given_a_certificate_takes_no_bundle_of_another_authority(fresh: Fresh) -> None:
    device, bundle = fresh("one")
    other = device.path.parent / "other"
    assert main(["server", "init", str(other), "--host", "x.example.org"]) == 0
    words = ["device", "join", str(device.path), "--bundle", str(bundle)]
    assert main([*words, "--ca", str(other / "ca.crt")]) == REFUSED
    assert main([*words, "--ca", str(device.path.parent / "server" / "ca.crt")]) == 0


def test_a_device_that_has_not_joined_is_told_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["start"], ["service"], ["status"]):
        assert main(["device", *words, str(tmp_path)]) == REFUSED
        assert "fedoel device join" in capsys.readouterr().err
    assert main(["device", "join", str(tmp_path), "--bundle", "x.fleet"]) == REFUSED
    assert "--name NAME" in capsys.readouterr().err
    assert main(["device", "doctor", str(tmp_path)]) == 1
    said = capsys.readouterr().out
    assert said.count("fedoel device join") >= 3 and "have to be put right" in said


def test_the_doctor_names_what_fails_and_a_remedy(joined: Joined, monkeypatch: pytest.MonkeyPatch) -> None:
    device = joined.device

    def failing() -> dict[str, str]:
        return {finding.what: finding.remedy for finding in examine(device) if not finding.good}

    assert list(failing()) == ["reach 127.0.0.1:9"]
    device.node_key.chmod(0o644)
    assert "chmod 600" in failing()["keys that nobody else may read"]
    device.node_key.chmod(0o600)
    device.settings.write_text("[play]\nhours = 'always'\n")
    assert "22:00-07:00" in failing()["settings"]
    device.settings.write_text("")
    monkeypatch.setattr("fedoel.client.device.doctor.free_memory", lambda: 17.0)
    assert "swap" in failing()["17 MB of free memory"]
    monkeypatch.undo()
    monkeypatch.setattr("fedoel.client.device.doctor.probe", lambda host, port, authority: Server(12.0, 2e9))
    assert "timedatectl" in failing()["the clock is 12 s ahead of the server's"]
    monkeypatch.setattr("fedoel.client.device.doctor.probe", lambda host, port, authority: Server(-200.0, 2e9))
    assert failing() == {}
    (device.fleet / "members").write_text("nonsense")
    assert "malformed" in failing()["a member of the fleet"]


@pytest.mark.parametrize("backend", ["torch", "llama"])
def test_a_model_that_is_not_the_fleet_s_is_refused_before_anything_reads_it(
    fresh: Fresh, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backend: str
) -> None:
    """When a request comes, and when the owner plays."""
    model, opened = tmp_path / "base.gguf", list[str]()
    model.write_bytes(b"GGUF and so on")
    (tmp_path / "server" / "run.toml").write_text(f"[policy]\nbackend = '{backend}'\nbase = '{model}'\n")
    device, bundle = fresh("one")
    take_bundle(device, bundle)
    device.settings.write_text(f"[model]\nfile = '{model}'\n")
    config = RunConfig(policy=PolicyConfig(backend=backend))
    request = Joined(device, tmp_path / "server").request(config=config)
    keep(device.versions, request, config)
    for module in ("runtime", "offline"):
        monkeypatch.setattr(f"fedoel.client.device.{module}.load_version", lambda *given: opened.append(given[2]))
    plays = (lambda: DeviceRuntime(device.path).policy(config, request), lambda: load_last_version(device))
    for play in plays:
        play()
    assert opened == ["v1", "v1"]
    model.write_bytes(b"GGUF, and a header that breaks the parser")
    for play in plays:
        with pytest.raises(ModelError, match=f"another model: put the file with SHA-256 {bundle_of(device).model}"):
            play()
    assert opened == ["v1", "v1"]
    DeviceRuntime(device.path).policy(RunConfig(policy=PolicyConfig(backend="tactics")), request)  # reads no model


def test_the_doctor_compares_models_by_their_digest_and_looks_for_what_plays_them(
    fresh: Fresh, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tmp_path / "base.gguf"
    model.write_bytes(b"GGUF and so on")
    run = tmp_path / "server" / "run.toml"
    run.write_text(f"[policy]\nbackend = 'torch'\nbase = '{model}'\n")
    device, bundle = fresh("one")
    take_bundle(device, bundle)

    def look() -> str:
        [found] = [finding for finding in examine(device) if "base model" in finding.what]
        return "" if found.good else found.remedy

    device.settings.write_text(f"[model]\nfile = '{model}'\n")
    assert look() == ""
    model.write_bytes(b"GGUF and so on, but another")
    assert bundle_of(device).model in look()
    model.unlink()
    assert "there is no model" in look()
    monkeypatch.setattr("fedoel.client.device.doctor.find_spec", lambda name: None)
    assert "fedoel[llama]" in next(f.remedy for f in examine(device) if f.what == "something to play the model with")
    monkeypatch.setattr("fedoel.client.device.doctor.find_spec", lambda name: name not in ("torch", "gguf") or None)
    assert not next(f.good for f in examine(device) if "to play the model with" in f.what)
    monkeypatch.setattr("fedoel.client.device.doctor.find_spec", lambda name: name != "torch" or None)
    assert next(f.good for f in examine(device) if f.what == "llama.cpp to play the model with")


def test_a_supernode_gets_the_fleets_certificate_its_own_key_and_its_index(joined: Joined) -> None:
    device, bundle = joined.device, bundle_of(joined.device)
    device.flower.mkdir()
    words = command(device, bundle, 4321)
    pairs = dict(zip(words[1::2], words[2::2], strict=True))
    assert "--insecure" not in words
    assert pairs["--root-certificates"] == str(device.authority)
    assert pairs["--auth-supernode-private-key"] == str(device.node_key)
    assert pairs["--superlink"] == "127.0.0.1:9"
    write_node_config(device, bundle, read_settings(device.settings))
    node_config = tomllib.loads(device.node_config.read_text())
    assert (node_config["home"], node_config["partition-id"], node_config["num-partitions"]) == (str(device.path), 0, 1)
    assert node_config["store"] == str(device.store)


def test_wiping_deletes_all_files_of_the_device(joined: Joined, capsys: pytest.CaptureFixture[str]) -> None:
    device = joined.device
    TrajectoryStore(device.store, "client-0", key_from_file(device.store_key))
    (device.path / "notes.txt").write_text("mine")
    words = ["device", "wipe", str(device.path)]
    assert main(words) == REFUSED  # there is no terminal to confirm at
    assert device.store.exists()
    assert main([*words, "--store", "--yes"]) == 0
    assert not device.store.exists() and not device.store_key.exists() and device.identity.exists()
    with one_owner(device.process, "runs it"):
        assert main([*words, "--yes"]) == REFUSED
    assert main([*words, "--yes"]) == 0
    assert [path.name for path in device.path.rglob("*")] == ["notes.txt"]
    assert main([*words, "--yes"]) == REFUSED
    assert "nothing was deleted" in capsys.readouterr().err


def test_a_device_has_one_process_and_another_programs_id_is_not_taken_for_it(
    joined: Joined, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words, device, scratches = [str(joined.device.path)], joined.device, dict[Path, bool]()
    monkeypatch.setattr(
        start, "_run", lambda folder, commands, settings, scratch: scratches.update({scratch: scratch.is_dir()}) or 0
    )
    with one_owner(device.process, "runs it"):
        assert main(["device", "start", *words]) == REFUSED
        assert f"process {os.getpid()} runs this device already: stop it first" in capsys.readouterr().err
        assert not device.node_config.exists()
        assert main(["device", "status", *words]) == 0
        assert f"runs as process {os.getpid()}" in capsys.readouterr().out
    device.process.write_text("1")  # left by a device that was killed; the system has given the number to another one
    assert main(["device", "status", *words]) == 1
    assert main(["device", "start", *words]) == 0
    [(scratch, was_there)] = scratches.items()
    assert was_there and not scratch.exists()


def test_a_supernode_that_has_given_up_is_killed_so_that_the_service_restarts_it(joined: Joined) -> None:
    """Flower's own process would go on running without doing anything."""
    folder = joined.device
    folder.flower.mkdir()
    words = ["sh", "-c", "echo 'ERROR :     SSL/TLS handshake error detected.'; exec sleep 60"]
    with pytest.raises(FedoelError, match="gave up on the server, with exit code -9"):  # killed, not waited for
        start._run(folder, [words], read_settings(folder.settings), folder.flower)
    assert "handshake" in folder.log.read_text()


def test_a_bundle_is_taken_by_the_device_that_it_is_for_only(fresh: Fresh, capsys: pytest.CaptureFixture[str]) -> None:
    (one, first), (two, second) = fresh("one"), fresh("two")
    assert main(["device", "join", str(one.path), "--bundle", str(second)]) == REFUSED
    assert "the bundle is for another device, 'two'" in capsys.readouterr().err
    assert not one.bundle.exists()
    take_bundle(one, first)
    take_bundle(two, second)
    one.bundle.write_text(two.bundle.read_text())  # as an earlier release took it
    assert "is for another device" in next(f.remedy for f in examine(one) if f.what == "a member of the fleet")


def test_what_a_refused_join_was_given_is_not_kept(fresh: Fresh, tmp_path: Path) -> None:
    device, bundle = fresh("one")
    init(ServerFolder(tmp_path / "other"), Settings(("127.0.0.1",), 9, "127.0.0.1:9"))
    words = ["device", "join", str(device.path), "--bundle", str(bundle)]
    assert main([*words, "--server", "other.example.org:443"]) == REFUSED
    assert main([*words, "--ca", str(tmp_path / "other" / "ca.crt")]) == REFUSED
    assert not (device.path / "server").exists() and not device.authority.exists()
    assert main([*words, "--server", "127.0.0.1:9"]) == 0
    assert (device.path / "server").read_text() == "127.0.0.1:9"


@pytest.mark.parametrize("content", ["", "nonsense", "é"])
def test_a_damaged_key_of_the_device_is_named_with_a_remedy(
    fresh: Fresh, capsys: pytest.CaptureFixture[str], content: str
) -> None:
    device, bundle = fresh("one")
    device.identity.write_text(content, encoding="utf-8")
    capsys.readouterr()
    for more in (["--name", "one"], ["--bundle", str(bundle)]):
        assert main(["device", "join", str(device.path), *more]) == REFUSED
        said = capsys.readouterr().err
        assert said.startswith(f"fedoel: {device.identity} holds no key of this device")
        assert "delete it and join as a new device: fedoel device join" in said and said.count("\n") == 1
    device.identity.unlink()
    assert main(["device", "join", str(device.path), "--name", "two"]) == 0


def test_a_second_device_with_the_same_keys_is_named(joined: Joined) -> None:
    """Flower's SuperLink refuses the second node with the same key while the first is alive."""
    folder = joined.device
    folder.flower.mkdir()
    assert f"[code: {int(ApiErrorCode.FLEET_NODE_ACTIVATION_FAILED)}]" == start.IN_USE
    words = ["sh", "-c", f"echo 'Failed to initialize. {start.IN_USE} Failed to activate SuperNode.'; exit 305"]
    with pytest.raises(FedoelError, match="another device uses these keys, such as a copy of this folder"):
        start._run(folder, [words], read_settings(folder.settings), folder.flower)


def test_the_last_lines_of_the_log_are_printed(joined: Joined, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["device", "logs", str(joined.device.path), "--lines", "2"]
    assert main(words) == REFUSED
    joined.device.log.write_text("a\nb\nc\n")
    assert main(words) == 0
    assert capsys.readouterr().out == "b\nc\n"


@pytest.mark.parametrize(
    "text",
    [
        "nonsense", "[other]\n", "[play]\nother = 1\n", "[play]\nhours = 3\n", "[play]\nhours = '7-8'\n",
        "[play]\nhours = '07:00-07:00'\n", "[play]\npower = 'solar'\n", "[limits]\nthreads = 0\n",
        "[limits]\nmemory = -1\n", "play = 3\n", "[play]\nmax-load = nan\n",
    ],
)  # fmt: skip
def test_settings_that_cannot_be_used_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "device.toml").write_text(text)
    with pytest.raises(ConfigError, match=r"device\.toml"):
        read_settings(tmp_path / "device.toml")


def test_a_card_is_small_and_readable(fresh: Fresh) -> None:
    device, _ = fresh("one")
    values = tomllib.loads((device.path / "one.pub").read_text())
    assert set(values) == {"name", "node-key", "identity", "signature"}
    assert json.dumps(values["name"]) == '"one"'


def proposing(joined: Joined, name: str, run: str) -> Path:
    """Write the device's bundle anew, after a change of the fleet's run."""
    (joined.server / "run.toml").write_text(run)
    out = joined.server.parent / name
    card = joined.device.path / "one.pub"
    assert main(["server", "enroll", str(joined.server), str(card), "--out", str(out)]) == 0
    return out


def test_what_the_fleet_proposes_is_written_and_said_and_a_later_bundle_changes_nothing(
    fresh: Fresh, joined: Joined, capsys: pytest.CaptureFixture[str]
) -> None:
    trust, text = read_settings(joined.device.settings).trust, joined.device.settings.read_text()
    assert (trust.verbs, trust.codecs, trust.least_noise) == ("masked", "tactics", 0.0)
    looser = proposing(joined, "plain.fleet", "[strategy]\nname = 'mean'\n[codec]\nname = 'embedding'\n")
    capsys.readouterr()
    assert main(["device", "join", str(joined.device.path), "--bundle", str(looser)]) == 0
    said = capsys.readouterr().out
    assert joined.device.settings.read_text() == text
    assert "it never sends its vector by itself" in said and "only you change" in said
    assert "were not taken: verbs = 'experience trial', codecs = 'embedding'" in said


@pytest.mark.parametrize(
    "before",
    [
        "[play]\nhours = ''",
        "[trust]\ncolluding = 0.4  # the owner's\n\n[play]\nhours = ''\n",
        "[ trust ]  # mine\nleast-cohort = 9\n",
        "[trust]\n",
        "",
    ],
)
def test_settings_of_an_earlier_release_get_what_they_lack_and_keep_what_they_have(joined: Joined, before: str) -> None:
    joined.device.settings.write_text(before)
    own = read_settings(joined.device.settings)
    take_bundle(joined.device, joined.server.parent / "one.fleet")
    now = read_settings(joined.device.settings)
    assert now.trust.verbs == "masked" and now.play == own.play
    assert (now.trust.colluding, now.trust.least_cohort) == (own.trust.colluding, own.trust.least_cohort)
    text = joined.device.settings.read_text()
    assert set(before.splitlines()) <= set(text.splitlines())
    take_bundle(joined.device, joined.server.parent / "one.fleet")
    assert joined.device.settings.read_text() == text


def test_settings_to_which_nothing_can_be_added_are_refused_and_stay(joined: Joined) -> None:
    joined.device.settings.write_text("trust.colluding = 0.4\n")
    with pytest.raises(ConfigError, match=r"write \[trust\] as a table of its own"):
        take_bundle(joined.device, joined.server.parent / "one.fleet")
    assert joined.device.settings.read_text() == "trust.colluding = 0.4\n"


def test_a_bundle_without_a_proposal_leaves_the_settings_open(joined: Joined) -> None:
    joined.device.settings.unlink()
    bundle = joined.server.parent / "one.fleet"
    plain = replace(bundle_from_text(bundle.read_text()), trust={}, signature="")
    bundle.write_text(to_text(sign_bundle(key_from_pem((joined.server / "ca.key").read_bytes()), plain)))
    take_bundle(joined.device, bundle)
    assert read_settings(joined.device.settings).trust == Trust()
    assert "[trust]" not in joined.device.settings.read_text(), "so that a later bundle can propose something"


def test_both_ends_print_the_same_fingerprints(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Who exchanges a file on its way, on a stick or in a mail, is seen by people who compare."""
    server, device = ServerFolder(tmp_path / "server"), tmp_path / "one"
    init(server, Settings(("127.0.0.1",), 9, "127.0.0.1:9"))
    capsys.readouterr()
    assert main(["device", "join", str(device), "--name", "one"]) == 0
    [of_device] = FINGERPRINT.findall(capsys.readouterr().out)
    bundle = tmp_path / "one.fleet"
    assert main(["server", "enroll", str(server.path), str(device / "one.pub"), "--out", str(bundle)]) == 0
    at_server, of_fleet = FINGERPRINT.findall(capsys.readouterr().out)
    assert main(["device", "join", str(device), "--bundle", str(bundle)]) == 0
    assert (at_server, [of_fleet]) == (of_device, FINGERPRINT.findall(capsys.readouterr().out))
    assert main(["device", "join", str(tmp_path / "two"), "--name", "one"]) == 0
    assert FINGERPRINT.findall(capsys.readouterr().out) not in ([of_device], [of_fleet])
