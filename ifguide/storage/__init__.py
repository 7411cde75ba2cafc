"""Files on disk: artefacts that appear whole or not at all, hashes, locks, shards, memory maps.

Imports `errors` alone. It does not know what an artefact holds.
"""
