"""A voice assistant at home: someone says something, and the player chooses the command that was meant.

What people say is drawn from the sentence templates of the package home-assistant-intents. Held out are templates, so
that a player meets sentences in a form that it never learned from.
"""
