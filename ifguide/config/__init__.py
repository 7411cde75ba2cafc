"""The settings of a study: their types, defaults and documentation, and study.toml in and out.

Imports `errors` alone. It does not know what a setting does.
"""
