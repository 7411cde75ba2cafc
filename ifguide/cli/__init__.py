"""The command line: a file for each command. Parse, call, print.

Imports every room below. It computes nothing itself.
"""
