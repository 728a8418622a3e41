"""Stand-ins for the few things that vLLM's sources use for real from packages that are not here."""
import typing

MISSING = object()


class Field:
    def __init__(self, default=MISSING, default_factory=None):
        self.default, self.default_factory = default, default_factory

    def make(self):
        return self.default_factory() if self.default_factory else self.default


class Struct:
    """msgspec.Struct as far as its constructor goes: fields by annotation, in order of definition."""

    def __init_subclass__(cls, **options):
        super().__init_subclass__()
        names = {}
        for base in reversed(cls.__mro__):
            for name, kind in vars(base).get("__annotations__", {}).items():
                if not str(kind).startswith(("typing.ClassVar", "ClassVar")):
                    names[name] = getattr(cls, name, MISSING)
        cls._fields = names

    def __init__(self, *args, **kwargs):
        given = dict(zip(self._fields, args), **kwargs)
        if not set(given) <= set(self._fields) or len(args) > len(self._fields):
            raise TypeError("%s%r" % (type(self).__name__, tuple(given)))
        for name, default in self._fields.items():
            value = given.get(name, default.make() if isinstance(default, Field) else default)
            if value is MISSING:
                raise TypeError("%s misses %s" % (type(self).__name__, name))
            setattr(self, name, value)


class StructuredOutputManager:
    """For an engine whose requests have no grammar."""

    def __init__(self, *args):
        pass

    def accept_tokens(self, *args):
        return True

    def should_advance(self, *args, **kwargs):
        return False

    def clear_backend(self):
        pass


def typing_extensions(name):
    """What the standard library has by now, else anything at all."""
    return getattr(typing, name, typing.Any)


if not hasattr(typing, "Self"):  # Python 3.10
    typing.Self = typing.Any
