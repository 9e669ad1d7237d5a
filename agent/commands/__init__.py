"""The commands of ``firstread``, grouped by who uses them; each is one call into the rooms."""
