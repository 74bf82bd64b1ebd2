"""What the assistant can do (table.toml), and the sentences that ask for it in a language, divided into splits."""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from string import Formatter
from typing import Any

from ...protocol.errors import GameError
from .templates import Template, Value, may_be_silent, parse, value_sets, variants

SPLITS = ("valid", "test", "train")
HELD_OUT = 0.2  # share of the templates in valid, and in test
SlotValue = str | int
MISSING = "the assistant needs home-assistant-intents, which is not installed: pip install 'fedoel[assistant]'"


@dataclass(frozen=True, slots=True)
class Sentence:
    """One sentence template that asks for a command.

    Parameters
    ----------
    template
        The template.
    values
        The values that it says.
    is_local
        Whether it leaves out the room, because it means the room in which it is said.
    """

    template: Template
    values: frozenset[Value]
    is_local: bool


@dataclass(frozen=True, slots=True)
class Command:
    """One thing that the assistant can do.

    Parameters
    ----------
    words
        The command in plain words, with its slots in braces.
    slots
        Names of the slots.
    sentences
        The sentences that ask for it, by split; ``"all"`` has those of every split.
    """

    words: str
    slots: tuple[str, ...]
    sentences: Mapping[str, Sequence[Sentence]]


@dataclass(frozen=True, slots=True)
class Language:
    """What can be said in one language.

    Parameters
    ----------
    commands
        The commands for which each split has a sentence template.
    values
        The values of each slot.
    wordings
        The words for a value that is not a number, by slot and value.
    shown
        The words of a value in commands, by slot and value, where it is not the value itself.
    """

    commands: Sequence[Command]
    values: Mapping[str, Sequence[SlotValue]]
    wordings: Mapping[tuple[str, SlotValue], Template]
    shown: Mapping[str, Mapping[SlotValue, str]]

    def show(self, command: Command, slots: Mapping[str, SlotValue]) -> str:
        """Return a command in plain words."""
        return command.words.format_map({slot: self.shown.get(slot, {}).get(v, v) for slot, v in slots.items()})


@cache
def load_language(name: str) -> Language:
    """Return what can be said in a language, e.g. ``"en"``; it is read once.

    Raises
    ------
    GameError
        If home-assistant-intents is not installed, or does not have the language.
    """
    try:
        from home_assistant_intents import get_intents
    except ImportError as error:
        raise GameError(MISSING) from error
    intents = get_intents(name)
    if intents is None:
        raise GameError(f"home-assistant-intents has no sentences in the language {name!r}")
    table = tomllib.loads((files(__package__) / "table.toml").read_text(encoding="utf-8"))
    return _Reader(intents, table, table["names"].get(name, {})).language()


class _Reader:
    """Reads a language: the sentences of the package, and the names that homes give to rooms and things."""

    def __init__(
        self, intents: Mapping[str, Any], table: Mapping[str, Any], names: Mapping[str, Sequence[str]]
    ) -> None:
        self._intents, self._table, self._names = intents, table, names
        self._rules: dict[str, Template] = {}
        self._values: dict[str, list[SlotValue]] = {}
        self._wordings: dict[tuple[str, SlotValue], Template] = {}
        for slot, words in names.items():
            self._values[slot] = table["values"][slot]
            self._wordings |= {(slot, v): word for v, word in zip(self._values[slot], words, strict=True)}

    def language(self) -> Language:
        commands = [command for entry in self._table["commands"] if (command := self._command(entry))]
        return Language(commands, self._table["values"] | self._values, self._wordings, self._table["shown"])

    def _rule(self, name: str) -> Template:
        if name not in self._rules:
            self._rules[name] = parse(self._intents["expansion_rules"][name], self._rule)
        return self._rules[name]

    def _command(self, entry: Mapping[str, Any]) -> Command | None:
        """Return a command, or None if its sentence templates are too few for three splits."""
        slots = tuple(slot for _, slot, _, _ in Formatter().parse(entry["words"]) if slot)
        sentences = list(dict.fromkeys(self._sentences(entry, frozenset(slots))))
        while len(sentences) < len(SPLITS):
            unfolded = next((s for s in sentences if len(_variants(s)) > 1), None)
            if unfolded is None:
                return None
            sentences.remove(unfolded)
            sentences += _variants(unfolded)
        sentences.sort(key=lambda s: hashlib.sha256(repr((s.template, s.is_local)).encode()).digest())
        held_out = max(1, round(HELD_OUT * len(sentences)))
        parts = sentences[:held_out], sentences[held_out : 2 * held_out], sentences[2 * held_out :]
        return Command(entry["words"], slots, {**dict(zip(SPLITS, parts, strict=True)), "all": sentences})

    def _sentences(self, entry: Mapping[str, Any], slots: frozenset[str]) -> Iterator[Sentence]:
        """Yield the sentences that ask for a command, as far as the language has words for their values."""
        for block in self._intents["intents"].get(entry["intent"], {"data": ()})["data"]:
            is_local = "area" in block.get("requires_context", {})
            if not _means(block, entry) or (is_local and "area" not in slots):
                continue
            needed = slots - {"area"} if is_local else slots
            for text in block["sentences"]:
                template = parse(text, self._rule)
                values = self._values_to_say(template, needed)
                # A sentence that may be "the kettle" and no more leaves open what to do with it.
                if values is not None and not (len(needed) == 1 and may_be_silent(template)):
                    yield Sentence(template, values, is_local)

    def _values_to_say(self, template: Template, slots: frozenset[str]) -> frozenset[Value] | None:
        """Return values for exactly these slots that the template and the language have words for, or None."""
        sets = [values for values in value_sets(template) if sorted(v.slot for v in values) == sorted(slots)]
        return min((values for values in sets if all(map(self._has_words, values))), key=sorted, default=None)

    def _has_words(self, value: Value) -> bool:
        """Return whether the language has words for the values of a slot; the first list that has them is kept."""
        slot, possible = value.slot, self._table["values"].get(value.slot, ())
        words = self._intents["lists"].get(value.list_name, {})
        if not possible or isinstance(possible[0], int):
            return "range" in words and bool(possible)
        if words.get("wildcard") or not words:
            return slot in self._names
        known = {entry["out"]: entry["in"] for entry in words.get("values", ()) if isinstance(entry["out"], str)}
        shared = [value for value in possible if value in known]
        if slot not in self._values and len(shared) > 1:
            self._values[slot] = shared
            self._wordings |= {(slot, value): parse(known[value], self._rule) for value in shared}
        return shared == self._values.get(slot)


def _variants(sentence: Sentence) -> list[Sentence]:
    """Return a sentence for each alternative of its first group that leaves its values sayable."""
    templates = (variant for variant in variants(sentence.template) if sentence.values in value_sets(variant))
    return [replace(sentence, template=template) for template in templates]


def _means(block: Mapping[str, Any], entry: Mapping[str, Any]) -> bool:
    """Return whether sentences of a block of the package mean a command of the table, if they have its slots."""
    domains = block.get("requires_context", {}).get("domain")
    return (
        block.get("slots", {}) == entry.get("slots", {})
        and (entry["domain"] in (domains or ()) if "domain" in entry else domains is None)
        and entry.get("response", block["response"]) == block["response"]
    )
