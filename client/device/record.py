"""A deployed device's record of what it gave and what it refused: an SQLite file that outlives runs and fleets."""

from __future__ import annotations

import hashlib
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from ...protocol.errors import ConfigError, FedoelError, SecureSumError, StoreError, TrustError
from ...protocol.fleet.trust import Refusal, Trust
from ...protocol.formats import CONTRIBUTIONS
from ...protocol.host.files import make_folder, make_private_file
from ...protocol.privacy.concentrated import epsilon_of, rho_of
from ...protocol.secagg.messages import TRIAL, Exchange
from ...protocol.secagg.terms import Terms
from ..contributions import Contribution

YEAR = 365 * 86_400.0
KEY = 32  # bytes of a neighbour's key
KEPT = 20  # refusals whose sentences are kept
TABLES = """
CREATE TABLE IF NOT EXISTS rounds (run TEXT PRIMARY KEY, number INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS shared (
    run TEXT NOT NULL, cycle INTEGER NOT NULL, exchange TEXT NOT NULL, rounds INTEGER NOT NULL,
    PRIMARY KEY (run, cycle, exchange)
);
CREATE TABLE IF NOT EXISTS contributions (
    run TEXT NOT NULL, cycle INTEGER NOT NULL, exchange TEXT NOT NULL, request TEXT NOT NULL, at REAL NOT NULL,
    noise REAL NOT NULL, loss REAL NOT NULL, round BLOB NOT NULL, threshold INTEGER NOT NULL, neighbours BLOB NOT NULL,
    confirmed INTEGER NOT NULL, PRIMARY KEY (run, cycle, exchange)
);
CREATE TABLE IF NOT EXISTS sharings (round BLOB PRIMARY KEY);
CREATE TABLE IF NOT EXISTS survivors (round BLOB PRIMARY KEY, digest BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS refused (code TEXT PRIMARY KEY, count INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS refusals (
    id INTEGER PRIMARY KEY, at REAL NOT NULL, code TEXT NOT NULL, sentence TEXT NOT NULL
);
"""
PLACE = "run = ? AND cycle = ? AND exchange = ?"


@dataclass(frozen=True, slots=True)
class Refused:
    """One refusal: when, by which code, and the sentence for the owner."""

    at: float
    code: str
    sentence: str


