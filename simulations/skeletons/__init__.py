"""Plug-ins to start from, as texts: ``$name`` is the package, ``$Name`` the class."""
