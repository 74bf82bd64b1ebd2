"""An operator's choices of versions: taken by a run at its next message, repeatable, verifiable, and by every verb."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fedoel.cli.main import REFUSED, main
from fedoel.protocol.config import RunConfig
from fedoel.protocol.errors import FedoelError, VersionError
from fedoel.protocol.records.events import Event, Listener, PhaseFinished, PhaseStarted
from fedoel.server.current_version import approve, promote, roll_back
from fedoel.server.cycle.phases import load_phase
from fedoel.server.gate import Differences, Verdict
from fedoel.server.pruning import removable, remove
from fedoel.server.registry import WEIGHTS
from fedoel.server.run_folder import own_folder
from fedoel.server.run_location import RunLocation, locate
from fedoel.server.verify import UNCHAINED, verify
from fedoel.server.version_list import VersionList
from fedoel.simulations.inprocess import run_inprocess
from fedoel.strategies import cohort, experience

from .gates import OpenGate


class Stopped(Exception):
    """Stands for a process that is killed."""


def small(out: Path, cache: Path) -> RunConfig:
    return RunConfig.from_flat({
        "clients": 3, "cycles": 3, "games.families": "frozen-lake turns=6", "games.per-client": 4,
        "games.rehearsal": 6, "games.gate": 6, "games.held-out": 8, "policy.backend": "tactics",
        "server.public": "games", "out": str(out), "cache": str(cache),
    })  # fmt: skip


@pytest.fixture
def config(tmp_path: Path, cache: Path) -> RunConfig:
    return small(tmp_path / "run", cache)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Path:
    """A run of three cycles, each of which has promoted a version."""
    config = small(tmp_path_factory.mktemp("finished") / "run", cache)
    play(config)
    return Path(config.out)


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished run, to be changed."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


def play(config: RunConfig, listener: Listener | None = None, gate: Any = OpenGate) -> None:
    with own_folder(config):
        run_inprocess(config, listener, make_gate=gate)


def at(event: type[PhaseStarted] | type[PhaseFinished], cycle: int, phase: str, act: Callable[[], object]) -> Listener:
    """Act once, when a phase starts or ends."""
    acted: list[object] = []

    def listen(seen: Any) -> None:
        if not acted and isinstance(seen, event) and (seen.cycle, seen.phase) == (cycle, phase):
            acted.append(act)
            act()

    return listen


def both(first: Listener, second: Listener) -> Listener:
    """Tell two listeners of every event."""

    def listen(event: Event) -> None:
        first(event)
        second(event)

    return listen


def stop() -> None:
    raise Stopped


def cycles(config: RunConfig) -> list[dict[str, Any]]:
    entries = json.loads((Path(config.out) / "summary.json").read_text())["cycles"]
    return [{name: value for name, value in entry.items() if name != "seconds"} for entry in entries]


def asked(config: RunConfig, cycle: int) -> str:
    """The version that a cycle's devices were asked about."""
    return str(load_phase(Path(config.out), cycle, "collect").values["version"])


def versions_of(place: RunLocation) -> list[str]:
    return [version.name for version in VersionList(place).versions]


def test_a_choice_between_cycles_is_what_the_next_cycle_starts_from(config: RunConfig) -> None:
    with pytest.raises(Stopped):
        play(config, at(PhaseStarted, 3, "rehearsal", stop))
    place = locate(Path(config.out))
    first, second, third = versions_of(place)
    assert VersionList(place).current == third
    begun = time.monotonic()
    entry = roll_back(place)
    assert time.monotonic() - begun < 2
    assert entry.values["version"] == second == VersionList(place).current
    play(replace(config, resume=True))
    assert asked(config, 3) == second and cycles(config)[3]["decision"] == "promoted"
    assert VersionList(place).versions[-1].parent == second and not verify(place).problems
    assert first not in {entry["version"] for entry in cycles(config)[1:]}


