"""What each stage of a study computes. Knows the artefacts' files; not the order they are built in, nor who asks."""
