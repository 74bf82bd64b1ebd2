"""Prompt packs: public situations without reward, outcome, walkthrough or engine, for a server that never plays.

A pack is a JSONL file in UTF-8. Its first line is a header with ``schema``, ``kind``, ``origin``, ``licence`` and
``red_lines``, if the families that it was made from declare any; every other line is one prompt: ``family``, and the
fields of a `Situation`. Tuples and sets are lists; fields that are empty may be left out. A prompt that is ``open``, or
without ``admissible`` commands, asks for an open answer. A pack is named by its `digest`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any, get_origin, get_type_hints

from .errors import ConfigError, FedoelError
from .formats import PACK
from .host.files import replace_file
from .red_lines import check_red_lines
from .situation import Situation

KIND = "fedoel prompts"
HEADER: Mapping[str, Any] = MappingProxyType({"schema": PACK.current, "kind": KIND, "origin": "", "licence": ""})
RED_LINES = "red_lines"  # of the header; left out where there are none
BYTE_ORDER_MARK = b"\xef\xbb\xbf"  # what some editors write first
FIRST_LINE = 2  # number of the line that holds the first prompt
MAX_TEXT = 8_000  # characters of all texts of a prompt together
MAX_COMMANDS = 256
MAX_BYTES = 64 * 2**20
SHOWN = 60  # characters of a refused value in an error


@dataclass(frozen=True, slots=True)
class Prompt:
    """A situation that a policy can be asked in, and the family of games that it is from.

    Raises
    ------
    ConfigError
        If a field is of another type, all texts together are longer than `MAX_TEXT` or not valid Unicode, or the
        admissible commands are more than `MAX_COMMANDS`, not distinct, or one of them is empty.
    """

    family: str
    situation: Situation

    def __post_init__(self) -> None:
        texts = [_text("family", self.family)]
        for name, hint in field_types().items():
            texts += _texts(name, hint, getattr(self.situation, name))
        if not self.family:
            raise ConfigError("family must not be empty")
        length = sum(map(len, texts))
        if length > MAX_TEXT:
            raise ConfigError(f"the prompt has {length} characters of text, and at most {MAX_TEXT} are allowed")
        commands = self.situation.admissible
        if len(commands) > MAX_COMMANDS:
            raise ConfigError(f"the prompt has {len(commands)} commands, and at most {MAX_COMMANDS} are allowed")
        if "" in commands or len(set(commands)) < len(commands):
            raise ConfigError("the admissible commands must be distinct and none of them empty")


@dataclass(frozen=True)
class PromptPack:
    """Distinct prompts, where they come from, and under which licence they may be used.

    Parameters
    ----------
    red_lines
        What the families that the prompts are from declare that no version may make likelier.

    Raises
    ------
    ConfigError
        If there are no prompts, two of them are equal, `origin` or `licence` is no text of at most `MAX_TEXT`, or
        `red_lines` are none.
    """

    origin: str
    licence: str
    prompts: tuple[Prompt, ...]
    red_lines: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, text in (("origin", self.origin), ("licence", self.licence)):
            if len(_text(name, text)) > MAX_TEXT:
                raise ConfigError(f"{name} has {len(text)} characters, and at most {MAX_TEXT} are allowed")
        check_red_lines(self.red_lines, RED_LINES)
        if not self.prompts:
            raise ConfigError("the pack has no prompts")
        if repeat := _first_repeat(self.prompts):
            raise ConfigError(f"prompt {repeat[1]} equals prompt {repeat[0]}, counted from 0")

    @cached_property
    def digest(self) -> str:
        """The first 16 hexadecimal digits of the SHA-256 of the file's bytes, which `to_bytes` returns."""
        return hashlib.sha256(to_bytes(self)).hexdigest()[:16]

    @property
    def families(self) -> tuple[str, ...]:
        """The families in the order of their first prompts."""
        return tuple(dict.fromkeys(prompt.family for prompt in self.prompts))


def to_bytes(pack: PromptPack) -> bytes:
    """Return the content of a pack's file; the same bytes for equal packs.

    Raises
    ------
    ConfigError
        If it is longer than `MAX_BYTES`.
    """
    header = {**HEADER, "origin": pack.origin, "licence": pack.licence}
    if pack.red_lines:
        header[RED_LINES] = pack.red_lines
    tables = [header, *map(_to_table, pack.prompts)]
    data = b"".join(json.dumps(table, ensure_ascii=False).encode() + b"\n" for table in tables)
    _check_size("the pack", len(data))
    return data


def pack_from_bytes(data: bytes, name: str) -> PromptPack:
    """Read the content of a pack's file.

    Parameters
    ----------
    data
        What `to_bytes` returned, or a file of the same form. Prompt `i` is in line ``FIRST_LINE + i``.
    name
        The file, for error messages.

    Raises
    ------
    ConfigError
        If the data is no pack; the message names the file and the line.
    """
    _check_size(name, len(data))
    if not data.strip():
        raise ConfigError(f"{name}, line 1: there is no header; `fedoel prompts make` writes files that have one")
    prompts = list[Prompt]()
    for number, line in enumerate(data.removeprefix(BYTE_ORDER_MARK).rstrip().split(b"\n"), 1):
        try:
            if number == 1:
                header = _checked_header(_table_of(line))
            else:
                prompts.append(_to_prompt(_table_of(line)))
        except ConfigError as error:
            raise ConfigError(f"{name}, line {number}: {error}") from error
    if repeat := _first_repeat(prompts):
        earlier, later = (index + FIRST_LINE for index in repeat)
        raise ConfigError(f"{name}, line {later}: this prompt equals the one of line {earlier}")
    try:
        red_lines: Any = _to_value(tuple[str, ...], header[RED_LINES])
        return PromptPack(header["origin"], header["licence"], tuple(prompts), red_lines)
    except ConfigError as error:
        raise ConfigError(f"{name}, line 1: {error}") from error


