"""A run as one HTML page: the file ``report.html``, and the live page of ``fedoel dash``. Both are the same page."""
