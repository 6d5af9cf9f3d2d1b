"""A local emulator of Amazon SageMaker Job Runtime."""

__version__ = "0.1.0"
