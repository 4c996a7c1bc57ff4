"""Preference alignment: pairs from the generator's own beams, and the losses that learn from them.

`onerec.alignment.train` trains; it imports Lightning, so it is not imported here.
"""
