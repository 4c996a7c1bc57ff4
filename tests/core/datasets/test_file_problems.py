"""Values as messages show them."""

from onerec.datasets.file_problems import shown


def test_values_are_shown_on_one_short_line() -> None:
    assert shown("a\nb") == "a b"
    assert len(shown("x" * 1_000)) == 200


def test_a_value_is_shown_in_printable_characters() -> None:
    assert shown("a\0b\u200b") == r"a\x00b\u200b"
