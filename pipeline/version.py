"""The version of the package: here and nowhere else; that of a result is its code (code.py)."""

VERSION = "0.1.0"
