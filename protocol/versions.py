"""Policy versions: named by the hash of everything that decides how they play, described by a manifest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import ConfigError, VersionError
from .prompts import PROMPT_VERSION
from .records.json_codec import from_stored, to_stored
from .records.summary import GateRecord, Lesson

Adapter = Mapping[str, NDArray[Any]]


def policy_version(base: str, adapter: Adapter) -> str:
    """Content hash of base model, prompt and adapter: 16 hexadecimal digits."""
    digest = hashlib.sha256(f"{base} {PROMPT_VERSION}".encode())
    for name, array in sorted(adapter.items()):
        digest.update(f"{name} {array.dtype} {array.shape}".encode() + np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a version is, where it comes from and why it was promoted.

    Parameters
    ----------
    version, parent
        Content hashes of this policy and of the one it was distilled from; the first version has no parent.
    base
        Digest of the base model.
    cycle
        The cycle that made it; 0 for the warm start.
    codec
        Codec of the context that was distilled.
    lessons
        That context in words: tactic, weight and support.
    cohort
        Clients whose vectors were in the aggregate.
    gate
        Results on the gate's games; None for a version that passed no gate.
    """

    version: str
    parent: str
    base: str
    cycle: int
    codec: str
    lessons: tuple[Lesson, ...]
    cohort: int
    gate: GateRecord | None

    def to_json(self) -> str:
        return json.dumps(to_stored(self), indent=1, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Manifest:
        """Read what `to_json` wrote, in this schema or an earlier one.

        Raises
        ------
        VersionError
            If the schema is newer, or fields are missing, unknown or of another type.
        """
        remedy = "export the version again"
        try:
            table = json.loads(text)
            if isinstance(table, dict) and table.get("gate") == {}:  # in schema 1, a version that passed no gate
                table["gate"] = None
            return from_stored(cls, table, "this manifest", remedy)
        except ConfigError as error:
            raise VersionError(str(error)) from error
        except (ValueError, RecursionError) as error:
            raise VersionError(f"this manifest cannot be read: {error}; {remedy}") from error

    def check(self, adapter: Adapter) -> None:
        """Refuse weights that are not this version's.

        Raises
        ------
        VersionError
            If base, prompt and weights do not hash to `version`.
        """
        made = policy_version(self.base, adapter)
        if made != self.version:
            raise VersionError(
                f"the manifest says version {self.version}, but base, prompt and weights here make {made}: "
                "the adapter was changed, or it was made for another prompt; fetch it again"
            )
