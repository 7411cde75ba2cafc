"""What can be asked of a built study: explanations, comparisons, exports, verification."""
