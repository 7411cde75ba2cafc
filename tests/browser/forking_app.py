"""The app's server whose jobs and models' process are forks: `python -m tests.browser.forking_app [options]`."""

import sys

from ifguide.runtime import jobs
from ifguide.serving import client
from ifguide.ui import server
from tests import warm

if __name__ == "__main__":
    jobs.subprocess = client.subprocess = warm
    server.main(sys.argv[1:])
