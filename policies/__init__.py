"""The policy protocol, and language models that implement it by torch and by llama.cpp. Imports `protocol` only."""
