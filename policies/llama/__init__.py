"""The same language model by llama.cpp: for devices without torch."""
