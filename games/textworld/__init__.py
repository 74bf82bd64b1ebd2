"""TextWorld games (arXiv 1806.11532): generated from a seed, compiled to a story file, played by an interpreter.

Importing this package does not import TextWorld; generating or starting a game does.
"""
