"""The server's halves of the codecs: from an aggregate to the teacher's context."""
