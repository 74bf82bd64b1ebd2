"""Codecs in one method: what a context weighs are features of commands that a plug-in names."""
