"""What a server has of the world: public games that it plays, or a pack of prompts and no world at all."""
