"""The codecs `text` and `raw`: words, which nothing hides."""
