"""Studies and what is in them for other people and tools: packed files, the Hub, exports. Computes no scores."""
