"""The two errors of the library's own; everything else a user can get wrong is a plain TypeError or ValueError."""

LONGEST = 1000  # characters of a message


class ShapeMismatchError(ValueError):
    """A value has another structure or shape than a layer needs: `ShapeMismatchError(layer, "expected …, got …")`."""

    def __init__(self, layer: object, text: str = ""):
        self.layer, self.text = layer, text
        message = f"{layer if isinstance(layer, str) else repr(layer)} {text}".rstrip()
        super().__init__(
            message if len(message) <= LONGEST else f"{message[: LONGEST // 2]} … {message[-LONGEST // 2 :]}"
        )

    def __reduce__(self):
        return type(self), (str(self),), {"__notes__": self.__notes__} if hasattr(self, "__notes__") else None


class BackwardError(RuntimeError):
    """A backward that no forward waits for: it came first, or it came twice."""