class DeviceRecord:
    """Implements `fedoel.client.contributions.Contributions`.

    Parameters
    ----------
    path
        The SQLite file, which is made when something is written; only its owner may read it.
    clock
        Returns the time in seconds since the epoch.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        self.path, self._clock = path, clock

    def begin(self, terms: Terms, trust: Trust) -> None:
        """Write down that a round begins; see `Contributions`."""
        exchange = Exchange.of(terms)
        with self._transaction() as database:
            row = self._row(database, terms.run, exchange)
            if row and row["confirmed"]:
                raise _done(exchange, "has helped to open a sum for")
            _check_rounds(database, terms, trust)  # here already, so that no round is lost by the refusal
            last = database.execute("SELECT number FROM rounds WHERE run = ?", (terms.run,)).fetchone()
            if last and last["number"] >= terms.number:
                raise SecureSumError(f"round {terms.number} is over for this device, which has been in one as late")
            database.execute("INSERT OR REPLACE INTO rounds VALUES (?, ?)", (terms.run, terms.number))

    def share(self, terms: Terms, trust: Trust) -> None:
        """Count a round in which shares are handed out; see `Contributions`."""
        exchange = Exchange.of(terms)
        with self._transaction() as database:
            _check_rounds(database, terms, trust)
            if database.execute("SELECT round FROM sharings WHERE round = ?", (terms.digest,)).fetchone():
                raise SecureSumError("this device has handed out shares in this round before")
            database.execute("INSERT INTO sharings VALUES (?)", (terms.digest,))
            database.execute(
                "INSERT INTO shared VALUES (?, ?, ?, 1) "
                "ON CONFLICT (run, cycle, exchange) DO UPDATE SET rounds = rounds + 1",
                (terms.run, exchange.cycle, exchange.name),
            )

    def check_current(self, terms: Terms) -> None:
        """Refuse a round that is not the last one of its run; see `Contributions`."""
        with self._transaction() as database:
            last = database.execute("SELECT number FROM rounds WHERE run = ?", (terms.run,)).fetchone()
        if last is None or last["number"] != terms.number:
            raise SecureSumError(f"round {terms.number} is over for this device, which has left it for a later one")

    def check(self, contribution: Contribution, trust: Trust) -> None:
        """Refuse a contribution beforehand; see `Contributions`."""
        with self._transaction() as database:
            self._check(database, contribution, trust)

    def add(self, contribution: Contribution, trust: Trust) -> None:
        """Write a contribution down, forced to the disk; see `Contributions`."""
        exchange, now = contribution.exchange, self._clock()
        with self._transaction() as database:
            self._check(database, contribution, trust)
            database.execute(
                "INSERT OR REPLACE INTO contributions VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    contribution.run, exchange.cycle, exchange.name, contribution.request, now, contribution.noise,
                    contribution.loss, contribution.round, contribution.threshold,
                    b"".join(sorted(contribution.neighbours)), not contribution.round,
                ),
            )  # fmt: skip

    def confirm(self, terms: Terms, survivors: bytes) -> None:
        """Write down that a round may be opened; see `Contributions`."""
        exchange, digest = Exchange.of(terms), hashlib.sha256(survivors).digest()
        with self._transaction() as database:
            before = database.execute("SELECT digest FROM survivors WHERE round = ?", (terms.digest,)).fetchone()
            if before and before["digest"] != digest:
                raise SecureSumError("this device has signed other survivors of this round")
            database.execute("INSERT OR IGNORE INTO survivors VALUES (?, ?)", (terms.digest, digest))
            database.execute(
                f"UPDATE contributions SET confirmed = 1, neighbours = x'' WHERE {PLACE} AND round = ?",
                (terms.run, exchange.cycle, exchange.name, terms.digest),
            )

    def refuse(self, error: FedoelError) -> None:
        """Count a refusal; if the disk refuses that, the device answers nonetheless."""
        code = error.code if isinstance(error, TrustError) else type(error).__name__
        with suppress(StoreError), self._transaction() as database:
            database.execute(
                "INSERT INTO refused VALUES (?, 1) ON CONFLICT (code) DO UPDATE SET count = count + 1", (code,)
            )
            database.execute(
                "INSERT INTO refusals (at, code, sentence) VALUES (?, ?, ?)", (self._clock(), code, str(error))
            )
            database.execute("DELETE FROM refusals WHERE id <= (SELECT max(id) FROM refusals) - ?", (KEPT,))

    def epsilon(self, delta: float) -> float:
        """Return what the contributions of the last 365 days have cost; infinity if one of them had no noise."""
        if not self.path.exists():
            return 0.0
        with self._transaction() as database:
            return self._epsilon(database, delta)

    def refusals(self) -> tuple[dict[str, int], Sequence[Refused]]:
        """Return how many requests were refused, by code, and the last refusals, newest first."""
        if not self.path.exists():
            return {}, ()
        with self._transaction() as database:
            counts = {row["code"]: row["count"] for row in database.execute("SELECT * FROM refused ORDER BY code")}
            rows = database.execute("SELECT at, code, sentence FROM refusals ORDER BY id DESC").fetchall()
        return counts, [Refused(*row) for row in rows]

    def _check(self, database: sqlite3.Connection, contribution: Contribution, trust: Trust) -> None:
        exchange = contribution.exchange
        elsewhere = "SELECT run FROM contributions WHERE request = ? AND run != ?"
        if database.execute(elsewhere, (contribution.request, contribution.run)).fetchone():
            raise _done(exchange, "has answered this request in another run, for")
        row = self._row(database, contribution.run, exchange)
        if row:
            known = {row["neighbours"][start : start + KEY] for start in range(0, len(row["neighbours"]), KEY)}
            if row["confirmed"] or row["round"] == contribution.round:
                raise _done(exchange, "has given its vector to")
            if len(known & contribution.cohort) < row["threshold"]:
                raise _done(exchange, "has given its vector to a round that others may still open for")
        elif contribution.round and not contribution.noise and not exchange.of_trial:
            others = "SELECT exchange FROM contributions WHERE run = ? AND cycle = ? AND exchange NOT LIKE ?"
            if other := database.execute(others, (contribution.run, exchange.cycle, f"{TRIAL}%")).fetchone():
                raise _done(Exchange(exchange.cycle, other["exchange"]), "has given a vector of the same games to")
        if trust.epsilon_a_year:
            spent = self._epsilon(database, trust.delta, contribution)
            if spent > trust.epsilon_a_year:
                raise TrustError(
                    Refusal.EPSILON,
                    f"this would make epsilon {spent:.3g} in 365 days, and trust.epsilon-a-year is "
                    f"{trust.epsilon_a_year:g}",
                )

    def _epsilon(self, database: sqlite3.Connection, delta: float, new: Contribution | None = None) -> float:
        """Return the epsilon of the last 365 days, with a new contribution in place of one to the same exchange."""
        rows = database.execute("SELECT * FROM contributions WHERE at > ?", (self._clock() - YEAR,)).fetchall()
        replaced = new and (new.run, new.exchange.cycle, new.exchange.name)
        costs: list[tuple[float, float]] = [(new.noise, new.loss)] if new else []
        costs += [
            (row["noise"], row["loss"]) for row in rows if (row["run"], row["cycle"], row["exchange"]) != replaced
        ]
        return epsilon_of(sum(rho_of(noise) for noise, _ in costs), delta) + sum(loss for _, loss in costs)

    def _row(self, database: sqlite3.Connection, run: str, exchange: Exchange) -> sqlite3.Row | None:
        cursor = database.execute(f"SELECT * FROM contributions WHERE {PLACE}", (run, exchange.cycle, exchange.name))
        row: sqlite3.Row | None = cursor.fetchone()
        return row

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """Open the file for one transaction, which no other process's can interleave with."""
        try:
            make_folder(self.path.parent, private=True)
            make_private_file(self.path)
            database = sqlite3.connect(self.path, isolation_level=None)
            try:
                database.row_factory = sqlite3.Row
                CONTRIBUTIONS.check(database.execute("PRAGMA user_version").fetchone()[0] or 1, self.path)
                database.executescript(TABLES)
                database.execute("BEGIN IMMEDIATE")
                with database:
                    yield database
            finally:
                database.close()
        except ConfigError as error:
            raise StoreError(f"nothing may leave this device: {error}") from error
        except (sqlite3.Error, OSError) as error:
            raise StoreError(
                f"the record {self.path} cannot be used ({error}), so nothing may leave this device: make room if the "
                "disk is full; if the file is damaged, put back a copy of it"
            ) from error


def _check_rounds(database: sqlite3.Connection, terms: Terms, trust: Trust) -> None:
    """Refuse a round of an exchange of which there were as many as the owner allows."""
    exchange = Exchange.of(terms)
    place = (terms.run, exchange.cycle, exchange.name)
    row = database.execute(f"SELECT rounds FROM shared WHERE {PLACE}", place).fetchone()
    if trust.rounds and row and row["rounds"] >= trust.rounds:
        raise TrustError(
            Refusal.ROUNDS,
            f"the server has made {row['rounds']} rounds of exchange {exchange.name} of cycle {exchange.cycle}, and "
            f"trust.rounds is {trust.rounds}",
        )


def _done(exchange: Exchange, what: str) -> TrustError:
    return TrustError(Refusal.DONE, f"this device {what} exchange {exchange.name} of cycle {exchange.cycle}")