@pytest.mark.parametrize("phase", ["collect", "distil", "gate"])
def test_a_choice_in_a_cycle_ends_it_without_a_version_and_a_resumed_run_repeats_it(
    phase: str, config: RunConfig, tmp_path: Path
) -> None:
    def chosen(config: RunConfig) -> Listener:
        place = RunLocation(Path(config.out), Path(config.out) / "keys")
        return at(PhaseFinished, 2, phase, lambda: roll_back(place))

    play(config, chosen(config))
    whole, (first, second, *_) = cycles(config), versions_of(locate(Path(config.out)))
    assert [entry["decision"] for entry in whole] == ["warm-start", "promoted", "overruled", "promoted"]
    assert whole[1]["version"] == second and whole[2]["version"] == first == asked(config, 3)
    assert whole[2]["held_out"] == whole[0]["held_out"] and first in whole[2]["reason"]
    assert not verify(locate(Path(config.out))).problems

    killed = replace(config, out=str(tmp_path / "killed"))
    with pytest.raises(Stopped):
        play(killed, both(chosen(killed), at(PhaseStarted, 3, "context", stop)))
    play(replace(killed, resume=True))
    assert cycles(killed) == whole
    assert not verify(locate(Path(killed.out))).problems


def test_a_choice_that_changes_nothing_ends_no_cycle(config: RunConfig) -> None:
    """An operator rolls back and thinks better of it before the run looks."""
    place = RunLocation(Path(config.out), Path(config.out) / "keys")

    def to_and_fro() -> None:
        current = VersionList(place).current
        roll_back(place)
        promote(place, current)

    play(config, at(PhaseFinished, 2, "collect", to_and_fro))
    assert [entry["decision"] for entry in cycles(config)[1:]] == ["promoted"] * 3


