"""The unmodified SageMaker SDK trains and evaluates with the emulator: what scripts do, and what they leave."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
