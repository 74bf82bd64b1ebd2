"""Policy versions: each is named by a hash of base model, prompt and adapter, and described by a manifest."""

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
    """Return the hash of base model, prompt and adapter that names a version, 16 hexadecimal digits.

    Parameters
    ----------
    base
        Digest of the base model.
    adapter
        Weights by name.
    """
    digest = hashlib.sha256(f"{base} {PROMPT_VERSION}".encode())
    for name, array in sorted(adapter.items()):
        digest.update(f"{name} {array.dtype} {array.shape}".encode() + np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Manifest:
    """Metadata of a version: its identity, its origin, and the gate's results.

    Parameters
    ----------
    version, parent
        Names of this version and of the one it was distilled from; empty parent for the first version.
    base
        Digest of the base model.
    cycle
        The cycle that produced it; 0 for the warm start.
    codec
        Codec of the context that was distilled.
    lessons
        The distilled context in words: tactic, weight and support.
    cohort
        Number of clients whose vectors were in the aggregate; in a run with noise, how many are drawn on average, since
        the exact number would tell who took part.
    gate
        Results on the gate's games; None for a version that passed no gate.
    prompts
        Digest of the pack of prompts that it was trained on; empty where the server had games.
    """

    version: str
    parent: str
    base: str
    cycle: int
    codec: str
    lessons: tuple[Lesson, ...]
    cohort: int
    gate: GateRecord | None
    prompts: str = ""

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
        """Check that an adapter is the one of this version.

        Raises
        ------
        VersionError
            If base, prompt and weights do not hash to `version`.
        """
        actual = policy_version(self.base, adapter)
        if actual != self.version:
            raise VersionError(
                f"the manifest says version {self.version}, but base, prompt and weights here hash to {actual}: "
                "the adapter was changed, or it was made for another prompt; fetch it again"
            )
