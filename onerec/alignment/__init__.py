"""Preference alignment: sessions to compare, and the losses that learn from them.

`onerec.alignment.train` trains; it imports Lightning, so it is not imported here. Names of the
configuration become losses in `onerec.alignment.methods` and nowhere else.
"""
