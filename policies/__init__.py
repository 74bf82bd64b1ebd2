"""Who answers: the policy protocol, and language models behind it by torch and llama.cpp. Imports `protocol` only."""