def test_a_candidate_that_waits_is_played_after_it_was_approved(
    config: RunConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    waits = replace(config, cycles=2, server=replace(config.server, approve=True))
    with pytest.raises(Stopped):
        play(waits, at(PhaseStarted, 2, "rehearsal", stop))
    place = locate(Path(config.out))
    known = VersionList(place)
    first, candidate = known.versions
    assert candidate.decision == "waiting" and known.current == first.name == cycles(config)[1]["version"]
    with pytest.raises(VersionError, match="nope does not wait"):
        approve(place, "nope")
    assert main(["versions", str(place.run)]) == 0 and "waiting  " in capsys.readouterr().out
    assert approve(place).values["version"] == candidate.name
    assert VersionList(place).decision_on(candidate) == "approved"
    assert main(["versions", str(place.run)]) == 0 and "waiting, then approved  " in capsys.readouterr().out
    with pytest.raises(VersionError, match="nothing waits"):
        approve(place)
    play(replace(waits, resume=True))
    assert asked(config, 2) == candidate.name and not verify(place).problems
    *_, next_one = VersionList(place).versions
    assert next_one.parent == candidate.name and VersionList(place).decision_on(next_one) == "waiting"
    roll_back(place)
    assert VersionList(place).decision_on(next_one) == "passed-over"
    assert VersionList(place).decision_on(candidate) == "approved"


def test_a_refused_candidate_can_be_seen_and_promoted_and_then_carries_the_fleets_signature(
    config: RunConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    class Closed(OpenGate):
        def candidate_holds(self, differences: Differences) -> Verdict:
            return Verdict(False, "as the test wants it")

    with pytest.raises(Stopped):
        play(config, at(PhaseStarted, 2, "rehearsal", stop), gate=Closed)
    place = locate(Path(config.out))
    first, refused = VersionList(place).versions
    assert main(["prompts", "make", "frozen-lake turns=6", "--count", "20", "--out", str(place.run / "pack")]) == 0
    assert main(["diff", str(place.run), first.name, refused.name, "--prompts", str(place.run / "pack")]) == 0
    assert "behaviour on 20 public prompts" in capsys.readouterr().out
    assert refused.decision == "rejected" and not VersionList(place).has_weights(refused.name)
    (place.versions / first.name / "adapter_config.json").write_text("{}")  # as language models have it, for peft
    promote(place, refused.name[:6])
    assert (place.versions / refused.name / "adapter_config.json").exists()
    manifest = VersionList(place).manifest(refused.name)
    assert manifest is not None and manifest.parent == first.name and not verify(place).problems
    play(replace(config, resume=True), gate=Closed)
    assert asked(config, 2) == refused.name == cycles(config)[2]["version"]
    measured = Path(config.out) / "checkpoints" / "cycle-002" / "evaluate-chosen.npz"
    assert measured.exists() and cycles(config)[3]["held_out"] == cycles(config)[2]["held_out"]
    assert not verify(place).problems and roll_back(place).values["version"] == first.name


def test_only_weights_that_nothing_needs_are_removed(run: Path, finished: Path) -> None:
    place = locate(run)
    names = versions_of(place)
    assert removable(VersionList(place), keep=len(names)) == [] and removable(VersionList(place), 1) == names[:2]
    roll_back(place)
    assert removable(VersionList(place), 0) == names[:2]  # what was chosen, and what plays until that is taken
    assert remove(place, names, 0) > 0
    assert [VersionList(place).has_weights(name) for name in names] == [False, False, True, True]
    result = verify(place)
    assert not result.problems and (run / "versions" / names[0] / "manifest.sig").exists()
    roll_back(place, names[0])  # its weights come back from the cycle that trained it
    assert not verify(place).problems
    (run / "versions" / names[3] / WEIGHTS).unlink()
    assert any(WEIGHTS in problem and "is missing" in problem for problem in verify(place).problems)


COVERED = (
    "journal.jsonl", "events.jsonl", "config.json", "summary.json", "checkpoints/cycle-001/distil.npz",
    "checkpoints/cycle-003/collect.npz", "versions/*/manifest.json", "versions/*/manifest.sig", f"versions/*/{WEIGHTS}",
)  # fmt: skip


@pytest.mark.parametrize("pattern", COVERED)
def test_a_changed_byte_is_found_and_named(pattern: str, run: Path) -> None:
    place = locate(run)
    assert verify(place).problems == []
    for path in run.glob(pattern):
        content = path.read_bytes()
        for position in (len(content) // 7, len(content) // 2):
            digits = b"0123456789abcdef"
            old = content[position : position + 1]
            new = b"7" if old in digits and old != b"7" else b"a" if old != b"a" else b"b"
            path.write_bytes(content[:position] + new + content[position + 1 :])
            problems = verify(place).problems
            named = path.parent.name if path.parent.parent.name == "versions" else path.name
            assert any(named in problem for problem in problems), (position, problems)
        path.write_bytes(content)
    assert verify(place).problems == []


def test_lines_that_are_cut_off_are_found_by_an_earlier_head(run: Path) -> None:
    place, journal = locate(run), run / "journal.jsonl"
    head = verify(place).head
    assert main(["verify", str(run), "--head", head]) == 0
    journal.write_bytes(b"".join(journal.read_bytes().splitlines(keepends=True)[:-1]))
    assert any("its end was cut off" in problem for problem in verify(place, head).problems)
    assert main(["verify", str(run), "--head", head]) == 1


def test_a_run_without_a_journal_is_read_and_goes_on(config: RunConfig) -> None:
    with pytest.raises(Stopped):
        play(config, at(PhaseStarted, 3, "rehearsal", stop))
    place = locate(Path(config.out))
    (place.run / "journal.jsonl").unlink()
    result = verify(place)
    assert result.notes == [UNCHAINED] and not result.problems
    _, second, third = versions_of(place)
    assert VersionList(place).current == third
    assert roll_back(place).values["version"] == second
    play(replace(config, resume=True))
    assert asked(config, 3) == second
    result = verify(place)
    assert not result.problems and "cycles up to 2 had ended before the journal began" in result.notes


def test_a_version_whose_writing_was_killed_is_none(run: Path) -> None:
    whole = verify(locate(run))
    made = next((run / "versions").glob("*"))
    shutil.copytree(made, run / "versions" / "making-a1b2c3d4")
    assert not whole.problems and verify(locate(run)) == whole


def test_a_journal_that_somebody_else_has_written_is_not_followed(run: Path) -> None:
    place = locate(run)
    roll_back(place)
    lines = (run / "journal.jsonl").read_bytes().splitlines(keepends=True)
    forged = lines[-1].replace(b'"rolled back', b'"rolled BACK')
    (run / "journal.jsonl").write_bytes(b"".join([*lines[:-1], forged]))
    with pytest.raises(FedoelError, match=rf"line {len(lines)} is not signed by this fleet's key"):
        _ = VersionList(place).current


def test_a_line_that_a_crash_has_torn_is_dropped(run: Path) -> None:
    place, journal = locate(run), run / "journal.jsonl"
    with journal.open("ab") as file:
        file.write(b'{"number": 99, "prev')
    current = VersionList(place).current
    assert roll_back(place).values["version"] != current
    assert not verify(place).problems and b'"number": 99' not in journal.read_bytes()


def test_every_verb_works_on_a_run_and_on_a_servers_folder(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server = tmp_path / "server"
    server.mkdir()
    (server / "server.toml").write_text('hosts = ["localhost"]\nport = 1\nlisten = "127.0.0.1:1"\n')
    shutil.copytree(run, server / "run")
    shutil.move(server / "run" / "keys", server / "fleet")
    for folder in (run, server):
        first, second, *_, last = versions_of(locate(folder))
        capsys.readouterr()
        for words, says in (
            (["versions"], f"*  {last}"),
            (["show"], "signed by the fleet's key"),
            (["diff", first, last], "lessons, summed from the first version on"),
            (["rollback", second], f"{second} is current: rolled back from {last}"),
            (["promote", last], f"{last} is current: promoted by an operator"),
            (["prune", "--dry-run", "--keep", "0"], f"would remove the weights of {first}"),
            (["prune", "--keep", "0"], "bytes freed"),
            (["prune", "--keep", "0", "--dry-run"], "nothing to remove"),
            (["prune"], "nothing to remove: of the versions that have weights here, each is needed"),
            (["verify"], "everything that was checked holds"),
        ):
            verb, *more = words
            assert main([verb, str(folder), *more]) == 0, words
            assert says in capsys.readouterr().out
        for words in ([second], []):  # weights of the first are still in its cycle's checkpoint
            assert main(["play", "--run", str(folder), "--before", *words]) == 0
            assert f"probabilities: of {second if words else versions_of(locate(folder))[-2]} -> of {last}" in (
                capsys.readouterr().out
            )
        assert main(["approve", str(folder)]) == REFUSED
        assert "nothing waits for approval" in capsys.readouterr().err


def test_a_game_is_compared_with_another_version_of_its_run_only(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, *_ = versions_of(locate(run))
    for words, says in (
        (["--before", first], "say --run, too"),
        (["--run", str(run), "--before", "nope"], "is no version of"),
    ):
        assert main(["play", *words]) == REFUSED and says in capsys.readouterr().err
    assert main(["rollback", str(run), first]) == 0 and main(["play", "--run", str(run), "--before"]) == REFUSED
    assert f"{first} is the first version of its run" in capsys.readouterr().err


def test_behaviour_is_compared_on_a_pack_of_prompts(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pack = tmp_path / "pack.jsonl"
    first, *_, last = versions_of(locate(run))
    for kept in (run / "checkpoints").glob("*/behaviour.npz"):
        kept.unlink()  # as in a run of release 0.1
    assert main(["diff", str(run), first, last]) == 0
    command = re.search(r"not compared \(no pack of prompts here: fedoel (.*) --out pack", capsys.readouterr().out)
    assert command and main([*shlex.split(command[1]), "--count", "20", "--out", str(pack)]) == 0
    capsys.readouterr()
    assert main(["diff", str(run), first, last, "--prompts", str(pack)]) == 0
    shown = capsys.readouterr().out
    assert "behaviour on 20 public prompts" in shown and "% ->" in shown
    assert main(["diff", str(run), first, first, "--prompts", str(pack)]) == 0
    assert "another first choice on 0, mean KL 0.000 nats" in capsys.readouterr().out


def test_behaviour_is_compared_by_what_the_run_has_kept_without_a_model_or_weights(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fedoel.server.compare.load_version", None)
    first, *_, last = versions_of(locate(run))
    for path in (*run.glob("versions/*/*.safetensors"), *run.glob("checkpoints/*/distil.npz")):
        path.unlink()
    assert main(["diff", str(run), first, last, "--number", "2"]) == 0
    shown = capsys.readouterr().out
    asked = re.search(r"behaviour on (\d+) public prompts: another first choice on \d+, mean KL 0\.[0-9]+ nats", shown)
    assert asked and int(asked[1]) > 10 and len(re.findall(r"^  \S.* turn \d\)$", shown, re.MULTILINE)) == 2
    assert main(["diff", str(run), first, first]) == 0
    assert "another first choice on 0, mean KL 0.000 nats" in capsys.readouterr().out
    kept = run / "checkpoints" / "cycle-003" / "behaviour.npz"
    kept.write_bytes(kept.read_bytes()[:100])
    assert main(["diff", str(run), first, last]) == REFUSED
    assert f"{kept} is damaged" in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["versions", "show", "rollback", "verify", "prune"])
def test_a_folder_without_a_run_is_refused(verb: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([verb, str(tmp_path)]) == REFUSED
    assert "is neither the folder of a run nor that of a server" in capsys.readouterr().err


@pytest.mark.parametrize("waiting", [False, True], ids=["after an exchange", "while waiting for devices"])
def test_a_cycle_of_several_exchanges_sends_the_chosen_version_or_nothing_more(
    waiting: bool, config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    two = replace(config, clients=4, strategy=replace(config.strategy, exchanges=2))
    place, chosen = RunLocation(Path(config.out), Path(config.out) / "keys"), list[str]()

    def choose() -> None:
        chosen.append(str(roll_back(place).values["version"]))

    def nodes_after_a_while(*arguments: Any, wait: Any = cohort.wait_for_nodes) -> Any:
        if (place.run / "checkpoints" / "cycle-002" / "collect.npz").exists() and not chosen:
            choose()
        return wait(*arguments)

    if waiting:
        monkeypatch.setattr(experience, "wait_for_nodes", nodes_after_a_while)
    play(two, None if waiting else at(PhaseFinished, 2, "collect", choose))
    whole = cycles(two)
    assert [entry["decision"] for entry in whole[1:]] == ["promoted", "overruled", "promoted"]
    second = place.run / "checkpoints" / "cycle-002" / "collect-2.npz"
    assert second.exists() == waiting
    if waiting:
        assert load_phase(place.run, 2, "collect-2").values["version"] == chosen[0]
    play(replace(two, resume=True))
    assert cycles(two) == whole and not verify(place).problems


def test_the_budget_of_a_private_run_is_verified_from_its_ledger(config: RunConfig, cache: Path) -> None:
    private = RunConfig.from_flat({
        **config.to_flat(), "clients": 20, "cycles": 1, "strategy.name": "central-mean", "privacy.mechanism": "central",
        "privacy.epsilon": 20.0,
    })  # fmt: skip
    play(private)
    place = locate(Path(config.out))
    result = verify(place)
    assert not result.problems and "privacy budget: epsilon 20 of 20 spent" in result.checked
    ledger = place.run / "privacy.jsonl"
    spent = next(line for line in ledger.read_bytes().splitlines(keepends=True) if b'"spend"' in line)
    with ledger.open("ab") as file:
        file.write(spent)
    assert any("privacy.jsonl makes" in problem for problem in verify(place).problems)
    ledger.write_bytes(ledger.read_bytes().replace(spent, b""))
    problems = verify(place).problems
    assert any("privacy.jsonl, bytes" in problem for problem in problems)
    ledger.unlink()
    assert any("privacy.jsonl is missing" in problem for problem in verify(place).problems)
    ledger.mkdir()
    assert any("privacy.jsonl cannot be read: Is a directory" in problem for problem in verify(place).problems)
