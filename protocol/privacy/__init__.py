"""Client-level differential privacy: clipping, quantisation, and distributed discrete Gaussian noise."""
