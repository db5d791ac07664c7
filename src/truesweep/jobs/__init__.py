"""A job is a frozen configuration and a directory; everything here starts from those two."""
