"""The small run of the simulations' tests."""

from ..simulations.conftest import run, save, summary

__all__ = ["run", "save", "summary"]
