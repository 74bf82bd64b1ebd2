"""Records of a run: what ``summary.json``, ``events.jsonl`` and manifests hold, as frozen dataclasses.

Standard library only. Whoever writes or reads one of these files does it through these types and `json_codec`.
"""
