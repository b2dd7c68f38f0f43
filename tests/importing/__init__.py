"""Imports of real and of broken files into real Postgres."""
