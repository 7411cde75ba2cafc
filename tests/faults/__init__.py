"""What may happen to a study while nobody looks: killed processes, full disks, damaged files, clocks that go back."""
