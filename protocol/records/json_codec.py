"""Records as JSON: a frozen dataclass becomes a table of its fields, and a table is read back by the type hints.

Rules that all records follow:

- A field whose default is None is left out of the JSON while it is None; any other None is written as ``null``.
- A field with a default may be missing in a file: it was added after files of that schema were written.
- An unknown field is refused, whatever the schema: it would be lost when the record is written again.
- What is stored as a whole carries its schema under ``"schema"``. Files without that key are of schema 1.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from functools import cache
from types import UnionType
from typing import Any, TypeVar, cast, get_args, get_origin, get_type_hints

from ..errors import ConfigError, RecordError
from ..formats import KEY, RECORDS, described

Record = TypeVar("Record")
Table = dict[str, Any]
LARGEST_FLOAT = int(sys.float_info.max)
SCALARS: Mapping[type, str] = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}


def to_json(record: Any) -> Table:
    """Return the fields of a record as JSON types; numpy scalars become plain numbers."""
    values = ((field, getattr(record, field.name)) for field in fields(record))
    return {field.name: _plain(value) for field, value in values if value is not None or field.default is not None}


def from_json(record_type: type[Record], table: object, path: str = "") -> Record:
    """Read a record.

    Parameters
    ----------
    record_type
        A dataclass. Its type hints may be scalars, other records, ``Mapping[str, ...]``, ``tuple[..., ...]``, and
        unions of scalars or with None.
    table
        What `to_json` returned, or JSON of the same form.
    path
        Where the table is in its file, for error messages: ``cycles[1].gate``.

    Raises
    ------
    RecordError
        If a field is missing, unknown or of another type.
    """
    if not isinstance(table, dict):
        raise RecordError(f"{path or 'it'} must be a table, not {described(table)}")
    prefix, known = f"{path}." if path else "", _typed_fields(cast(Any, record_type))
    for name in table:
        if name not in known:
            raise RecordError(f"{prefix}{name} is not a field of a record of schema {RECORDS.current}")
    for name, (field, _) in known.items():
        if name not in table and field.default is MISSING and field.default_factory is MISSING:
            raise RecordError(f"{prefix}{name} is missing")
    return record_type(**{name: _read(known[name][1], value, f"{prefix}{name}") for name, value in table.items()})


def to_stored(record: Any) -> Table:
    """Return a record as it is stored: with the schema in front."""
    return {KEY: RECORDS.current, **to_json(record)}


def from_stored(record_type: type[Record], table: object, source: object, remedy: str) -> Record:
    """Read what `to_stored` returned, of this schema or an earlier one.

    Parameters
    ----------
    source
        The file, for error messages.
    remedy
        What to do about a damaged file.

    Raises
    ------
    ConfigError
        If the schema is one that is not read, or a field is missing, unknown or of another type.
    """
    try:
        return from_json(record_type, without_schema(table, source))
    except RecordError as error:
        raise ConfigError(f"{source}: {error}; {remedy}") from error


def without_schema(table: Any, source: object) -> Any:
    """Check the schema of what is stored, and return the rest.

    Raises
    ------
    ConfigError
        If the schema is one that is not read, or no schema at all.
    """
    if not isinstance(table, dict):
        return table
    RECORDS.check(table.get(KEY, 1), source)
    return {name: value for name, value in table.items() if name != KEY}


@cache
def _typed_fields(record_type: type) -> Mapping[str, tuple[Field[Any], Any]]:
    hints = get_type_hints(record_type)
    return {field.name: (field, hints[field.name]) for field in fields(record_type)}


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        return to_json(value)
    if isinstance(value, Mapping):
        return {name: _plain(part) for name, part in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(part) for part in value]
    return value.item() if hasattr(value, "item") else value


def _read(hint: Any, value: object, path: str) -> Any:
    """Return a value of the type that a hint asks for."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is UnionType:
        return _read_union(arguments, value, path)
    if is_dataclass(hint):
        return from_json(cast(type, hint), value, path)
    if origin is tuple:
        if not isinstance(value, list):
            raise RecordError(f"{path} must be a list, not {described(value)}")
        return tuple(_read(arguments[0], part, f"{path}[{index}]") for index, part in enumerate(value))
    if origin is not None:  # a mapping
        if not isinstance(value, dict):
            raise RecordError(f"{path} must be a table, not {described(value)}")
        return {name: _read(arguments[1], part, f"{path}.{name}") for name, part in value.items()}
    if hint is float and type(value) is int and abs(value) <= LARGEST_FLOAT:
        return float(value)
    if type(value) is not hint:
        raise RecordError(f"{path} must be {SCALARS[hint]}, not {described(value)}")
    return value


def _read_union(options: tuple[Any, ...], value: object, path: str) -> Any:
    types = [option for option in options if option is not type(None)]
    if value is None and len(types) < len(options):
        return None
    if len(types) > 1 and type(value) not in types:
        raise RecordError(f"{path} must be a text, a number, or true or false, not {described(value)}")
    return value if len(types) > 1 else _read(types[0], value, path)
