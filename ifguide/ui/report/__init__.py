"""The report: what a study found, as one HTML file that works offline.

`facts` collects, `figures` draws, `page` puts it together; `markup` keeps text from becoming HTML.
"""
