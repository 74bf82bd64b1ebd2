"""The language model by llama.cpp: plays on devices without torch."""
