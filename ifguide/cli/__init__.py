"""The command line: a file for each group of commands. Parse, call, print.

Imports every room below. It computes nothing itself.
"""
