"""The codec `embedding`: a linear reward head over the language model's own representation of commands."""
