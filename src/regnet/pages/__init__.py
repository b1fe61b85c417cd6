"""Reports: a topic builds a `Report`; the terminal shows it as text, a browser as one HTML file."""
