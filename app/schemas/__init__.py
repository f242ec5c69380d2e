"""Shapes on the wire: one module for each module of views."""
