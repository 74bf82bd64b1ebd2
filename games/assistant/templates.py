"""Sentence templates in the notation of Home Assistant, and how sentences are drawn from them.

``turn on [the] {area} (light|lights)``: brackets hold what may be left out, parentheses alternatives, or with
semicolons parts in any order; ``{list:slot}`` is a value, ``<name>`` another template that is inserted.
Source: the template syntax of hassil, the parser of Home Assistant.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import product
from typing import TypeAlias

from numpy.random import Generator

from ...protocol.errors import GameError

TOKEN = re.compile(r"<(?P<rule>[^<>]+)>|\{(?P<value>[^{}]+)\}|(?P<mark>[][()|;])|(?P<text>[^][()|;<>{}]+)")
CLOSING = {"(": ")", "[": "]"}


@dataclass(frozen=True, slots=True, order=True)
class Value:
    """The value of a slot, worded as its list says."""

    list_name: str
    slot: str


@dataclass(frozen=True, slots=True)
class Choice:
    """One of several alternatives; `optional` if one of them is to say nothing."""

    options: tuple[Template, ...]
    optional: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """Several parts, one after the other, or in any order."""

    parts: tuple[Template, ...]
    any_order: bool = False


Template: TypeAlias = str | Value | Choice | Row
Values = frozenset[Value]


def parse(text: str, rule: Callable[[str], Template]) -> Template:
    """Read a template.

    Parameters
    ----------
    text
        The template.
    rule
        Returns the template of a name in angle brackets.

    Raises
    ------
    GameError
        If a bracket is not closed, or a character has no meaning where it stands.
    """
    tokens = list(TOKEN.finditer(text))
    if "".join(token[0] for token in tokens) != text:
        raise GameError(f"cannot read the sentence template {text!r}")
    return _group(iter(tokens), "", rule)


def _group(tokens: Iterator[re.Match[str]], closing: str, rule: Callable[[str], Template]) -> Template:
    """Read up to the closing bracket, or to the end at the top level."""
    options: list[list[Template]] = [[]]
    separator = ""
    for token in tokens:
        mark, inside = token["mark"], options[-1]
        if mark and mark == closing:
            break
        if mark in ("|", ";"):
            if separator not in ("", mark):
                raise GameError("a sentence template mixes '|' and ';' in one group")
            separator = mark
            options.append([])
        elif mark in CLOSING:
            inside.append(_group(tokens, CLOSING[mark], rule))
        elif mark:
            raise GameError(f"a sentence template has {mark!r} where it closes nothing")
        elif token["rule"]:
            inside.append(rule(token["rule"]))
        elif token["value"]:
            list_name, _, slot = token["value"].partition(":")
            inside.append(Value(list_name, slot or list_name))
        else:
            inside.append(token["text"])
    else:
        if closing:
            raise GameError(f"a sentence template lacks {closing!r}")
    parts = tuple(option[0] if len(option) == 1 else Row(tuple(option)) for option in options)
    if separator == ";":
        parts = (Row(parts, any_order=True),)
    return Choice(parts, optional=closing == "]") if len(parts) > 1 or closing == "]" else parts[0]


def value_sets(template: Template) -> frozenset[Values]:
    """Return which values a sentence of this template may say: one set for each combination of alternatives."""
    match template:
        case str():
            return frozenset({frozenset()})
        case Value():
            return frozenset({frozenset({template})})
        case Choice(options, optional):
            said = frozenset().union(*map(value_sets, options))
            return said | {frozenset[Value]()} if optional else said
        case Row(parts):
            return frozenset(frozenset[Value]().union(*sets) for sets in product(*map(value_sets, parts)))


def may_be_silent(template: Template) -> bool:
    """Return whether a sentence of this template may consist of values alone."""
    match template:
        case str():
            return not template.strip()
        case Value():
            return True
        case Choice(options, optional):
            return optional or any(map(may_be_silent, options))
        case Row(parts):
            return all(map(may_be_silent, parts))


def variants(template: Template) -> Iterator[Template]:
    """Yield the template once for each alternative of its first group that has to be said; itself if it has none."""
    if isinstance(template, Choice) and not template.optional:
        yield from template.options
    elif isinstance(template, Row):
        for index, part in enumerate(template.parts):
            if len(replaced := list(variants(part))) > 1:
                before, after = template.parts[:index], template.parts[index + 1 :]
                yield from (replace(template, parts=(*before, variant, *after)) for variant in replaced)
                return
        yield template
    else:
        yield template


def say(template: Template, wording: Mapping[Value, str], rng: Generator) -> str:
    """Draw a sentence that says exactly these values.

    Parameters
    ----------
    template
        A template one of whose `value_sets` is the keys of `wording`.
    wording
        The words for each value.
    rng
        Generator of the draw.
    """
    while True:
        words = _draw(template, rng)
        if {word for word in words if isinstance(word, Value)} == wording.keys():
            return " ".join("".join(wording[word] if isinstance(word, Value) else word for word in words).split())


def _draw(template: Template, rng: Generator) -> list[str | Value]:
    match template:
        case Choice(options, optional):
            index = int(rng.integers(len(options) + optional))
            return _draw(options[index], rng) if index < len(options) else []
        case Row(parts, any_order):
            order = rng.permutation(len(parts)) if any_order else range(len(parts))
            space = [" "] if any_order else []
            return [word for index in order for word in (*space, *_draw(parts[index], rng), *space)]
        case _:
            return [template]
