"""The screens' parts: the only place with streamlit and plotly. It reads studies and starts jobs; it computes nothing heavy."""
