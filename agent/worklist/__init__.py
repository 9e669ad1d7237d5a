"""The reading worklist: the order of the list, and the messages that move it."""
