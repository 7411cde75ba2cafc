"""The app: `ifguide app`, or `streamlit run app.py`, which is slower to open. It shows studies and starts jobs; the
work itself runs in processes of its own."""

from ifguide.ui import frame

with frame.framed() as page:
    page.run()
