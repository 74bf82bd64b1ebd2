"""The codecs `text` and `raw`: they send words, in the clear."""
