"""Agents that run, each in one file, and a demo that drives them."""
