"""Histories: concurrent requests to two services while faults are injected, and a checker of all their outcomes.

The checker decides whether the recorded outcomes have an explanation, as Jepsen's Knossos and Porcupine do.
"""
