"""What a vector says: one folder a codec, with its coordinates, its device half and its server half.

Imports `protocol` and `policies`.
"""
