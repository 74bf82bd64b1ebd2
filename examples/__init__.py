"""Plug-ins of every kind, each in one short file that the tests run and whose lines they count."""
