"""The app: `ifguide app`, or `streamlit run app.py`, which opens more slowly. It shows studies and starts jobs, which
run in other processes."""

from ifguide.ui import frame

with frame.framed() as page:
    page.run()
