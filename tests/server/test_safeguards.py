"""Plans, ledgers and keys of a run: what is promised, what was spent, and who belongs to the fleet."""

from __future__ import annotations

import errno
import json
import math
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from dp_accounting import GaussianDpEvent, NeighboringRelation, PoissonSampledDpEvent, SelfComposedDpEvent
from dp_accounting.pld import PLDAccountant

from fedoel.protocol.config import RunConfig, Scalar
from fedoel.protocol.errors import ConfigError, FedoelError, PrivacyError, VersionError
from fedoel.protocol.experience import VectorSpec
from fedoel.protocol.fleet import membership
from fedoel.protocol.fleet.membership import (
    DEVICES_SEED,
    MEMBERS,
    device_key,
    load_members,
    membership_at,
    read_members,
    sign_members,
    simulated_key,
    simulated_membership,
)
from fedoel.protocol.host.files import replace_file
from fedoel.protocol.privacy.published import public_variance
from fedoel.server.accounting import Release, epsilon_of, multiplier_for
from fedoel.server.fleet import make_fleet, owner_key, publish_members
from fedoel.server.safeguards import Ledger, RunSafeguards
from fedoel.server.verify import _Verifier

SPEC = VectorSpec("tactics", 512, "vocabulary", "v1", ("coin",), 10, 2.0, 10.0)
PRIVATE: dict[str, Scalar] = {
    "clients": 1000, "strategy.fraction-train": 0.1, "cycles": 3, "strategy.name": "secure-mean",
    "privacy.mechanism": "distributed", "privacy.epsilon": 2.0, "server.public": "games",
}  # fmt: skip


def safeguards(folder: Path, **changed: Scalar) -> RunSafeguards:
    return RunSafeguards(RunConfig.from_flat({**PRIVATE, "out": str(folder), **changed}))


def test_a_plan_follows_from_the_configuration(tmp_path: Path) -> None:
    run = safeguards(tmp_path)
    plan = run.plan(SPEC)
    assert (run.sample(), run.chance(), run.releases) == (100, 0.1, 3)
    assert [(part.name, part.size, part.norm, part.weight) for part in plan.parts] == [("gradient", 512, 2.0, 1.0)]
    assert plan.minimum == 80 and 140 < plan.cohort < 180 and plan.bits == 16
    assert epsilon_of(Release(plan.noise_multiplier, 100, 1000), 3, 1e-6) == pytest.approx(2.0, abs=0.01)


@pytest.mark.parametrize(("clients", "fraction"), [(1000, 0.1), (60, 0.2), (12, 1.0)])
def test_every_cohort_has_room_for_what_hides_its_size(clients: int, fraction: float, tmp_path: Path) -> None:
    """Whatever cohort is drawn, and whoever drops out, the noise that is added spans many steps."""
    run = safeguards(tmp_path, clients=clients, **{"strategy.fraction-train": fraction})
    public, factor = run.plan(SPEC), run.public_factor(SPEC)
    variance = public_variance(public, "gradient", factor)
    assert 1.25 < variance / public.variance("gradient", public.minimum) < 1.8
    for cohort in filter(run.releasable, range(3, public.cohort + 1, 5)):
        plan = run.plan(SPEC, cohort)
        step = plan.parts[0].norm / plan.steps
        for survivors in (plan.minimum, cohort):
            missing = variance - plan.variance("gradient", survivors)
            if cohort >= run.sample() - (public.cohort - run.sample()):
                assert missing > (3 * step) ** 2


def test_noise_is_whole_for_every_size_of_a_cohort(tmp_path: Path) -> None:
    """What a device adds follows from the cohort that was drawn, so that none is too small for its noise."""
    run = safeguards(tmp_path)
    for cohort in (3, 4, 20, 79, 100, 161):
        assert run.releasable(cohort)
        plan = run.plan(SPEC, cohort)
        assert (plan.cohort, plan.minimum) == (cohort, int(0.8 * cohort + 1e-9))
        whole = (plan.noise_multiplier * plan.bound) ** 2
        assert float(plan.share_variance) * plan.minimum >= whole and plan.noise_multiplier == run.noise_multiplier
    assert not run.releasable(2) and not run.enough(799) and run.enough(800)


