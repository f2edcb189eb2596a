"""Compare: which strategy to ship."""
