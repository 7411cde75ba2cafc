"""What can be asked of a built study: explanations, comparisons, exports, verification.

Imports every compute room below and the study's folder. It does not know Streamlit or Plotly.
"""
