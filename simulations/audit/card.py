"""The privacy card: what was promised and what attacks found, for people (Markdown) and for programs (JSON)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ...protocol.host.files import write_whole
from .attacks import VIEWS, Finding
from .leaks import Surveillance
from .mechanism import Bound
from .planted import Extraction

PROTECTED = VIEWS[2:]


@dataclass(frozen=True, slots=True)
class Card:
    """The results of one audit."""

    promise: Mapping[str, Any]
    bounds: Sequence[Bound]
    findings: Sequence[Finding]
    extractions: Sequence[Extraction]
    surveillance: Surveillance

    @property
    def problems(self) -> list[str]:
        """What does not hold, in words; nothing if all does."""
        found = [
            f"{bound.attack}: at least epsilon {max(bound.guesses, bound.gaussian):.2f}, promised {bound.claimed:.2f}"
            for bound in self.bounds
            if not bound.holds
        ]
        found += [
            f"{each.attack} from the {each.view}: AUROC {each.auroc:.3f}"
            for each in self.findings
            if each.exposed and each.view in PROTECTED and each.attack != "membership in a cohort"
        ]
        found += [
            f"{each.extracted} of {each.planted} secrets extracted from the {each.view}"
            for each in self.extractions
            if each.extracted and each.view in ("single vector", "noisy sum")
        ]
        found += [f"a game is quoted in {leak}" for leak in self.surveillance.leaks]
        if self.surveillance.unmasked != self.surveillance.journaled:
            seen = self.surveillance
            found.append(f"{seen.unmasked} sums were unmasked, {seen.journaled} are in the ledger")
        return found

    def markdown(self) -> str:
        """The card as a page."""
        verdict = "\n".join(f"- {problem}" for problem in self.problems) or "Every promise held in this audit."
        promise = "\n".join(f"| {name.replace('_', ' ')} | {value} |" for name, value in self.promise.items())
        bounds = "\n".join(
            f"| {b.attack} | {b.claimed:.2f} | {b.guesses:.2f} | {b.gaussian:.2f} |" for b in self.bounds
        )
        findings = "\n".join(
            f"| {f.attack} | {f.view} | {f.auroc:.3f} | {100 * f.detected:.1f} % |" for f in self.findings
        )
        secrets = "\n".join(f"| {e.view} | {e.extracted} of {e.planted} |" for e in self.extractions)
        seen = self.surveillance
        return PAGE.format(
            verdict=verdict, promise=promise, bounds=bounds, findings=findings, secrets=secrets, heard=seen.heard,
            leaks=len(seen.leaks), unmasked=seen.unmasked, journaled=seen.journaled,
        )  # fmt: skip

    def write(self, folder: Path) -> list[Path]:
        """Write ``privacy-card.md`` and ``privacy-card.json``, and return their paths."""
        page, data = folder / "privacy-card.md", folder / "privacy-card.json"
        write_whole(page, self.markdown().encode())
        write_whole(data, json.dumps({**asdict(self), "problems": self.problems}, indent=1).encode())
        return [page, data]


PAGE = """# Privacy card

{verdict}

## Promised

| | |
|---|---|
{promise}

## Epsilon, from below

Canaries that send ten times what they may, in half of the sums at random, none of whose noise counts. Bounds at 99.9 %
confidence, for who knows the cohort; one above the promise would mean that it is broken.

| attack | promised | by guesses | by Gaussian scores |
|---|---|---|---|
{bounds}

## Membership and attributes

The attacker knows every vector of a pool of devices. Half of the trials are positive; 0.5 is a coin. The first line of
each attack has to succeed: it is what a server sees without a secure sum.

| attack | seen | AUROC | found at 0.1 % false alarms |
|---|---|---|---|
{findings}

## Planted secrets

| seen | extracted |
|---|---|
{secrets}

## A real run under surveillance

Games said {heard:,} characters; stretches of them in replies, logs or files: {leaks}. Sums unmasked: {unmasked}, in the
ledger before: {journaled}.
"""
