"""The codec `prefix`: coordinates of a soft prompt."""
