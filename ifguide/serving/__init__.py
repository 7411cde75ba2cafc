"""Models that answer while a reader waits: a process that holds them, and the app's client for it.

Imports every compute room below, and studies. It does not know Streamlit, Plotly or the command line; `client`, which
the app imports, does not know torch.
"""
