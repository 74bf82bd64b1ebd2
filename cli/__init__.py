"""The command ``fedoel``: one module a verb, each with its flags. Imports what does the work when the verb runs."""
