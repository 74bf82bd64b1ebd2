"""What an experience vector means: a file or folder for each codec, with its coordinates and its two halves.

A codec is an `Encoder` (on the device: trajectories -> vector) and a `Codec` (on the server: aggregate -> teacher). The
package imports `protocol` and `policies` only. A new codec adds one file or folder, and one line in
`fedoel.codecs.encoder`.
"""
