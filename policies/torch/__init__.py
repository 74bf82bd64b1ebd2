"""The language model by torch: plays many games in one batch, under any context, and can be trained."""