def read_pack(path: Path) -> PromptPack:
    """Read a pack's file; raises `ConfigError` if that is not possible, as `pack_from_bytes` does."""
    try:
        if path.exists() and not path.is_file():
            raise ConfigError(f"{path} is no file: name a pack of prompts")
        _check_size(str(path), path.stat().st_size)
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    return pack_from_bytes(data, str(path))


def write_pack(path: Path, pack: PromptPack) -> None:
    """Write a pack's file as a whole.

    Raises
    ------
    ConfigError
        If the pack is too large.
    FedoelError
        If the disk refuses it.
    """
    data = to_bytes(pack)
    try:
        replace_file(path, data)
    except OSError as error:
        raise FedoelError(f"{path} cannot be written: {error.strerror}") from error


@cache
def field_types() -> Mapping[str, Any]:
    """Return the type hint of each field of a public `Situation`: a text, a number, a truth value, or several texts."""
    return {name: hint for name, hint in get_type_hints(Situation).items() if name != "alternatives"}


def _to_table(prompt: Prompt) -> dict[str, Any]:
    values = {name: getattr(prompt.situation, name) for name in field_types()}
    lists = {name: sorted(value) if isinstance(value, frozenset) else value for name, value in values.items()}
    return {"family": prompt.family, **{name: value for name, value in lists.items() if value}}


def _to_prompt(table: Mapping[str, Any]) -> Prompt:
    _check_names(table, ("family", *field_types()))
    if "family" not in table:
        raise ConfigError("family is missing")
    hints = field_types()
    values: dict[str, Any] = {
        name: _to_value(hint, table[name]) if name in table else _empty(hint) for name, hint in hints.items()
    }
    return Prompt(table["family"], Situation(**values))


def _to_value(hint: Any, value: object) -> object:
    """Return a list of texts as the collection that a hint asks for, and any other value as it is."""
    collection = get_origin(hint)
    listed = isinstance(value, list) and all(isinstance(text, str) for text in value)
    return collection(value) if collection and listed else value


def _empty(hint: Any) -> object:
    return (get_origin(hint) or hint)()


def _table_of(line: bytes) -> Mapping[str, Any]:
    try:
        table = json.loads(line.decode())
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"it is not JSON in UTF-8: {str(error)[:SHOWN]}") from error
    if not isinstance(table, dict):
        raise ConfigError(f"it must be a JSON object, not {_shown(table)}")
    return table


def _checked_header(table: Mapping[str, Any]) -> Mapping[str, Any]:
    if table.get("kind") != KIND or type(table.get("schema")) is not int:
        raise ConfigError(
            f'it must be the header of a prompt pack, {{"schema": {PACK.current}, "kind": "{KIND}", ...}}'
        )
    PACK.check(table["schema"], "the pack")
    _check_names(table, (*HEADER, RED_LINES))
    return {**HEADER, RED_LINES: [], **table}


def _check_names(table: Mapping[str, Any], known: Sequence[str]) -> None:
    for name in table:
        if name not in known:
            raise ConfigError(f"unknown field {_shown(name)}; known are {', '.join(known)}")


def _check_size(name: str, size: int) -> None:
    if size > MAX_BYTES:
        raise ConfigError(f"{name} has {size} bytes, and a prompt pack has at most {MAX_BYTES}: split it")


def _texts(name: str, hint: Any, value: Any) -> list[str]:
    """Return the texts of a field's value, after a check of its type; none for a number."""
    if hint is bool:
        if type(value) is not bool:
            raise ConfigError(f"{name} must be true or false, not {_shown(value)}")
        return []
    if hint is int:
        if type(value) is not int or value < 0:
            raise ConfigError(f"{name} must be a whole number of at least 0, not {_shown(value)}")
        return []
    if hint is str:
        return [_text(name, value)]
    if not isinstance(value, get_origin(hint)):
        raise ConfigError(f"{name} must be a list of texts, not {_shown(value)}")
    return [_text(name, text) for text in value]


def _text(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise ConfigError(f"{name} must be text, not {_shown(value)}")
    try:
        value.encode()
    except UnicodeEncodeError as error:  # half of a surrogate pair, which JSON can escape
        raise ConfigError(f"{name} is not valid Unicode at character {error.start}") from error
    return value


def _first_repeat(prompts: Iterable[Prompt]) -> tuple[int, int] | None:
    """Return the indices of the first prompt that equals an earlier one: the earlier, then the later; None if none."""
    index_of: dict[Prompt, int] = {}
    for index, prompt in enumerate(prompts):
        if (earlier := index_of.setdefault(prompt, index)) != index:
            return earlier, index
    return None


def _shown(value: object) -> str:
    return repr(value)[:SHOWN]
