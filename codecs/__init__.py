"""What an experience vector means: one folder per codec, with its coordinates, its device half and its server half.

A codec is an `Encoder` (on the device: trajectories -> vector) and a `Codec` (on the server: aggregate -> teacher). The
package imports `protocol` and `policies` only. A new codec adds one folder, and one line in `fedoel.codecs.encoder`.
"""
