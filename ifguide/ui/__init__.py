"""The screens: the only room with Streamlit and Plotly. It reads studies and starts jobs.

Imports every room below. It does not know torch, Transformers or datasets, and computes nothing heavy.
"""
