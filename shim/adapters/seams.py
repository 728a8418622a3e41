"""Seams: functions of an engine that an adapter wraps, each checked before it is touched."""

import functools
import inspect


class Unknown(Exception):
    """A seam that looks different from what the adapter knows."""


class Seams:
    """The modules of one engine and what wraps the seams in each: {module name: function(module)},
    which raises Unknown, or anything, where it does not recognise what it sees."""

    def __init__(self, installers):
        self._installers = installers
        self._unknown = {}  # module name -> "" once installed, or what is unknown

    def hooks(self):
        """Module name -> function for the import finder; none of them raises."""
        return {name: functools.partial(self._install, function)
                for name, function in self._installers.items()}

    def _install(self, function, module):
        try:
            function(module)
            self._unknown[module.__name__] = ""
        except Exception as error:
            self._unknown[module.__name__] = str(error) or repr(error)

    def unknown(self, names, unseen="not seen"):
        """What is unknown about the modules `names`, in words; "" when all are wrapped. `unseen` is
        what to say of a module that was never loaded."""
        for name in names:
            what = self._unknown.get(name, unseen)
            if what:
                return "%s: %s" % (name.rpartition(".")[2], what)
        return ""


def check(owner, name, parameters):
    """The function `owner.name`, whose parameters begin with `parameters`. Others may follow:
    wrappers pass on what they do not know."""
    function = inspect.getattr_static(owner, name, None)
    where = "%s.%s" % (owner.__name__.rpartition(".")[2], name)
    if not inspect.isfunction(function):
        raise Unknown("no " + where)
    signature = inspect.signature(function)
    if list(signature.parameters)[:len(parameters)] != list(parameters):
        raise Unknown("%s%s" % (where, signature))
    return function


def wrap(owner, wrappers):
    """`wrappers`: {name: (parameters, function(original) -> replacement)}. All seams are checked
    before the first is replaced."""
    originals = {name: check(owner, name, known[0]) for name, known in wrappers.items()}
    for name, (_, wrapper) in wrappers.items():
        setattr(owner, name, functools.wraps(originals[name])(wrapper(originals[name])))
