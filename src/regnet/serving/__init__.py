"""Models behind HTTP: limits, batching, protocols, the page. Needs the extra `serve`."""
