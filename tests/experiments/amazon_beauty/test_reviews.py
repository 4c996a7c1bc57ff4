"""Amazon reviews: the split by hand, errors that say where, and the real files where they are."""

from pathlib import Path

import numpy as np
import pytest

from experiments.amazon_beauty.reviews import read_amazon

ITEMS = "item_id\tasin\ttitle\tattributes\n" + "".join(
    f"{n}\tB{n}\t{title}\tBrand|Category\n" for n, title in enumerate("abcdef", start=1)
)
SEQUENCES = "1 1 2 3 4\n2 5 1 6\n"


def written(directory: Path, *, items: str = ITEMS, sequences: str = SEQUENCES) -> Path:
    (directory / "items.tsv").write_text(items)
    (directory / "sequences.txt").write_text(sequences)
    return directory


def test_the_last_item_tests_and_the_one_before_validates(tmp_path: Path) -> None:
    reviews = read_amazon(written(tmp_path))
    assert (reviews.num_users, reviews.num_items) == (2, 6)
    items, users = reviews.learned()
    assert items.tolist() == [0, 1, 4]
    assert users.tolist() == [0, 0, 1]
    valid, test = reviews.cases("valid", 2), reviews.cases("test", 2)
    assert valid.history.tolist() == [[0, 1], [4, -1]]
    assert valid.targets.tolist() == [[2], [0]]
    assert test.history.tolist() == [[1, 2], [4, 0]]  # the first user's is capped
    assert test.targets.tolist() == [[3], [5]]
    assert reviews.titles.tolist() == list("abcdef")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"items": "id\ttitle\n"}, r"items.tsv, line 1: the header is \['id', 'title'\]; use item"),
        ({"items": ITEMS + "7\tB7\tx\n"}, "items.tsv, line 8: 3 fields instead of 4; separate"),
        ({"items": ITEMS + "9\tB9\tx\ty\n"}, "items.tsv, line 8: item_id='9'; number the items"),
        ({"sequences": "1 1 2 3\n2 4 x 5\n"}, "sequences.txt, line 2: 'x' is no number"),
        ({"sequences": "1 1 2 3\n2 4 5\n"}, "sequences.txt, line 2: 2 items; leave out users"),
        ({"sequences": "1 1 2 7\n"}, "sequences.txt, line 1: item 7 is not in items.tsv, which"),
        ({"sequences": ""}, "sequences.txt: no users"),
    ],
)
def test_errors_name_file_line_field_and_remedy(
    tmp_path: Path, change: dict[str, str], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        read_amazon(written(tmp_path, **change))


def test_a_missing_file_and_an_unknown_split_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"sequences\.txt: no such file; point at a directory"):
        read_amazon(tmp_path)
    with pytest.raises(ValueError, match="split='train': use 'valid' or 'test'"):
        read_amazon(written(tmp_path)).cases("train")


def test_the_real_files_are_the_published_ones(shared_data: Path) -> None:
    if not (shared_data / "amazon_beauty").is_dir():
        pytest.skip("../shared/data/amazon_beauty is not here")
    reviews = read_amazon(shared_data / "amazon_beauty")
    assert (reviews.num_users, reviews.num_items, len(reviews.items)) == (22_363, 12_101, 198_502)
    assert int((reviews.titles == "").sum()) == 7
    test = reviews.cases("test")
    assert (test.history[:, 0] >= 0).all()
    assert np.array_equal(test.history[0, :4], [0, 1, 2, 3])  # user 1 read 1 2 3 4 and then 5
    assert test.targets[0, 0] == 4
