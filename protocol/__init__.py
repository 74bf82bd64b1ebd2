"""What devices and server share: plain data, wire formats, and pure functions of them.

Depends on numpy and cryptography only. Modules that read or write Flower records (`messages`, `signing`,
`secagg.messages`) are imported only where messages are sent or read.
"""
