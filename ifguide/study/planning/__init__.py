"""What a run will take on this machine, and settings that fit model, data and device. Builds nothing of a study."""