def test_no_sum_is_over_fewer_devices_than_the_plans_of_its_cohorts_say(tmp_path: Path) -> None:
    sums: dict[str, Scalar] = {
        "privacy.mechanism": "none", "privacy.epsilon": 0.0, "clients": 20, "strategy.fraction-train": 1.0,
    }  # fmt: skip
    assert safeguards(tmp_path, **sums).fewest == 16 == safeguards(tmp_path, **sums).plan(SPEC).minimum
    assert safeguards(tmp_path, **{**sums, "strategy.exchanges": 2}).fewest == 8
    for run in (safeguards(tmp_path), safeguards(tmp_path, **sums, **{"rollout.stages": "0.1 1"})):
        released = filter(run.releasable, range(1, 21))
        assert run.fewest == min(run.plan(SPEC, cohort).minimum for cohort in released) == 2


def test_redraws_are_accounted_for(tmp_path: Path) -> None:
    """Draws are made again for their size: rarely enough for a thousandth of delta, or sampling counts for nothing."""
    large = safeguards(tmp_path)
    assert large.chance_of_redraw(100) < 1e-30
    assert large.accounted == 100 and large.accounted_delta == pytest.approx(0.999e-6)
    small = safeguards(tmp_path, clients=60)
    chance = sum(math.comb(60, size) * 0.1**size * 0.9 ** (60 - size) for size in range(3))
    assert small.chance_of_redraw(6) == pytest.approx(chance, rel=1e-9)
    assert (small.accounted, small.accounted_delta) == (60, 1e-6)
    assert small.noise_multiplier == multiplier_for(2.0, 1e-6, 60, 60, 3) > large.noise_multiplier


def test_part_of_the_budget_may_go_to_the_fisher_diagonal(tmp_path: Path) -> None:
    plan = safeguards(tmp_path, **{"privacy.fisher-share": 0.2}).plan(SPEC)
    assert [part.name for part in plan.parts] == ["gradient", "fisher"]
    assert sum(part.weight**2 for part in plan.parts) == pytest.approx(1.0)


@pytest.mark.parametrize(("sample", "population", "count"), [(100, 1000, 3), (50, 1000, 10), (100, 100, 5)])
@pytest.mark.parametrize("multiplier", [1.3, 3.0])
def test_epsilon_agrees_with_privacy_loss_distributions(
    sample: int, population: int, count: int, multiplier: float
) -> None:
    """Renyi accounting bounds from above what the exact accountant finds, and not by much."""
    exact = PLDAccountant(NeighboringRelation.ADD_OR_REMOVE_ONE)
    event: object = GaussianDpEvent(multiplier)
    if sample < population:
        event = PoissonSampledDpEvent(sample / population, event)
    exact.compose(SelfComposedDpEvent(event, count))
    tight = exact.get_epsilon(1e-6)
    found = epsilon_of(Release(multiplier, sample, population), count, 1e-6)
    assert tight <= found <= 1.35 * tight


def test_published_multipliers() -> None:
    """Noise multipliers for epsilon 4 at delta 1e-6 when everybody takes part in each of 1, 5 or 10 releases."""
    found = [multiplier_for(4.0, 1e-6, 100, 100, releases) for releases in (1, 5, 10)]
    assert found == pytest.approx([1.27, 2.83, 4.01], rel=0.06)


def test_a_budget_is_spent_once_over_restarts(tmp_path: Path) -> None:
    for cycle in (1, 2, 3):
        safeguards(tmp_path).spend(cycle)
    last = safeguards(tmp_path)
    assert 0 == last.spent(0) < last.spent(1) < last.spent(2) < last.spent(3)
    assert last.spent() == pytest.approx(2.0, abs=0.01)
    for refused in (last.check_budget, lambda: last.spend(4)):
        with pytest.raises(PrivacyError, match="all 3 releases"):
            refused()


def test_cohorts_of_a_real_fleet_are_drawn_with_a_secret(tmp_path: Path) -> None:
    simulated, real = (safeguards(tmp_path, **{"privacy.keys": keys}) for keys in ("", str(tmp_path)))
    assert simulated.secret == 0 != real.secret == safeguards(tmp_path, **{"privacy.keys": "k"}).secret


def test_rounds_are_numbered_over_restarts(tmp_path: Path) -> None:
    run, number = safeguards(tmp_path).begin_round()
    assert number == 1 and safeguards(tmp_path).begin_round() == (run, 2)


