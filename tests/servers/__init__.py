"""Servers that nobody here wrote, with the rate limiters that people use with them.

`running` starts one on loopback; `README.md` has what each says in its headers.
"""
