"""Mutation testing: is there a change of the rule that no test notices?

mutmut changes one thing at a time in a copy of a module, and the tests of that module must fail. A
change that they let pass is a survivor: it is killed by a test, or explained in `explained.py`. The
command fails while a survivor is neither.

    make mutants
    make mutants MODULES="clock headers"
    make mutants MODULES="quota --again"      only what survived last time, with the tests of now
"""
