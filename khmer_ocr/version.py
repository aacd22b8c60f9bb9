"""The version, where every stage can import it without the package's public names."""

__version__ = "0.1.0"
