"""What pure modules raise for a change that cannot be; the writer tells it to whoever asked for the change."""


class Refusal(Exception):
    """A change does not fit what there is. Raised before anything was changed."""
