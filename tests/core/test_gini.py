import doctest

from onerec import gini


def test_the_examples_of_the_docstring() -> None:
    assert doctest.testmod(gini).failed == 0
