"""Differences that are known, with what is to be done. One that no longer shows fails the run: then its line goes."""

PENDING = ()