def test_two_processes_share_one_ledger_and_one_budget(tmp_path: Path) -> None:
    """As if two servers of one run were there: each sees what the other has released and which rounds it has begun."""
    first, second = safeguards(tmp_path), safeguards(tmp_path)
    assert [kept.begin_round()[1] for kept in (first, second, first, second)] == [1, 2, 3, 4]
    assert first.ledger.run == second.ledger.run and first.ledger.secret == second.ledger.secret
    first.spend(1)
    second.spend(1)
    first.spend(2)
    with pytest.raises(PrivacyError, match="all 3 releases"):
        second.spend(2)
    assert first.spent() == second.spent() == pytest.approx(2.0, abs=0.01)


def test_a_line_that_a_crash_cut_off_counts(tmp_path: Path) -> None:
    path = tmp_path / "privacy.jsonl"
    ledger = Ledger(path)
    ledger.spend(1)
    with path.open("ab") as file:
        file.write(b'{"kind": "sp')
    again = Ledger(path)
    assert again.spent() == 2
    again.spend(2)
    assert path.read_bytes().count(b"\n") == 4


def test_a_damaged_ledger_stops_everything(tmp_path: Path) -> None:
    path = tmp_path / "privacy.jsonl"
    Ledger(path).spend(1)
    path.write_bytes(b"nonsense\n" + path.read_bytes())
    with pytest.raises(FedoelError, match="is damaged"):
        Ledger(path)


def test_a_ledger_that_cannot_be_written_releases_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FedoelError, match="nothing may be released"):
        Ledger(tmp_path / "file" / "privacy.jsonl")


def test_too_few_to_hide_in(tmp_path: Path) -> None:
    with pytest.raises(PrivacyError, match="too few to hide in"):
        safeguards(tmp_path, clients=10).plan(SPEC)


def test_no_noise_is_enough() -> None:
    with pytest.raises(PrivacyError, match="no noise keeps"):
        multiplier_for(1e-9, 1e-12, 100, 100, 1000)


def test_a_run_that_has_begun_keeps_its_keys(tmp_path: Path) -> None:
    make_fleet(tmp_path, 3)
    (tmp_path / MEMBERS).unlink()
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(ConfigError, match="is missing: put back a copy"):
        make_fleet(tmp_path, 3, begun=True)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_fleet_has_keys(tmp_path: Path) -> None:
    make_fleet(tmp_path, 3)
    before = (tmp_path / MEMBERS).read_bytes()
    make_fleet(tmp_path, 3)
    assert (tmp_path / MEMBERS).read_bytes() == before
    members, fleet_key = load_members(tmp_path)
    found = [simulated_membership(tmp_path, client) for client in range(3)]
    assert {each.identity.public for each in found} == members.identities and {each.fleet_key for each in found} == {
        fleet_key
    }
    assert owner_key(tmp_path).public_key().public_bytes_raw() == fleet_key
    assert all((tmp_path / name).stat().st_mode & 0o77 == 0 for name in ("fleet.key", DEVICES_SEED))


def own_key(folder: Path, client: int = 0) -> Path:
    """Make a device's key, as devices have it and simulated ones had it before their keys were derived."""
    key = simulated_key(bytes.fromhex((folder / DEVICES_SEED).read_text()), client)
    replace_file(folder / device_key(client), key.private_bytes_raw().hex(), secret=True)
    return folder / device_key(client)


def test_a_simulated_device_takes_its_own_key_where_an_earlier_release_made_one(tmp_path: Path) -> None:
    make_fleet(tmp_path, 2)
    derived = simulated_membership(tmp_path, 1)
    own_key(tmp_path, 1)
    (tmp_path / DEVICES_SEED).unlink()
    kept = simulated_membership(tmp_path, 1)
    assert kept.identity.public == derived.identity.public
    assert kept.serial_file is not None and derived.serial_file is None


