"""The codec `steering`: coordinates of control vectors in the residual stream."""
