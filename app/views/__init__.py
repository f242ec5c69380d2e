"""HTTP: one module and one blueprint for each group of routes."""
