"""The stage: slides over the whole window for a projector, with what the room asks and votes, and a file that replays
it."""
