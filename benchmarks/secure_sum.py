"""What a round of the secure sum costs: CPU seconds of the server and of one device, and bytes a device sends.

    python benchmarks/secure_sum.py --clients 1000 --cells 1024 --dropout 0.1

Every device's side is really computed, in this process, and the sum is compared with the plain one. Process time is
taken for each side apart; devices that drop out do so before they send their masked vector, which costs the server
most. Bytes are those of the protocol; Flower's frames add about a hundred in each of five messages.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fedoel.protocol.secagg import device
from fedoel.protocol.secagg.device import Round
from fedoel.protocol.secagg.graph import choose_graph
from fedoel.protocol.secagg.keys import Identity
from fedoel.protocol.secagg.masks import cell_type
from fedoel.protocol.secagg.server import ServerRound
from fedoel.protocol.secagg.terms import Terms


class Bench:
    """One round, with a clock for each side."""

    def __init__(self, terms: Terms) -> None:
        self.terms, self.seconds, self.sent = terms, {"server": 0.0, "devices": 0.0}, np.zeros(terms.cohort)
        self.identities = [Identity(Ed25519PrivateKey.generate()) for _ in range(terms.cohort)]
        self.members = frozenset(each.public for each in self.identities)
        self.server, self.states = ServerRound(terms, self.members), dict[int, Round]()
        kind = cell_type(terms.bits)
        self.vectors = np.random.default_rng(0).integers(0, 2**terms.bits, (terms.cohort, terms.cells)).astype(kind)

    def timed(self, side: str, work: Callable[..., Any], *arguments: Any) -> Any:
        start = time.process_time()
        result = work(*arguments)
        self.seconds[side] += time.process_time() - start
        return result

    def phase(self, name: str, who: Iterable[int], answer: Callable[[int], Round], take: Callable[..., None]) -> None:
        for position in list(who):
            self.states[position] = self.timed("devices", answer, position)
            reply = self.states[position].replies[name]
            self.sent[position] += len(reply)
            self.timed("server", take, position, reply)

    def run(self, silent: set[int]) -> None:
        states, server, everybody = self.states, self.server, range(self.terms.cohort)
        self.phase("keys", everybody, lambda p: device.advertise(self.identities[p], self.terms, p), server.take_keys)
        keys = {p: self.timed("server", server.adverts_for, p) for p in everybody}
        self.phase("shares", everybody, lambda p: device.share(states[p], keys[p], self.members), server.take_shares)
        sealed = {p: self.timed("server", server.shares_for, p) for p in everybody if p not in silent}
        self.phase(
            "masked", sealed, lambda p: device.mask(states[p], sealed[p], lambda: self.vectors[p]), server.take_masked
        )
        there = server.survivors
        self.phase(
            "confirm", sealed, lambda p: device.confirm(states[p], self.identities[p], there), server.take_confirmation
        )
        signed = {p: self.timed("server", server.signatures_for, p) for p in sealed}
        self.phase("unmask", sealed, lambda p: device.unmask(states[p], there, signed[p]), server.take_opened)
        total = self.timed("server", server.total)
        expected = self.vectors[sorted(sealed)].sum(axis=0, dtype=np.uint64).astype(cell_type(self.terms.bits))
        assert (total == expected).all(), "the sum is wrong"


def main() -> None:
    """Run one round and print what it cost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=1000)
    parser.add_argument("--cells", type=int, default=1024)
    parser.add_argument("--bits", type=int, default=32)
    parser.add_argument("--dropout", type=float, default=0.1)
    arguments = parser.parse_args()
    clients, dropout = arguments.clients, arguments.dropout
    graph = choose_graph(clients, 1 / 3, dropout)
    terms = Terms(
        "benchmark", 1, clients, graph.neighbours, graph.threshold, int(clients * (1 - dropout)), arguments.cells,
        arguments.bits, "benchmark",
    )  # fmt: skip
    bench = Bench(terms)
    gone = np.random.default_rng(1).permutation(clients)[: int(clients * dropout)]
    bench.run(set(gone.tolist()))
    print(
        f"{clients} clients x {arguments.cells} cells of {arguments.bits} bits, {len(gone)} dropped out, "
        f"{graph.neighbours} neighbours, threshold {graph.threshold}: server {bench.seconds['server']:.2f} s, "
        f"a device {1000 * bench.seconds['devices'] / clients:.0f} ms, {int(bench.sent.max()):,} bytes up"
    )


if __name__ == "__main__":
    main()
