"""Fixtures that many tests share, one file per thing they stand for."""
