"""Schedules of calls and faults, composed from a seed, against the whole stack in virtual time.

python -m tests.chaos --schedules 10000 --processes 2     # what CI runs
python -m tests.chaos --seed 4711                         # one of them again
python -m tests.chaos --hours 8                           # a soak, from a random seed on
"""
