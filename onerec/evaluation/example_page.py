"""The page of example users, whose sections begin with `## <user id>`: users and ids taken out.

Apart from what writes the page (`user_examples`), so that erasure does not load the models.
"""

import re
from collections.abc import Collection
from itertools import count

from onerec.markdown import plain

PAGE_FILE = "user_examples.md"


def heading(user: object) -> str:
    """The line with which the section of a user begins.

    Examples:
        >>> heading("a\\n## b")
        '## a \\\\#\\\\# b'
    """
    return f"## {plain(user)}"


def without_users(page: str, users: Collection[str]) -> tuple[str, int]:
    """The page without some users, and how many of them it showed.

    Examples:
        >>> without_users("## a\\nlists\\n## ab\\nlists\\n", ["a"])
        ('## ab\\nlists\\n', 1)
    """
    # pages of earlier versions have the ids as they are
    headings = tuple(f"{line}\n" for user in users for line in (heading(user), f"## {user}"))
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
