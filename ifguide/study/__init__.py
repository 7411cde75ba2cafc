"""One study: its folder, its stages, and what they read and write.

Imports every compute room below. It does not know Streamlit, Plotly or the command line.
"""
