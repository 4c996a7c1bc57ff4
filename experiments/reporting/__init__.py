"""Result tables with intervals over users and seeds, and the results page."""
