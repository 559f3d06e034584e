"""Environments: one package per library. `crlx` itself imports none of them."""
