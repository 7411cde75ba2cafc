"""AppTest as a server that has shown a page before.

Beside a folder called `pages`, Streamlit runs a linked page without app.py when it is the first that a server is asked
for. AppTest goes back to that state before every run; a server does not. (The browser tests cover the first request.)
"""

from streamlit.runtime.pages_manager import PagesManager

_start = PagesManager.__init__


def start_after_the_first_page(self, *args, **kwargs) -> None:
    """`PagesManager.__init__` as it is once `st.navigation` has run."""
    _start(self, *args, **kwargs)
    PagesManager.uses_pages_directory = False
