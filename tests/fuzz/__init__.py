"""Whatever a server or a caller hands to the parsers and the rule, mutated by atheris.

make fuzz                                                           # each target for a minute
python -m tests.fuzz --seconds 600 headers rule                     # two of them for ten
python -m tests.fuzz --keep                                         # keep what covers more
python -m tests.fuzz.drive rule build/fuzz/crashes/rule-crash-1     # one input again
"""
