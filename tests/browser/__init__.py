"""Tests of the documentation page and the JavaScript example in a real browser."""
