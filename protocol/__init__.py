"""What devices and server agree on: plain data, wire formats and pure functions over them.

Imports numpy and cryptography only, so that `import fedoel.protocol` is light; the one module that touches
Flower records, `messages`, is imported by name where a message is sent or read.
"""
