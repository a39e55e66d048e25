"""The forms of a report: CSV, HTML, JSON, Markdown, LaTeX, SVG figures and the terminal."""
