"""The packages of fedoel are the folders that are here: an installation from fewer folders has fewer packages.

A device's container copies no `simulations`, for example. Everything else is in pyproject.toml.
"""

from setuptools import find_packages, setup

ROOMS = ("cli", "client", "codecs", "games", "policies", "protocol", "server", "simulations", "strategies")

setup(packages=[f"fedoel.{name}" for name in find_packages(include=[*ROOMS, *(f"{room}.*" for room in ROOMS)])])
