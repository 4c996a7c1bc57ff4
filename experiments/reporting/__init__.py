"""Result tables: rows with intervals over users and seeds, and the page that shows them."""
