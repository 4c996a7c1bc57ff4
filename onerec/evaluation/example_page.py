"""The page of example users, whose sections begin with `## <user id>`: users and ids taken out.

Apart from what writes the page (`user_examples`), so that erasure does not load the models.
"""

import re
from collections.abc import Collection
from itertools import count

PAGE_FILE = "user_examples.md"


def without_users(page: str, users: Collection[str]) -> tuple[str, int]:
    """The page without some users, and how many of them it showed.

    Examples:
        >>> without_users("## a\\nlists\\n## ab\\nlists\\n", ["a"])
        ('## ab\\nlists\\n', 1)
    """
    headings = tuple(f"## {user}\n" for user in users)
    sections = re.split(r"^(?=## )", page, flags=re.MULTILINE)
    kept = [section for section in sections if not section.startswith(headings)]
    return "".join(kept), len(sections) - len(kept)


def without_ids(page: str) -> str:
    """The page with numbers in place of the users' ids.

    Examples:
        >>> without_ids("## a\\nlists\\n## ab\\nlists\\n")
        '## user 1\\nlists\\n## user 2\\nlists\\n'
    """
    numbers = count(1)
    return re.sub(r"^## .*$", lambda _: f"## user {next(numbers)}", page, flags=re.MULTILINE)
