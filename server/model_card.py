"""The model card of an exported version: what its manifest says, for who has only the export."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..protocol.prompts import PROMPT_VERSION
from ..protocol.records.summary import GateRecord, Lesson
from ..protocol.versions import Manifest

PRIVACY_CARDS = ("privacy-card.md", "privacy-card.json")
LIBRARY = {"peft": "peft", "gguf-lora": "llama.cpp", "gguf-merged": "llama.cpp"}
LOADING = {
    "peft": """```python
from peft import PeftModel
from transformers import AutoModelForCausalLM

model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(BASE), THIS_FOLDER)
```""",
    "gguf-lora": """```python
from llama_cpp import Llama

model = Llama(BASE, lora_path="adapter.gguf")
```""",
    "gguf-merged": """```python
from llama_cpp import Llama

model = Llama("model.gguf")
```""",
}


def model_card(
    manifest: Manifest, to: str, kind: str, base: str, signed: bool, promise: Mapping[str, Any], folder: Path
) -> str:
    """Return the page, with the front matter that model hubs read.

    Parameters
    ----------
    to, kind
        Format and kind of numbers of the export.
    base
        Name of the base model's file, without the path that it has here.
    signed
        Whether the manifest's signature was checked.
    promise
        What the run promised its devices: mechanism, secure sum, epsilon and so on.
    folder
        Where the card will lie: it links to a privacy card that is there.
    """
    return PAGE.format(
        library=LIBRARY[to],
        base=base,
        version=manifest.version,
        loading=LOADING[to].replace("BASE", f'"{base}"').replace("THIS_FOLDER", '"."'),
        facts=_facts(manifest, to, kind, signed),
        lessons=_lessons(manifest.lessons),
        gate=_gate(manifest.gate),
        privacy=_privacy(promise, folder),
    )


def _facts(manifest: Manifest, to: str, kind: str, signed: bool) -> str:
    rows = {
        "version": manifest.version,
        "parent": manifest.parent or "none, this is the warm start",
        "base model, SHA-256": manifest.base,
        "prompt": PROMPT_VERSION,
        "cycle": manifest.cycle,
        "codec": manifest.codec,
        "clients in the last aggregate": manifest.cohort,
        "format": f"{to}, {kind}",
        "manifest": "weights are those it names; signature "
        + ("checked" if signed else "not checked: no key was there"),
    }
    return "\n".join(f"| {name} | {value} |" for name, value in rows.items())


def _lessons(lessons: Sequence[Lesson]) -> str:
    if not lessons:
        return "None in words: the context of this codec or of a warm start has none."
    rows = [f"| {lesson.tactic} | {lesson.weight:+.2f} | {lesson.support:.1f} |" for lesson in lessons]
    return "\n".join(["| tactic | weight | support |", "|---|---|---|", *rows])


def _gate(gate: GateRecord | None) -> str:
    if gate is None:
        return "A warm start passes no gate."
    rows = [
        f"| {name} | {100 * stats.win_rate:.0f} % | {stats.episodes} |"
        for name, stats in gate.named().items()
        if stats is not None
    ]
    return "\n".join(["| policy | won | games |", "|---|---|---|", *rows, "", gate.reason or ""]).rstrip()


def _privacy(promise: Mapping[str, Any], folder: Path) -> str:
    page, data = PRIVACY_CARDS
    rows = [f"| {name.replace('_', ' ')} | {value} |" for name, value in promise.items()]
    table = ["| promised by the run | |", "|---|---|", *rows, ""] if rows else []
    attacked = (
        f"Attacks on these protections, and what they found: [{page}]({page}), [{data}]({data})."
        if (folder / page).exists()
        else "No privacy card was with the run: its protections have not been attacked."
    )
    return "\n".join([*table, attacked])


PAGE = """---
library_name: {library}
base_model: {base}
tags: [fedoel, federated-learning, text-games]
---

# fedoel {version}

Plays text games, from the experience of many devices; what left them is said under Privacy.

| | |
|---|---|
{facts}

## Loading

{loading}

Prompts are those of fedoel's `protocol/prompts.py` in the base model's chat template; `fedoel evaluate` measures it.

## What it was taught last

Weights of the context that was distilled, in words; support is how much experience stands behind it.

{lessons}

## The gate

Public games that nothing is trained on, played by the version before, by its teacher and by this version.

{gate}

## Privacy

{privacy}
"""
