"""Judges as data: what says how toxic a text is, as files that can be read, hashed and kept. Nothing is unpickled."""
