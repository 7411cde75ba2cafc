"""The report: what a study found, as one HTML file that works offline.

`facts` collects, `page` and `figures` prepare, `page.html`, `figures.html` and `report.css` are the page; `templates`
keeps text from becoming HTML.
"""
