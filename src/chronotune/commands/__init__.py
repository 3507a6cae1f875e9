"""The commands, each a function that parses, calls and prints; `cli` makes them a program.

Heavy imports happen inside the command that needs them.
"""
