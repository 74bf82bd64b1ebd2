"""Text games that clients play: deterministic, built offline from a `GameSpec` and a seed.

Importing a module of this package does not import TextWorld; preparing or starting one of its games does.
"""
