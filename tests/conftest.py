"""Settings of every test run."""

import os

# tiny models gain nothing from threads, and several test processes on few cores lose most of their time to them
os.environ.setdefault("OMP_NUM_THREADS", "1")
