"""The model card of an exported version, made from its manifest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..protocol.prompts import PROMPT_VERSION
from ..protocol.records.summary import GateRecord, Lesson
from ..protocol.versions import Manifest
from .summary import bounds_of

PAGE = Path(__file__).parent / "model_card.md"
PRIVACY_CARDS = ("privacy-card.md", "privacy-card.json")
PUBLIC = "Public games that are not trained on, played by the previous version, by the teacher and by this version."
FLEETS = "The fleet's own games: devices played them with the previous version and with the teacher or this version."
LIBRARY = {"peft": "peft", "gguf-lora": "llama.cpp", "gguf-merged": "llama.cpp"}
FROM_FILE = """from pathlib import Path

from peft import PeftModel
from transformers import AutoModelForCausalLM

base = Path({base!r})  # path of the base model's file
model = AutoModelForCausalLM.from_pretrained(base.parent, gguf_file=base.name)
model = PeftModel.from_pretrained(model, ".")  # the folder of this page
"""
FROM_FOLDER = """from peft import PeftModel
from transformers import AutoModelForCausalLM

model = AutoModelForCausalLM.from_pretrained({base!r})  # path of the base model's folder
model = PeftModel.from_pretrained(model, ".")  # the folder of this page
"""
WITH_ADAPTER = """from llama_cpp import Llama

model = Llama({base!r}, lora_path="adapter.gguf")  # path of the base model as a GGUF file
"""
MERGED = """from llama_cpp import Llama

model = Llama("model.gguf")
"""


def model_card(
    manifest: Manifest, to: str, number_type: str, base: str, signed: bool, promise: Mapping[str, Any], folder: Path
) -> str:
    """Return the model card in Markdown, with the YAML front matter that model hubs read.

    Parameters
    ----------
    to, number_type
        Format and number type of the export.
    base
        Name of the base model's file, without its path.
    signed
        Whether the manifest's signature was verified.
    promise
        The run's privacy terms: mechanism, secure sum, epsilon and so on.
    folder
        The card's folder; a privacy card in it is linked.
    """
    return PAGE.read_text(encoding="utf-8").format(
        library=LIBRARY[to],
        base=base,
        version=manifest.version,
        loading=f"```python\n{loading(to, base)}```",
        facts=_facts(manifest, to, number_type, signed),
        lessons=_lessons(manifest.lessons),
        gate=_gate(manifest.gate, bool(manifest.prompts)),
        privacy=_privacy(promise, folder),
    )


def loading(to: str, base: str) -> str:
    """Return Python code that loads an export, run in its folder. It names the base model as if it lay there, too."""
    from_base = FROM_FILE if base.endswith(".gguf") else FROM_FOLDER
    return {"peft": from_base, "gguf-lora": WITH_ADAPTER, "gguf-merged": MERGED}[to].format(base=base)


def _facts(manifest: Manifest, to: str, number_type: str, signed: bool) -> str:
    rows = {
        "version": manifest.version,
        "parent": manifest.parent or "none, this is the warm start",
        "base model, SHA-256": manifest.base,
        "prompt": PROMPT_VERSION,
        "cycle": manifest.cycle,
        "codec": manifest.codec,
        "clients in the last aggregate": bounds_of(manifest.cohort),
        "format": f"{to}, {number_type}",
        "manifest": f"weights verified; signature {'verified' if signed else 'not verified: no key was found'}",
    }
    return "\n".join(f"| {name} | {value} |" for name, value in rows.items())


def _lessons(lessons: Sequence[Lesson]) -> str:
    if not lessons:
        return "None: a warm start, or a codec whose contexts cannot be put into words."
    rows = [f"| {lesson.tactic} | {lesson.weight:+.2f} | {lesson.support:.1f} |" for lesson in lessons]
    return "\n".join(["| tactic | weight | support |", "|---|---|---|", *rows])


def _gate(gate: GateRecord | None, by_fleet: bool) -> str:
    if gate is None:
        return "None: a warm start is not gated."
    rows = [
        f"| {name} | {f'{100 * stats.win_rate:.0f} %' if stats.episodes else 'not measured'} | {stats.episodes} |"
        for name, stats in gate.named().items()
        if stats is not None
    ]
    head = [FLEETS if by_fleet else PUBLIC, "", "| policy | won | games |", "|---|---|---|"]
    return "\n".join([*head, *rows, "", gate.reason or ""]).rstrip()


def _privacy(promise: Mapping[str, Any], folder: Path) -> str:
    page, data = PRIVACY_CARDS
    rows = [f"| {name.replace('_', ' ')} | {value} |" for name, value in promise.items()]
    table = ["| promised by the run | |", "|---|---|", *rows, ""] if rows else []
    attacked = (
        f"Results of attacks on these protections: [{page}]({page}), [{data}]({data})."
        if (folder / page).exists()
        else "The run has no privacy card: its protections were not audited."
    )
    return "\n".join([*table, attacked])
