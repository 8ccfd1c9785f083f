"""Thin edges: parse, call, print."""
