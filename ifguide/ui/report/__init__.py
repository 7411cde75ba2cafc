"""The report: a study's results as one HTML file that works offline.

`facts` collects, `page` and `figures` prepare values for `page.html`, `figures.html` and `report.css`; `templates`
escapes all text.
"""
