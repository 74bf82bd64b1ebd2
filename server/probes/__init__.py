"""What a version does outside of the games that it learns from: it should be what the base model does."""
