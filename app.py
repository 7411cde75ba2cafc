"""The app: `streamlit run app.py`. It shows studies and starts jobs; the work itself runs in processes of its own."""

import streamlit as st

from ifguide.ui import layout

# The pages lie in `screens/`: beside a folder called `pages`, Streamlit opens linked pages by itself until this file has run once.

st.set_page_config(page_title="IF-Guide Studio", page_icon=layout.ICON, layout="wide", initial_sidebar_state=236)
layout.style()

page = st.navigation(
    [
        st.Page("screens/overview.py", title="Overview", icon=":material/dashboard:", default=True),
        st.Page("screens/documents.py", title="Documents", icon=":material/article:"),
        st.Page("screens/threshold.py", title="Threshold", icon=":material/tune:"),
        st.Page("screens/compare.py", title="Compare", icon=":material/compare:"),
    ]
)
layout.pick_study()
layout.sidebar_options()
page.run()
