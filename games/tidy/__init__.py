"""Tidying up, in pure Python: things lie about in a few rooms, and the player puts each of them where it belongs.

The rules are easy. What belongs where is knowledge of the world, which the player's language model has to bring along.
"""
