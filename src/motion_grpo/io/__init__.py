"""File formats of motion: readers, writers, and the table of suffixes that :meth:`Motion.save` goes by."""
