"""Options of plug-ins: found in constructors, read from a line of text, refused where they do not fit."""

from __future__ import annotations

from typing import Any

import pytest

from fedoel.protocol.errors import ConfigError
from fedoel.protocol.options import options_of, read_options
from fedoel.protocol.plugins import POINTS


class Base:
    def __init__(self, first: int, *, seed: int = 0) -> None:
        self.first = first


class Middle(Base):
    def __init__(self, *arguments: Any, beta_1: float = 0.5, loud: bool = False, **settings: Any) -> None:
        super().__init__(*arguments, **settings)


class Last(Middle):
    def __init__(self, *arguments: Any, beta_1: float = 0.25, name_: str = "x", **settings: Any) -> None:
        super().__init__(*arguments, **settings)


class Untyped(Base):
    def __init__(self, *arguments: Any, share=0.5, **settings: Any) -> None:  # type: ignore[no-untyped-def]
        super().__init__(*arguments, **settings)


class Needed(Base):
    def __init__(self, *arguments: Any, share: float, **settings: Any) -> None:
        super().__init__(*arguments, **settings)


def test_options_are_what_constructors_take_by_keyword_only() -> None:
    assert not options_of(Base, Base)
    found = options_of(Last, Base)
    assert {name: str(option) for name, option in found.items()} == {
        "beta_1": "beta-1=0.25", "loud": "loud=false", "name_": "name=x",
    }  # fmt: skip


def test_options_are_read_with_their_types() -> None:
    found = read_options(" beta-1=2 loud=true  name=a=b ", options_of(Last, Base))
    assert found == {"beta_1": 2.0, "loud": True, "name_": "a=b"}
    assert read_options("", options_of(Last, Base)) == {}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("beta_1=2", "unknown option 'beta_1=2'; .*beta-1=0.25"),
        ("seed=1", "unknown option 'seed=1'"),
        ("loud", "unknown option 'loud'"),
        ("loud=yes", "loud must be true or false, not 'yes'"),
        ("beta-1=x", "beta-1 must be a number"),
        ("beta-1=nan", "beta-1 must be a number, not nan"),
        ("beta-1=1 beta-1=2", "given twice"),
    ],
)
def test_options_that_do_not_fit_are_refused(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        read_options(text, options_of(Last, Base))


def test_annotations_that_name_nothing_are_refused() -> None:
    class Lost(Base):
        def __init__(self, *arguments: Any, share: Nowhere = 0.5, **settings: Any) -> None:  # type: ignore # noqa: F821
            super().__init__(*arguments, **settings)

    with pytest.raises(ConfigError, match="annotations of Lost cannot be read"):
        options_of(Lost, Base)


@pytest.mark.parametrize("kind", [Untyped, Needed])
def test_a_class_must_say_type_and_default(kind: type) -> None:
    with pytest.raises(ConfigError, match="share"):
        options_of(kind, Base)


def test_what_is_built_in_cannot_be_replaced_and_ones_own_is_found_by_path() -> None:
    point = POINTS["codec"]
    assert point.find("mine", {"mine": 3}) == 3
    assert point.find("json:dumps", {}).__name__ == "dumps"  # type: ignore[attr-defined]
    for name in ("nowhere:Mine", "json:nothing", ":x", "mine"):
        with pytest.raises(ConfigError, match=r"codec\.name"):
            point.find(name, {"other": 1})
