"""The hot numeric pieces, one a file: a generic body that runs on any array module, and faster ones where they pay."""
