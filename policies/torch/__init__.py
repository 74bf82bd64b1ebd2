"""A language model by torch: plays many games in one batch, takes contexts in, and can be trained."""
