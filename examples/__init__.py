"""Agents that run, each in one file."""
