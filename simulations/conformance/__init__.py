"""Conformance checks of plug-ins, which their authors run with ``fedoel check-plugin``."""
