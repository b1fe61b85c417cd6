"""Models behind HTTP and gRPC: limits, batching, protocols, the page. Needs the extra `serve`."""