def test_the_list_of_members_is_parsed_once_for_all_simulated_devices(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise what a client costs would grow with the fleet."""
    make_fleet(tmp_path, 5)
    parsed = []

    def read(fleet_key: bytes, text: str) -> membership.Members:
        parsed.append(text)
        return read_members(fleet_key, text)

    monkeypatch.setattr(membership, "read_members", read)
    first = simulated_membership(tmp_path, 0)
    assert all(simulated_membership(tmp_path, client).members is first.members for client in range(5))
    assert len(parsed) <= 1
    publish_members(tmp_path, [first.identity.public])
    assert simulated_membership(tmp_path, 0).members == {first.identity.public}


def test_a_seed_of_keys_that_cannot_be_used_is_refused(tmp_path: Path) -> None:
    make_fleet(tmp_path, 2)
    (tmp_path / DEVICES_SEED).chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        simulated_membership(tmp_path, 0)
    (tmp_path / DEVICES_SEED).unlink()
    with pytest.raises(ConfigError, match="no seed of keys"):
        simulated_membership(tmp_path, 0)


def test_keys_that_are_refused(tmp_path: Path) -> None:
    make_fleet(tmp_path, 2)
    with pytest.raises(ConfigError, match="no key of this device"):
        membership_at(tmp_path, tmp_path / device_key(2))
    own_key(tmp_path).chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        membership_at(tmp_path, tmp_path / device_key(0))
    signature, listed = (tmp_path / MEMBERS).read_text().splitlines()
    members = json.loads(listed)
    (tmp_path / MEMBERS).write_text(f"{signature}\n{json.dumps({**members, 'number': 2})}")
    with pytest.raises(ConfigError, match="not signed"):
        simulated_membership(tmp_path, 1)
    with pytest.raises(ConfigError, match="no folder of a fleet's keys"):
        load_members(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="holds no key"):
        owner_key(tmp_path / "nowhere")


def test_a_device_takes_newer_lists_of_members_keeps_them_and_refuses_older_ones(tmp_path: Path) -> None:
    """As they travel with a secure sum: who is enrolled later is believed, and who was revoked does not come back."""
    make_fleet(tmp_path / "server", 2)
    own_key(tmp_path / "server")
    shutil.copytree(tmp_path / "server", tmp_path / "device")
    before = (tmp_path / "server" / MEMBERS).read_text()
    first = membership_at(tmp_path / "device", tmp_path / "device" / device_key(0))
    publish_members(tmp_path / "server", [first.identity.public])
    after = (tmp_path / "server" / MEMBERS).read_text()
    assert first.renewed("") is first
    assert first.renewed(before).members == first.members
    assert len(first.members) == 2 and first.renewed(after).members == {first.identity.public}
    again = membership_at(tmp_path / "device", tmp_path / "device" / device_key(0))
    assert again.members == {first.identity.public}
    with pytest.raises(VersionError, match="older than 2"):
        again.renewed(before)
    fork = sign_members(owner_key(tmp_path / "server"), 2, [first.identity.public, bytes(32)])
    with pytest.raises(VersionError, match="two lists of members with the number 2"):
        again.renewed(fork)
    with pytest.raises(VersionError, match="not signed"):
        again.renewed(after.replace('"number": 2', '"number": 3'))


@pytest.mark.parametrize(("clients", "problems"), [(10, 0), (8, 1)])
def test_verification_knows_that_a_noisy_cohort_is_the_number_drawn_on_average(
    clients: int, problems: int, tmp_path: Path
) -> None:
    """Of a population of ten, two devices are not enrolled yet; a cohort beyond both is a problem."""
    config = safeguards(tmp_path, clients=clients, **{"strategy.fraction-train": 1.0}).config
    entry = SimpleNamespace(number=2, values={"members": 8, "secure": True, "exchanges": [{"cohort": 10}]})
    found: list[str] = []
    place = SimpleNamespace(config=config)
    _Verifier._cohorts(SimpleNamespace(decided=[entry], place=place, _wrong=found.append))  # type: ignore[arg-type]
    assert len(found) == problems


def test_a_ledger_that_nobody_may_write_can_be_read_and_verified(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a read-only medium, for example; a run was called changed because its ledger could not be locked."""
    run = safeguards(tmp_path)
    run.spend(1)

    def refused(path: Path) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("fedoel.protocol.host.lock.make_folder", refused)
    monkeypatch.setattr("fedoel.server.safeguards.make_private_file", refused)
    with pytest.raises(FedoelError, match="Read-only file system"):
        safeguards(tmp_path).spent()
    assert RunSafeguards(run.config, reads=True).spent() == pytest.approx(run.spent())
    records = (SimpleNamespace(cycle=1, epsilon=run.spent()),)
    place = SimpleNamespace(run=tmp_path, config=run.config)
    verifier = SimpleNamespace(place=place, records=records, _wrong=pytest.fail)
    assert _Verifier._budget(cast(Any, verifier)).startswith("privacy budget: epsilon 1")


def test_a_ledger_that_is_read_only_is_not_made(tmp_path: Path) -> None:
    assert Ledger(tmp_path / "privacy.jsonl", reads=True).spent() == 0 and not list(tmp_path.iterdir())
